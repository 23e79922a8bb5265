"""The connection is lost at each statement of a verb, COMMIT included, before or after the statement takes effect.

One handle uses the tests' proxy, and another one checks the database directly. What the verb reports must be true:
stored once, not stored, or unknown.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from helpers import until
from servers.proxy import CuttingProxy, When, commits, containing
from servers.requirements import must_be_ours
from servers.wire import MariaDBConversation, PostgreSQLConversation

from dbtaskqueue import RetryPolicy, StoreUnavailable, Task, TaskQueue, Worker
from dbtaskqueue._store.mariadb import connections as mariadb
from dbtaskqueue._store.postgresql import connections as postgresql
from dbtaskqueue._system import clock

WHEN: list[When] = ["before", "after"]
MOST = 40
"""The largest possible number of statements of one verb."""
CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}


def of_tasks(statement: bytes) -> bool:
    """Return the trigger for statements about tasks, and for COMMIT."""
    return commits(statement) or b"dbtaskqueue_task" in statement


def writes(statement: bytes) -> bool:
    """Return the trigger for what makes a change durable: COMMIT, or a statement in autocommit."""
    return commits(statement) or b"INTO dbtaskqueue_task" in statement or b"WITH" in statement[:4]


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time after which a silent server counts as unavailable."""
    monkeypatch.setattr(postgresql, "_SILENCE", 1.0)
    monkeypatch.setitem(postgresql._DEFAULTS, "connect_timeout", "2")
    monkeypatch.setattr(mariadb, "_SILENCE", 1.0)


@pytest.fixture
def direct(url: str) -> Iterator[TaskQueue]:
    """A handle that connects directly, without the proxy."""
    with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
def proxy(engine: str, url: str, direct: TaskQueue) -> Iterator[CuttingProxy]:
    """A proxy in front of the engine's server."""
    must_be_ours(engine)
    with CuttingProxy(urlsplit(url).port or 0, CONVERSATION[engine]) as proxy:
        yield proxy


@pytest.fixture
def queue(proxy: CuttingProxy, url: str) -> Iterator[TaskQueue]:
    """The handle whose connections are lost."""
    with TaskQueue(proxy.url(url), retry=RetryPolicy(delay=3600)) as queue:
        yield queue
        proxy.disarm()


def each_statement(proxy: CuttingProxy, when: When) -> Iterator[int]:
    """Lose the connection at the first statement, then at the second, and so on, until the verb needs no more."""
    for number in range(1, MOST):
        proxy.arm(of_tasks, when, nth=number)
        yield number
        if not proxy.fired:
            proxy.disarm()
            assert number > 1, "the trigger sees no statement of this verb"
            return
    raise AssertionError(f"a verb needs more than {MOST} statements")


# -- producers -------------------------------------------------------------------------------------

ENQUEUE: dict[str, tuple[Callable[[TaskQueue, int], object], int]] = {
    "one": (lambda queue, number: queue.enqueue(number), 1),
    "large": (lambda queue, number: queue.enqueue([number, "x" * 5000]), 1),
    "keyed": (lambda queue, number: queue.enqueue(number, key=f"key {number}"), 1),
    "many": (lambda queue, number: queue.enqueue_many([number] * 7), 7),
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("how", ENQUEUE)
def test_enqueue_reports_whether_the_task_may_exist(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, how: str, when: When
) -> None:
    act, size = ENQUEUE[how]
    outcomes: Counter[str] = Counter()
    before = 0
    for number in each_statement(proxy, when):
        word = "stored"
        try:
            act(queue, number)
        except StoreUnavailable as error:
            word = "in doubt" if error.maybe_done else "not stored"
        outcomes[word] += 1
        stored, before = direct.stats().pending - before, direct.stats().pending
        assert stored in {"stored": (size,), "not stored": (0,), "in doubt": (0, size)}[word]
    assert outcomes["stored"] >= 1
    assert outcomes["in doubt"] == 1, "only a lost COMMIT leaves a doubt"


# -- a task's own transaction -----------------------------------------------------------------------


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("at", ["a statement", "COMMIT"])
def test_a_transaction_reports_whether_it_may_be_stored(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, at: str, when: When
) -> None:
    task = direct.enqueue()
    proxy.arm(commits if at == "COMMIT" else containing(b"UPDATE"), when)
    connections = queue.store._connections  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable) as caught, connections.own_transaction() as tx, connections.translated():
        tx.change("cancel", {"id": task.id, "now": clock.now(), "running": 1})
    assert proxy.fired
    assert caught.value.maybe_done is (at == "COMMIT")
    is_stored = (at, when) == ("COMMIT", "after")
    until(lambda: task.refresh().state == ("cancelled" if is_stored else "pending"))


# -- holders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", WHEN)
def test_fetch_leaves_no_reserved_task_that_no_worker_knows(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, when: When
) -> None:
    queue.enqueue_many(range(200))
    held: list[Task] = []
    for _ in each_statement(proxy, when):
        with contextlib.suppress(StoreUnavailable):
            held += queue.fetch(2, timeout=10)
        known = len(held)
        until(lambda known=known: direct.stats().reserved == known, what="the release of what no worker knows")
    for task in held:
        assert task.start()
        task.finish()


def started(queue: TaskQueue) -> Task:
    queue.enqueue("x")
    [task] = queue.fetch(timeout=10)
    assert task.start()
    return task


def reserved(queue: TaskQueue) -> Task:
    queue.enqueue("x")
    [task] = queue.fetch(timeout=10)
    return task


HOLD: dict[str, tuple[Callable[[TaskQueue], Task], Callable[[Task], object], str, list[str | None]]] = {
    "start": (reserved, lambda task: task.start(), "running", [None]),
    "finish": (started, lambda task: task.finish("y"), "done", ["done"]),
    "finish large": (started, lambda task: task.finish("y" * 5000), "done", ["done"]),
    "fail": (started, lambda task: task.fail("no"), "failed", ["failed"]),
    "abandon": (started, lambda task: task.fail("no", retry=False), "abandoned", ["abandoned"]),
    "release": (started, lambda task: task.release(3600), "pending", ["released"]),
    "release unstarted": (reserved, lambda task: task.release(3600), "pending", []),
}


def until_it_is_done(task: Task, act: Callable[[Task], object], direct: TaskQueue) -> None:
    """Repeat the call while it was certainly not carried out. The library itself clears a doubt."""
    before = direct.get(task.id).state
    try:
        act(task)
    except StoreUnavailable as gone:
        told = gone
    else:
        return
    assert not told.maybe_done
    assert direct.get(task.id).state == before
    act(task)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("verb", HOLD)
def test_a_holders_verb_takes_effect_exactly_once(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, verb: str, when: When
) -> None:
    prepare, act, state, outcomes = HOLD[verb]
    kept = []
    proxy.disarm()
    for number in range(1, MOST):
        task = prepare(queue)
        kept.append(task)
        proxy.arm(of_tasks, when, nth=number)
        until_it_is_done(task, act, direct)
        fired = proxy.fired
        proxy.disarm()
        after = direct.get(task.id)
        assert (task.state, after.state) == (state, state)
        assert [attempt.outcome for attempt in after.attempts()] == outcomes
        if not fired:
            assert number > 1
            return
    raise AssertionError("a verb needs too many statements")


# -- a worker --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("when", WHEN)
def test_a_worker_runs_each_task_once(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, when: When, batch: int
) -> None:
    ran: Counter[int] = Counter()
    numbers = itertools.count()
    for nth in range(1, 13):
        proxy.disarm()
        for number in itertools.islice(numbers, 25):
            direct.enqueue(number)
        proxy.arm(writes, when, nth=nth)
        Worker(queue).run(lambda number: ran.update([number]), burst=True, batch=batch)
        assert proxy.fired or nth > 2
        stats = direct.stats()
        assert (stats.pending, stats.reserved, stats.running, stats.failed) == (0, 0, 0, 0)
    assert set(ran.values()) == {1}
    assert len(ran) == 12 * 25
    tasks = direct.tasks(limit=1000)
    assert len(tasks) == len(ran)
    assert {(task.state, task.attempt) for task in tasks} == {("done", 1)}


# -- silence ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("how", ENQUEUE)
def test_an_enqueue_without_an_answer_is_reported_as_in_doubt(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, how: str
) -> None:
    test_enqueue_reports_whether_the_task_may_exist(queue, direct, proxy, how, "silence")


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("verb", HOLD)
def test_a_holders_verb_without_an_answer_takes_effect_exactly_once(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, verb: str
) -> None:
    prepare, act, state, outcomes = HOLD[verb]
    task = prepare(queue)
    proxy.arm(commits, "silence")
    act(task)
    assert proxy.fired
    after = direct.get(task.id)
    assert (task.state, after.state) == (state, state)
    assert [attempt.outcome for attempt in after.attempts()] == outcomes


@pytest.mark.usefixtures("_hasty")
def test_a_claim_that_arrives_too_late_is_released(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, engine: str
) -> None:
    task = queue.enqueue("x")
    [held] = queue.fetch(timeout=10)
    held.release()
    proxy.freeze()
    with pytest.raises(StoreUnavailable):
        queue.fetch(timeout=10)
    proxy.thaw()
    if engine == "postgresql":  # here a claim is a single statement, which is in transit
        until(lambda: task.refresh().token == 2, what="the arrival of the claim")
    until(lambda: direct.stats().pending == 1, what="the release of the claim")

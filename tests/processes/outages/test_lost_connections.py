"""A connection that is lost at each statement of a verb, before and after it takes effect, COMMIT included.

A handle works through the tests' proxy, another one looks past it. Whatever the verb said afterwards must be
true: stored once, or not at all, or that nobody can tell.
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
"""Statements of one verb, at the very most."""
CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}


def of_tasks(statement: bytes) -> bool:
    """The trigger for what a verb says of tasks, and for COMMIT."""
    return commits(statement) or b"dbtaskqueue_task" in statement


def writes(statement: bytes) -> bool:
    """The trigger for what makes a change of tasks last: COMMIT, or a statement that commits by itself."""
    return commits(statement) or b"INTO dbtaskqueue_task" in statement or b"WITH" in statement[:4]


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is taken for gone soon."""
    monkeypatch.setattr(postgresql, "_SILENCE", 1.0)
    monkeypatch.setitem(postgresql._DEFAULTS, "connect_timeout", "2")
    monkeypatch.setattr(mariadb, "_SILENCE", 1.0)


@pytest.fixture
def direct(url: str) -> Iterator[TaskQueue]:
    """A handle that looks past the proxy."""
    with TaskQueue(url) as queue:
        yield queue


@pytest.fixture
def proxy(engine: str, url: str, direct: TaskQueue) -> Iterator[CuttingProxy]:
    """A proxy before the engine's server."""
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
    """Lose the connection at the first statement, then at the second, …: until one passes unharmed."""
    for number in range(1, MOST):
        proxy.arm(of_tasks, when, nth=number)
        yield number
        if not proxy.fired:
            proxy.disarm()
            assert number > 1, "the trigger sees no statement of this verb"
            return
    raise AssertionError(f"a verb with more than {MOST} statements?")


# -- producers -------------------------------------------------------------------------------------

ENQUEUE: dict[str, tuple[Callable[[TaskQueue, int], object], int]] = {
    "one": (lambda queue, number: queue.enqueue(number), 1),
    "large": (lambda queue, number: queue.enqueue([number, "x" * 5000]), 1),
    "keyed": (lambda queue, number: queue.enqueue(number, key=f"key {number}"), 1),
    "many": (lambda queue, number: queue.enqueue_many([number] * 7), 7),
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("how", ENQUEUE)
def test_enqueue_says_whether_the_task_may_exist(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, how: str, when: When
) -> None:
    act, size = ENQUEUE[how]
    said: Counter[str] = Counter()
    before = 0
    for number in each_statement(proxy, when):
        word = "stored"
        try:
            act(queue, number)
        except StoreUnavailable as error:
            word = "in doubt" if error.maybe_done else "not stored"
        said[word] += 1
        stored, before = direct.stats().pending - before, direct.stats().pending
        assert stored in {"stored": (size,), "not stored": (0,), "in doubt": (0, size)}[word]
    assert said["stored"] >= 1
    assert said["in doubt"] == 1, "only a lost COMMIT leaves a doubt"


# -- a transaction of a task's own -----------------------------------------------------------------


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("at", ["a statement", "COMMIT"])
def test_a_transaction_says_whether_it_may_be_stored(
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
def test_fetch_leaves_nothing_reserved_that_nobody_knows_of(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, when: When
) -> None:
    queue.enqueue_many(range(200))
    held: list[Task] = []
    for _ in each_statement(proxy, when):
        with contextlib.suppress(StoreUnavailable):
            held += queue.fetch(2, timeout=10)
        known = len(held)
        until(lambda known=known: direct.stats().reserved == known, what="that what nobody knows of is given back")
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
    """Ask, and ask again when it was not done. A doubt is cleared without the holder's doing."""
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
def test_a_holders_verb_is_done_exactly_once(
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
    raise AssertionError("a verb with so many statements?")


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
def test_an_enqueue_that_is_never_answered_says_so(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, how: str
) -> None:
    test_enqueue_says_whether_the_task_may_exist(queue, direct, proxy, how, "silence")


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("verb", HOLD)
def test_a_holders_verb_that_is_never_answered_is_done_exactly_once(
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
def test_a_claim_that_arrives_after_it_was_given_up_is_given_back(
    queue: TaskQueue, direct: TaskQueue, proxy: CuttingProxy, engine: str
) -> None:
    task = queue.enqueue("x")
    [held] = queue.fetch(timeout=10)
    held.release()
    proxy.freeze()
    with pytest.raises(StoreUnavailable):
        queue.fetch(timeout=10)
    proxy.thaw()
    if engine == "postgresql":  # there a claim is one statement, which is on its way
        until(lambda: task.refresh().token == 2, what="the claim's arrival")
    until(lambda: direct.stats().pending == 1, what="that the claim is given back")

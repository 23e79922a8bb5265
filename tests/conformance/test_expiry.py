"""Expiry: no attempt of a task starts after ``expires_at``; see also tests/model, whose clock jumps.

Tasks that are parked for a quota, that sleep, or that wait for a rate do not exist yet. That a claim stays fast behind
100,000 expired tasks is measured in bench.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engines import execute
from flow_rules import keeps_rules
from helpers import Background, die_holding, until
from interleaving import at_statement, counted_statements, users_connection

from dbtaskqueue import InvalidTransition, RetryPolicy, Task, TaskFailed, TaskQueue, Worker
from dbtaskqueue._maintenance import ticker
from dbtaskqueue._store.contract import Claim, End, Start, TaskRecord
from dbtaskqueue._system import clock

Jump = Callable[[float], None]
SOON = RetryPolicy(delay=0, max_attempts=5)


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Move the clock forward by this many seconds, or back if negative."""
    wall, ahead = clock.source, [0]
    monkeypatch.setattr(clock, "source", lambda: wall() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] += int(seconds * 1_000_000)

    return jump


@pytest.fixture(autouse=True)
def _rules_hold(url: str) -> Iterator[None]:
    """Check the invariants after each test: no task waits for an expired one."""
    yield
    keeps_rules(url)


def is_expired(task: Task) -> bool:
    if task.refresh().state != "abandoned":
        return False
    assert "expired" in (task.error or "")
    with pytest.raises(TaskFailed, match="expired"):
        task.get_result(0)
    return True


# -- options ---------------------------------------------------------------------------------------


def test_when_a_task_expires(queue: TaskQueue) -> None:
    moment = datetime.now(UTC).replace(microsecond=7) + timedelta(hours=1)
    function = queue.task(name="f", priority=3)(print)
    tasks = [
        queue.enqueue("x", expires_at=moment),
        function.using(expires_at=moment).enqueue(),
        *queue.enqueue_many(["a", "b"], expires_at=moment),
    ]
    assert [task.expires_at for task in tasks] == [task.refresh().expires_at for task in tasks] == [moment] * 4
    later = queue.enqueue("y", expires_in=timedelta(minutes=1), start_in=1, key="k")
    assert later.expires_at == later.created_at + timedelta(minutes=1)
    assert queue.enqueue("y", expires_in=5, key="k").expires_at == later.expires_at
    plain = queue.enqueue("z")
    assert plain.expires_at is None
    assert [task.id for task in queue.fetch(9, timeout=0)] == [tasks[index].id for index in (1, 0, 2, 3)] + [plain.id]


@pytest.mark.one_engine("decided in Python")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"expires_in": 0}, ValueError),
        ({"expires_in": -1}, ValueError),
        ({"expires_in": timedelta(0)}, ValueError),
        ({"expires_in": float("nan")}, ValueError),
        ({"expires_in": "5"}, (TypeError, ValueError)),
        ({"expires_at": datetime(2030, 1, 1)}, ValueError),
        ({"expires_at": 5}, (TypeError, ValueError)),
        ({"expires_in": 5, "expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError),
    ],
)
def test_bad_options_store_nothing(queue: TaskQueue, options: Any, error: Any) -> None:
    with pytest.raises(error):
        queue.enqueue("x", **options)
    with pytest.raises(error):
        queue.task(name="f")(print).using(**options).enqueue()
    assert queue.tasks() == []


def test_a_time_in_the_past_abandons_immediately(queue: TaskQueue) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    task = queue.enqueue("x", expires_at=past, key="k")
    assert task.state == "abandoned"
    assert is_expired(task)
    several = queue.enqueue_many(["a", "b"], expires_at=past)
    assert all(map(is_expired, several))
    assert queue.enqueue("y", key="k").id > task.id
    assert [held.payload for held in queue.fetch(9, timeout=0)] == ["y"]
    assert execute(queue.url, "SELECT count(*) FROM dbtaskqueue_expiry") == [(0,)]


# -- the end ---------------------------------------------------------------------------------------


def test_an_expired_task_is_never_handed_out(queue: TaskQueue, jump: Jump) -> None:
    first = queue.enqueue_many(range(3), expires_in=60, priority=5)
    last = queue.enqueue("last", expires_in=120)
    jump(61)
    worker = queue._membership.join()
    claim = Claim([queue.name], 9, clock.now())
    assert [record.id for record in queue.store.exchange(worker, claim=claim).claimed] == [last.id]
    queue.fetch(timeout=0)
    assert all(map(is_expired, first))
    assert [task.attempts() for task in first] == [[]] * 3


def test_a_burst_ends_expired_tasks_and_runs_what_waits_for_them(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("late", expires_in=60)
    handler = queue.enqueue("handler", after=task, when="failed")
    child = queue.enqueue("child", after=task)
    jump(61)
    ran: list[Any] = []
    Worker(queue).run(ran.append, burst=True)
    assert ran == ["handler"]
    assert is_expired(task)
    assert (handler.refresh().state, child.refresh().state) == ("done", "cancelled")


@pytest.mark.parametrize("how", ["paused", "not served"])
def test_any_worker_ends_tasks_of_a_queue_that_no_worker_serves(
    queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    assert ticker._LONGEST < 15
    monkeypatch.setattr(ticker, "_LONGEST", 0.1)
    lane = queue.lane("idle")
    if how == "paused":
        lane.pause()
    task = lane.enqueue("x", expires_in=0.2)
    worker = Worker(url, queue="idle" if how == "paused" else "another")
    running = Background(lambda: worker.run(print))
    until(lambda: task.refresh().state == "abandoned", what="the end of the expired task")
    assert is_expired(task)
    worker.stop()
    running.join()


def test_waiting_for_a_task_ends_when_it_expires(queue: TaskQueue, other: TaskQueue) -> None:
    task = queue.enqueue("x", expires_in=0.3)
    waiting = Background(lambda: str(task.wait(60).state))
    until(lambda: other.store.expire(clock.now()), what="the expiry")
    assert waiting.join() == "abandoned"


def test_a_blocked_task_expires_and_its_children_follow(queue: TaskQueue, jump: Jump) -> None:
    parent = queue.enqueue("parent")
    task = queue.enqueue("task", after=parent, expires_in=60)
    child = queue.enqueue("child", after=task)
    jump(61)
    [held] = queue.fetch(9, timeout=0)
    assert held.id == parent.id
    queue.store.expire(clock.now())  # unless the maintenance was faster
    assert is_expired(task)
    assert child.refresh().state == "cancelled"
    held.start()
    held.finish()
    assert is_expired(task)


def test_the_key_of_an_expired_task_is_free(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", key="k", expires_in=60)
    jump(61)
    assert queue.enqueue("y", key="k").id == task.id
    queue.fetch(timeout=0)
    assert queue.enqueue("y", key="k").id > task.id


# -- attempts --------------------------------------------------------------------------------------


def test_a_running_attempt_is_not_touched(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", expires_in=60)
    [held] = queue.fetch(timeout=10)
    assert held.start()
    jump(61)
    assert queue.store.expire(clock.now()) == 0
    held.finish("in time")
    assert task.get_result(0) == "in time"
    assert queue.store.expire(clock.now()) == 0
    assert execute(queue.url, "SELECT count(*) FROM dbtaskqueue_expiry") == [(0,)]


def test_a_task_that_was_reserved_in_time_and_starts_too_late(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", expires_in=60)
    child = queue.enqueue("child", after=task)
    [held] = queue.fetch(timeout=10)
    jump(61)
    assert queue.store.expire(clock.now()) == 0
    assert held.start() is False
    assert is_expired(task)
    assert task.attempts() == []
    assert child.refresh().state == "cancelled"


def test_a_task_in_a_batch_that_was_reserved_in_time_may_start(queue: TaskQueue, jump: Jump) -> None:
    """A batch starts within a second of its claim, and stores its starts together with its ends."""
    tasks = queue.enqueue_many(["finishes", "is started"], expires_in=60)
    worker = queue._membership.join()
    claim = Claim([queue.name], 2, clock.now(), batched=True)
    first, second = queue.store.exchange(worker, claim=claim).claimed
    jump(61)
    now = clock.now()
    end = End("finish", first.id, first.token, now, started_at=now)
    answer = queue.store.exchange(worker, starts=[Start(second.id, second.token, now)], ends=[end])
    assert (answer.started[0].stored, answer.ended[0].stored) == (True, True)
    assert [str(task.refresh().state) for task in tasks] == ["done", "running"]


@pytest.mark.parametrize("delay", [0, 59, 61])
def test_a_task_that_would_be_retried_too_late_ends_immediately(queue: TaskQueue, delay: int) -> None:
    task = queue.enqueue("x", expires_in=60, retry=RetryPolicy(delay=delay))
    child = queue.enqueue("child", after=task)
    [held] = queue.fetch(timeout=10)
    held.start()
    held.fail("no luck")
    if delay < 60:
        assert (task.refresh().state, task.error) == ("failed", "no luck")
        return
    assert is_expired(task)
    assert "no luck" in (task.error or "")
    assert [attempt.outcome for attempt in task.attempts()] == ["abandoned"]
    assert child.refresh().state == "cancelled"


def test_a_task_that_expires_between_two_attempts(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", expires_in=60, retry=RetryPolicy(delay=30))
    [held] = queue.fetch(timeout=10)
    held.start()
    held.fail("no luck")
    assert task.refresh().state == "failed"
    jump(61)
    assert queue.fetch(timeout=0) == []
    assert is_expired(task)
    assert [attempt.error for attempt in task.attempts()] == ["no luck"]


@pytest.mark.parametrize("state", ["reserved", "running"])
def test_a_task_of_a_dead_worker_that_has_expired(queue: TaskQueue, url: str, jump: Jump, state: str) -> None:
    task = queue.enqueue("x", expires_in=60, retry=SOON)
    child = queue.enqueue("child", after=task)
    assert die_holding(url, state=state) == [task.id]
    jump(61)
    until(lambda: queue.fetch(timeout=0.1) == [] and task.refresh().state == "abandoned", what="the rescue")
    assert is_expired(task)
    assert [attempt.outcome for attempt in task.attempts()] == (["lost"] if state == "running" else [])
    assert child.refresh().state == "cancelled"


@pytest.mark.parametrize("start", [False, True])
def test_a_task_that_is_released_after_it_has_expired(queue: TaskQueue, jump: Jump, start: bool) -> None:
    """As by a worker that drains. It ends, and no attempt is spent."""
    task = queue.enqueue("x", expires_in=60)
    [held] = queue.fetch(timeout=10)
    if start:
        held.start()
    jump(61)
    queue.store.expire(clock.now())
    held.release()
    assert queue.fetch(timeout=0) == []
    assert is_expired(task)
    assert task.attempt == 0


# -- an operator's retry ---------------------------------------------------------------------------


def test_retry_clears_the_expiry(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", expires_in=60)
    jump(61)
    queue.fetch(timeout=0)
    assert is_expired(task)
    again = queue.retry(task.id)
    assert (again.state, again.error, again.expires_at) == ("pending", None, None)
    assert [held.id for held in queue.fetch(timeout=0)] == [task.id]


def test_retry_before_the_expiry_clears_it(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", expires_in=60)
    queue.cancel(task.id)
    queue.retry(task.id)
    jump(61)
    assert queue.store.expire(clock.now()) == 0
    assert [held.id for held in queue.fetch(timeout=0)] == [task.id]


def test_retry_of_an_expired_parent_revives_its_children(queue: TaskQueue, jump: Jump) -> None:
    parent = queue.enqueue("parent", expires_in=60)
    child = queue.enqueue("child", after=parent, expires_in=600)
    jump(61)
    queue.fetch(timeout=0)
    assert (is_expired(parent), child.refresh().state) == (True, "cancelled")
    jump(600)
    assert queue.store.expire(clock.now()) == 0
    queue.retry(parent.id)
    assert (child.refresh().state, child.expires_at) == ("pending", None)
    ran: list[Any] = []
    Worker(queue).run(ran.append, burst=True)
    assert ran == ["parent", "child"]


def test_a_child_that_has_expired_is_not_revived(queue: TaskQueue, jump: Jump) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent, expires_in=60)
    jump(61)
    queue.store.expire(clock.now())
    queue.cancel(parent.id)
    queue.retry(parent.id)
    assert is_expired(child)


def test_new_tasks_that_have_expired_keep_their_parents_and_children(queue: TaskQueue) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    parent = queue.enqueue("parent")
    report = queue.enqueue("report", after=parent)
    handler = queue.enqueue("handler", after=parent, when="ended")
    late = queue.enqueue("late", after=parent, expires_at=past)
    for task in (report, handler):
        queue.enqueue("before", before=task, expires_at=past)
    with queue.flow() as flow:
        x = flow.add("x", expires_at=past)
        y = flow.add("y", after=x)
    assert (is_expired(x.task), str(y.task.state)) == (True, "cancelled")
    assert report.refresh().state == "cancelled"
    assert handler.refresh().blocked == (["parents"], 1, 2)
    assert late.parents() == [parent.id]
    assert queue.retry(late.id).blocked == (["parents"], 1, 1)


# -- transactions that meet ------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["lock_expired", "expire", "may_expire", "delete_expiries"])
@pytest.mark.parametrize("retried", [False, True])
def test_a_claim_and_an_expiry_at_the_same_moment(
    queue: TaskQueue, other: TaskQueue, url: str, query: str, retried: bool
) -> None:
    """The clock of the claiming worker is late. Or an operator retries the task: then it is claimed."""
    expires = clock.now() + 1_000_000
    task = queue.enqueue("x", expires_at=clock.to_datetime(expires))
    worker = other._membership.join()
    claim = Claim([queue.name], 1, expires - 1)

    def act() -> list[int]:
        if retried:
            with contextlib.suppress(InvalidTransition):  # it has expired
                other.cancel(task.id)
            other.retry(task.id)
        claimed = other.store.exchange(worker, claim=claim).claimed
        for record in claimed:
            other.store.exchange(worker, ends=[End("release", record.id, record.token, expires, due=0)])
        return [record.id for record in claimed]

    with at_statement(url, query, act):
        queue.store.expire(expires + 1)
    queue.store.expire(expires + 1)
    if retried:
        assert (task.refresh().state, task.expires_at) == ("pending", None)
        assert [held.id for held in queue.fetch(timeout=0)] == [task.id]
    else:
        assert is_expired(task)


@pytest.mark.parametrize("is_released", [False, True])
def test_a_task_that_is_claimed_while_it_expires(
    queue: TaskQueue, other: TaskQueue, url: str, is_released: bool
) -> None:
    """It is claimed after it was found to be expired, and perhaps released before its row in the list is checked."""
    expires = clock.now() + 1_000_000
    task = queue.enqueue("x", expires_at=clock.to_datetime(expires))
    child = queue.enqueue("child", after=task)
    worker = other._membership.join()
    claim = Claim([queue.name], 1, expires - 1)
    claimed: list[TaskRecord] = []

    def release() -> None:
        if is_released:
            ends = [End("release", record.id, record.token, expires, due=0) for record in claimed]
            other.store.exchange(worker, ends=ends)

    with (
        at_statement(url, "may_expire", release),
        at_statement(
            url,
            "expirable",
            lambda: claimed.extend(other.store.exchange(worker, claim=claim).claimed),
            after=True,
            ends=True,
        ),
    ):
        count = queue.store.expire(expires + 1)
    assert len(claimed) == 1
    if not is_released:
        assert (count, str(task.refresh().state)) == (0, "reserved")
        assert child.refresh().blocked is not None
        is_released = True
        release()
    queue.store.expire(expires + 1)
    assert is_expired(task)
    assert child.refresh().state == "cancelled"


def test_two_workers_expire_the_same_tasks(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(10), expires_in=1)
    later = clock.now() + 2_000_000
    counts: list[int] = []
    with at_statement(url, "expire", lambda: counts.append(other.store.expire(later))):
        counts.append(queue.store.expire(later))
    assert sum(counts) == 10
    assert queue.stats().abandoned == 10


def test_a_task_in_a_users_transaction(queue: TaskQueue, url: str, jump: Jump) -> None:
    with users_connection(url) as connection:
        task = queue.enqueue("x", expires_in=60, connection=connection)
        past = queue.enqueue("y", expires_at=datetime.now(UTC) - timedelta(seconds=1), connection=connection)
        assert past.state == "abandoned"
        connection.commit()
    jump(61)
    assert queue.fetch(timeout=0) == []
    assert is_expired(task)
    assert is_expired(past)


# -- clocks and numbers ----------------------------------------------------------------------------


def test_the_clock_jumps(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue("x", expires_in=600)
    jump(-3600)
    queue._membership.maintain()
    [held] = queue.fetch(timeout=10)
    assert held.id == task.id
    held.release()
    jump(3600 + 3600)
    assert queue.fetch(timeout=0) == []
    assert is_expired(task)


def test_thousands_of_expired_tasks_before_one_that_is_due(queue: TaskQueue, jump: Jump) -> None:
    queue.enqueue_many(range(2500), expires_in=60, priority=1)
    queue.enqueue("due")
    jump(61)
    ran: list[Any] = []
    Worker(queue).run(ran.append, burst=True)
    assert ran == ["due"]
    stats = queue.stats()
    assert (stats.abandoned, stats.done, stats.pending) == (2500, 1, 0)


def test_a_plain_task_pays_nothing_for_expiry(queue: TaskQueue) -> None:
    queue.enqueue("x")
    with counted_statements() as found:
        [held] = queue.fetch(timeout=10)
        held.start()
        held.finish()
    assert not {"expirable", "lock_expired", "expire", "expire_reserved", "insert_expiry"} & set(found)

"""The verbs of operators: list, cancel, pause, resume, purge, prune."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from helpers import Background, until

from dbtaskqueue import (
    InvalidTransition,
    QueueStats,
    RetryPolicy,
    Task,
    TaskNotFound,
    TaskQueue,
    TaskQueueError,
    TaskState,
)
from dbtaskqueue._store.sqlite.transaction import SQL, SqliteTransaction
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership


def bring(queue: TaskQueue, state: str) -> Task:
    """Enqueue a task and bring it into this state. Return the Task of its holder."""
    made = queue.enqueue(state, retry=RetryPolicy(delay=3600), priority=9)
    [task] = queue.fetch(timeout=10)
    assert task.id == made.id
    if state == "pending":
        task.release(3600)
    elif state == "cancelled":
        task.cancel()
    elif state != "reserved":
        task.start()
    if state == "done":
        task.finish("result")
    elif state in ("failed", "abandoned"):
        task.fail("broken", retry=state == "failed")
    assert task.state == state
    return task


@pytest.fixture
def zoo(queue: TaskQueue) -> dict[str, Task]:
    """Return one task in each state."""
    return {str(state): bring(queue, state) for state in TaskState}


# -- many tasks, and cancelling --------------------------------------------------------------------


def test_states_of_many_tasks(queue: TaskQueue, zoo: dict[str, Task]) -> None:
    more = [task.id for task in queue.enqueue_many(range(1100))]
    unknown = more[-1] + 7
    standings = queue.store.standings([*more, unknown, *(task.id for task in zoo.values())])
    assert set(standings) == {*more, *(task.id for task in zoo.values())}
    for state, task in zoo.items():
        assert standings[task.id] == (TaskState(state), queue.get(task.id).token)
    assert queue.store.standings([]) == {}


@pytest.mark.parametrize("state", list(TaskState))
def test_a_cancel_that_leaves_running_tasks_alone(queue: TaskQueue, state: TaskState) -> None:
    task = bring(queue, state)
    before = queue.get(task.id)
    verdict = queue.store.cancel(task.id, clock.now(), running=False)
    after = queue.get(task.id)
    if state in ("pending", "failed", "reserved"):
        assert verdict[:3] == (True, "cancelled", before.token + 1)
        assert (after.state, after.worker) == ("cancelled", None)
    else:
        assert verdict[:3] == (False, state, before.token)
        assert (after.state, after.cancel_requested) == (state, False)


@pytest.mark.parametrize("state", list(TaskState))
@pytest.mark.one_engine("decided in Python, with a verb that the previous test runs on every engine")
def test_cancel_returns_whether_the_task_is_cancelled_now(queue: TaskQueue, state: TaskState) -> None:
    holder = bring(queue, state)
    task = queue.get(holder.id)
    by_queue = functools.partial(queue.cancel, task.id)
    for cancel in (task.cancel, by_queue):
        for running in (False, True):
            if state in ("done", "abandoned"):
                with pytest.raises(InvalidTransition, match=f"cancel: task {task.id} is {state}"):
                    cancel(running=running)
            else:
                assert cancel(running=running) is (state != "running")
            assert task.refresh().cancel_requested is (state == "running" and (running or cancel is by_queue))
    assert task.state == (state if state in ("running", "done", "abandoned") else "cancelled")


# -- purge -----------------------------------------------------------------------------------------


def test_purge_abandons_unfinished_tasks(queue: TaskQueue, zoo: dict[str, Task]) -> None:
    before = {id: queue.get(id) for id in (task.id for task in zoo.values())}
    assert queue.purge() == 4
    for state, task in zoo.items():
        after = queue.get(task.id)
        if state in ("pending", "reserved", "running", "failed"):
            assert after.state == "abandoned"
            assert after.token == before[task.id].token + 1
            assert after.finished_at is not None
        else:
            assert (after.state, after.token) == (state, before[task.id].token)
    assert queue.purge() == 0


def test_purge_affects_one_queue_only(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        task = other.enqueue()
        assert queue.purge() == 0
        assert task.refresh().state == "pending"


def test_purge_of_many(queue: TaskQueue) -> None:
    queue.enqueue_many(range(3500))
    assert queue.purge() == 3500
    assert queue.stats().abandoned == 3500


@pytest.mark.pooled("prepared statements")
def test_purge_takes_only_tasks_enqueued_before_the_call(queue: TaskQueue, other: TaskQueue) -> None:
    """A busy producer must not make a purge endless, and its later tasks must stay."""
    stop = []

    def produce() -> list[int]:
        ids = []
        while not stop:
            ids.append(other.enqueue().id)
        return ids

    queue.enqueue_many(range(5000))
    producer = Background(produce)
    assert queue.purge() >= 5000
    after = other.enqueue()
    stop.append(True)
    producer.join()
    assert after.refresh().state == "pending"


# -- prune -----------------------------------------------------------------------------------------


def test_prune_deletes_done_and_cancelled_by_default(queue: TaskQueue, zoo: dict[str, Task]) -> None:
    assert queue.prune(0) == 2
    for state, task in zoo.items():
        if state in ("done", "cancelled"):
            with pytest.raises(TaskNotFound):
                queue.get(task.id)
        else:
            assert queue.get(task.id).state == state


def test_prune_of_abandoned_tasks_when_asked(queue: TaskQueue, zoo: dict[str, Task]) -> None:
    assert queue.prune(0, states=["abandoned"]) == 1
    with pytest.raises(TaskNotFound):
        queue.get(zoo["abandoned"].id)
    assert queue.prune(0, states=(TaskState.DONE, TaskState.CANCELLED, TaskState.ABANDONED)) == 2
    assert queue.prune(0, states=[]) == 0


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("states", [["pending"], ["done", "running"], ["finished"], "done", [7]], ids=str)
def test_prune_of_another_state_is_refused(queue: TaskQueue, zoo: dict[str, Task], states: list[str]) -> None:
    with pytest.raises(ValueError, match=r"state|final"):
        queue.prune(0, states=states)
    assert len(queue.tasks()) == len(zoo)


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("age", [-1, timedelta(seconds=-1), float("nan"), "30d", None])
def test_prune_of_a_bad_age_is_refused(queue: TaskQueue, age: float) -> None:
    with pytest.raises(ValueError, match="older_than"):
        queue.prune(age)


def test_prune_compares_the_time_at_which_a_task_ended(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = clock.source
    ago = [3 * 86400]
    monkeypatch.setattr(clock, "source", lambda: wall() - ago[0] * 1_000_000)
    old = bring(queue, "done")
    running = bring(queue, "running")
    ago[0] = 3600
    new = bring(queue, "done")
    running.finish()
    ago[0] = 0
    assert queue.prune(timedelta(days=30)) == 0
    assert queue.prune(86400) == 1
    with pytest.raises(TaskNotFound):
        queue.get(old.id)
    assert [task.id for task in queue.tasks()] == [new.id, running.id]
    assert queue.prune(timedelta(minutes=30)) == 2


@pytest.mark.pooled("prepared statements")
def test_prune_of_many_and_of_one_queue(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        bring(other, "done")
        queue.enqueue_many(["x" * 300] * 2500)
        queue.purge()
        assert queue.prune(0, states=["done", "abandoned"]) == 2500
        assert queue.tasks() == []
        assert len(other.tasks()) == 1


def test_an_id_is_never_used_again(queue: TaskQueue, url: str) -> None:
    first = bring(queue, "done")
    highest = bring(queue, "done")
    assert queue.prune(0) == 2
    assert queue.enqueue().id > highest.id > first.id
    last = queue.enqueue_many(range(3))[-1]
    queue.purge()
    queue.prune(0, states=["abandoned"])
    with TaskQueue(url, queue="other") as other:
        assert other.enqueue().id > last.id


def test_pruning_a_task_removes_its_history(queue: TaskQueue) -> None:
    task = bring(queue, "failed")
    task.cancel()
    queue.prune(0)
    assert task.attempts() == []


# -- pause and resume ------------------------------------------------------------------------------


def test_no_task_is_fetched_from_a_paused_queue(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    running, reserved = bring(queue, "running"), bring(queue, "reserved")
    queue.pause()
    queue.pause()
    assert queue.stats().paused
    queue.enqueue("waits")
    assert queue.fetch(timeout=0) == other.fetch(timeout=0) == []
    with TaskQueue(url) as later, TaskQueue(url, queue="other") as other_queue:
        assert later.fetch(timeout=0) == []
        other_queue.enqueue()
        assert len(other_queue.fetch(timeout=10)) == 1
    assert reserved.start()
    running.finish()
    reserved.release()
    other.resume()
    assert not queue.stats().paused
    held = queue.fetch(10, timeout=10)
    assert len(held) == 2


def test_resume_of_a_queue_that_is_not_paused(queue: TaskQueue) -> None:
    queue.resume()
    queue.enqueue()
    assert len(queue.fetch(timeout=10)) == 1


# -- stats -----------------------------------------------------------------------------------------


def test_stats_of_an_empty_queue(queue: TaskQueue) -> None:
    assert queue.stats() == QueueStats(0, 0, 0, 0, 0, 0, 0, oldest_due=None, workers=0, paused=False)


def test_stats_count_each_state(queue: TaskQueue, zoo: dict[str, Task], url: str) -> None:
    bring(queue, "done")
    stats = queue.stats()
    assert stats._asdict() == {
        **dict.fromkeys(("pending", "reserved", "running", "failed", "cancelled", "abandoned"), 1),
        "done": 2,
        "oldest_due": None,
        "workers": 1,
        "paused": False,
        "blocked": 0,
    }
    with TaskQueue(url, queue="other") as other:
        assert other.stats() == QueueStats(0, 0, 0, 0, 0, 0, 0, oldest_due=None, workers=1, paused=False)


def test_unfinished_counts_are_exact_while_final_ones_may_be_old(queue: TaskQueue) -> None:
    for number in range(1, 6):
        queue.enqueue()
        assert queue.stats().pending == number
    held = queue.fetch(3, timeout=10)
    assert (queue.stats().pending, queue.stats().reserved) == (2, 3)
    for task in held:
        with task:
            pass
    assert queue.stats().reserved == 0
    until(lambda: queue.stats().done == 3, what="the count of done tasks")


# -- queues and workers ----------------------------------------------------------------------------


def test_queues_of_the_database(queue: TaskQueue, url: str) -> None:
    assert queue.queues() == []
    queue.enqueue_many([1, 2])
    with TaskQueue(url, queue="mail") as mail, TaskQueue(url, queue="paused") as paused:
        mail.enqueue(3)
        paused.pause()
        held = queue.fetch(timeout=10)
        member = Membership(
            queue.store, 30.0, queue.events, runs_tasks=False, executor="thread", queues=["mail", "other"]
        )
        member.join()
        found = {info.name: info for info in mail.queues()}
    assert list(found) == ["default", "mail", "paused"]
    assert (found["default"].pending, found["default"].reserved, found["default"].workers) == (1, 1, 0)
    assert (found["mail"].pending, found["mail"].workers, found["mail"].paused) == (1, 1, False)
    assert 0 <= (found["mail"].oldest_due or -1) < 60
    assert found["paused"][1:] == QueueStats(0, 0, 0, 0, 0, 0, 0, oldest_due=None, workers=0, paused=True)
    member.leave()
    held[0].release()


def test_workers_of_the_database(queue: TaskQueue) -> None:
    assert queue.workers() == []
    queue.enqueue_many([1, 2])
    held = queue.fetch(2, timeout=10)
    [fetching] = queue.workers()
    assert (fetching.id, fetching.pid, fetching.state) == (held[0].worker, os.getpid(), "alive")
    assert (fetching.holds, fetching.executor, fetching.queues, fetching.lost_at) == (2, None, None, None)
    assert (fetching.elsewhere, fetching.lease, fetching.created_at.tzinfo) == (False, 30.0, UTC)
    [row] = queue.store.workers()
    remote = queue.store.register(
        row._replace(boot="another machine", executor="process", queues='["mail"]', commands=1)
    )
    dead = queue.store.register(row._replace(started=(row.started or 0) + 1))
    found = {worker.id: worker for worker in queue.workers()}
    assert (found[remote].state, found[remote].elsewhere) == ("alive", True)
    assert (found[remote].executor, found[remote].queues, found[remote].commands) == ("process", ["mail"], True)
    assert (fetching.commands, found[dead].commands) == (False, False)
    assert (found[dead].state, found[dead].elsewhere) == ("lost", False)
    for id in (remote, dead):
        queue.store.deregister(id)


@pytest.mark.parametrize("damaged", ["", "[", "7", "{}"])
def test_a_worker_whose_queues_cannot_be_read_is_listed(queue: TaskQueue, damaged: str) -> None:
    queue.enqueue()
    held = queue.fetch(timeout=10)
    id = queue.store.register(queue.store.workers()[0]._replace(queues=damaged))
    assert {worker.id: worker.queues for worker in queue.workers()}[id] is None
    assert queue.queues()[0].workers == 0
    queue.store.deregister(id)
    held[0].release()


Tick = Callable[[float], None]


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Tick:
    """Stop the clock; return a function that moves it forward by this many seconds."""
    now = [clock.now()]
    monkeypatch.setattr(clock, "source", lambda: now[0])

    def tick(seconds: float) -> None:
        now[0] += int(seconds * 1_000_000)

    return tick


def waited(queue: TaskQueue) -> float | None:
    found = queue.stats().oldest_due
    return None if found is None else round(found, 3)


def test_oldest_due_is_the_longest_wait(queue: TaskQueue, tick: Tick) -> None:
    queue.enqueue(start_in=3600)
    assert waited(queue) is None
    queue.enqueue(priority=5)
    tick(60)
    queue.enqueue(priority=-5)
    assert waited(queue) == 60
    queue.pause()
    assert waited(queue) == 60
    queue.resume()
    held = queue.fetch(10, timeout=10)
    assert len(held) == 2
    assert waited(queue) is None
    tick(3550)
    assert waited(queue) == 10


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
def test_a_task_with_a_start_in_the_past_waits_since_it_was_enqueued(queue: TaskQueue, tick: Tick) -> None:
    """This once raised a false alert: "has waited for ten months"."""
    last_year = datetime.now(UTC) - timedelta(days=300)
    late = queue.enqueue(start_at=last_year)
    assert waited(queue) == 0
    tick(5)
    queue.enqueue_many([None] * 3, start_at=last_year - timedelta(days=1))
    queue.enqueue(priority=9, start_at=last_year)
    assert waited(queue) == 5
    queue.cancel(late.id)
    assert waited(queue) == 0
    tick(1)
    assert waited(queue) == 1


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
def test_a_task_with_a_start_in_the_past_hides_no_longer_wait(queue: TaskQueue, tick: Tick) -> None:
    queue.enqueue("waits")
    tick(100)
    queue.enqueue("is due before it", start_at=datetime.now(UTC) - timedelta(days=300))
    assert waited(queue) == 100


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
def test_a_task_waits_since_it_was_released_failed_or_retried(queue: TaskQueue, tick: Tick) -> None:
    queue.enqueue(retry=RetryPolicy(delay=10), start_at=datetime.now(UTC) - timedelta(days=300))
    tick(100)

    def hold() -> Task:
        [task] = queue.fetch()
        assert task.start()
        return task

    hold().release()
    assert waited(queue) == 0
    tick(7)
    hold().release(delay=20)
    tick(25)
    assert waited(queue) == 5
    hold().fail("no luck")
    tick(15)
    assert waited(queue) == 5
    task = hold()
    task.fail("no luck", retry=False)
    tick(1000)
    queue.retry(task.id)
    tick(3)
    assert waited(queue) == 3
    del task
    [reserved] = queue.fetch()
    tick(4)
    queue._membership.leave()  # as a draining worker does: the task keeps its due time
    assert waited(queue) == 7
    del reserved


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
def test_a_wait_is_not_negative_after_the_clock_was_set_back(queue: TaskQueue, tick: Tick) -> None:
    queue.enqueue(start_at=datetime.now(UTC) - timedelta(days=300))
    queue.enqueue()
    tick(-3600)
    assert queue.store.fix_due_after_clock_change(clock.now()) == 1
    tick(10)
    found = waited(queue)
    assert found is not None
    assert found >= 10


def test_workers_lists_live_workers_of_the_whole_database(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        assert queue.fetch(timeout=0) == other.fetch(timeout=0) == []
        assert queue.stats().workers == other.stats().workers == 2
    assert queue.stats().workers == 1


# -- get and tasks --------------------------------------------------------------------------------


def test_get_finds_tasks_of_any_queue(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        task = other.enqueue("x")
        assert queue.get(task.id).queue == "other"
        queue.cancel(task.id)
        assert queue.retry(task.id).state == "pending"


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("id", [1, 0, -1, 2**63, 2**70, "1", 1.0, None, True], ids=repr)
def test_an_unknown_task_raises_task_not_found(queue: TaskQueue, id: int) -> None:
    for act in (queue.get, queue.cancel, queue.retry):
        with pytest.raises(TaskNotFound, match="no task") as caught:
            act(id)
        assert isinstance(caught.value, LookupError)


def test_tasks_lists_this_queue_newest_first(queue: TaskQueue, zoo: dict[str, Task], url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        other.enqueue()
    assert [task.id for task in queue.tasks()] == sorted((task.id for task in zoo.values()), reverse=True)
    for state, task in zoo.items():
        assert [found.id for found in queue.tasks(state=state)] == [task.id]
        assert [found.id for found in queue.tasks(state=TaskState(state))] == [task.id]
        assert queue.tasks(state=state)[0].payload == state


@pytest.mark.parametrize("state", [None, "pending"])
def test_paging(queue: TaskQueue, state: str | None) -> None:
    ids = [task.id for task in queue.enqueue_many(range(250))]
    seen: list[int] = []
    before = None
    while page := queue.tasks(state=state, limit=40, before=before):
        seen += [task.id for task in page]
        before = page[-1].id
    assert seen == ids[::-1]
    assert len(queue.tasks(state=state)) == 100
    assert len(queue.tasks(state=state, limit=10**30)) == 250
    assert queue.tasks(before=-5) == []
    assert len(queue.tasks(before=10**30, limit=300)) == 250


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": -1}, {"limit": "1"}, {"limit": True}, {"state": "finished"}, {"before": "x"}]
)
def test_bad_arguments_of_tasks(queue: TaskQueue, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"limit|state|before"):
        queue.tasks(**options)  # type: ignore[arg-type]


@pytest.mark.one_engine("refused before a query is sent")
def test_a_closed_queue_refuses(url: str) -> None:
    queue = TaskQueue(url)
    id = queue.enqueue().id
    queue.close()
    acts = [queue.stats, queue.tasks, queue.pause, queue.resume, queue.purge, queue.enqueue]
    acts += [lambda: queue.get(id), lambda: queue.cancel(id), lambda: queue.retry(id), lambda: queue.prune(0)]
    for act in acts:
        with pytest.raises(TaskQueueError, match="closed"):
            act()


# -- the queues of a database ----------------------------------------------------------------------


def test_queues_lists_those_with_tasks_and_those_that_are_paused(queue: TaskQueue, url: str) -> None:
    assert queue.store.queues() == []
    with contextlib.ExitStack() as stack:
        queues = {name: stack.enter_context(TaskQueue(url, queue=name)) for name in [*TaskState, "Paused", "resumed"]}
        held = [bring(queues[state], state) for state in TaskState]
        queues["Paused"].pause()
        queues["resumed"].pause()
        queues["resumed"].resume()
        assert queue.store.queues() == sorted([*TaskState, "Paused"])
        del held


def test_queues_lists_those_that_have_only_schedules(queue: TaskQueue) -> None:
    for name in ("mail", "media"):
        queue.lane(name).schedule("hourly", {}, every=3600)
    assert queue.store.queues() == ["mail", "media"]
    queue.lane("mail").unschedule("hourly")
    assert queue.store.queues() == ["media"]


@pytest.mark.engine("sqlite")
def test_listing_queues_does_not_read_finished_tasks(queue: TaskQueue) -> None:
    """The plan has seeks only, and one scan of the held tasks."""

    def plan(tx: SqliteTransaction) -> list[str]:
        return [row[3] for row in tx.connection.execute(f"EXPLAIN QUERY PLAN {SQL['queues']}")]

    steps = [step for step in queue.store._connections.read(plan) if "dbtaskqueue_task" in step]  # type: ignore[attr-defined]
    assert [step for step in steps if step.startswith("SCAN")] == ["SCAN dbtaskqueue_task USING INDEX dbtaskqueue_held"]
    assert len(steps) == 7

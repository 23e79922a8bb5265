"""Running tasks are suspended and continued."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbtaskqueue import InvalidTransition, RetryPolicy, Task, TaskNotFound, TaskQueue, TaskState
from dbtaskqueue._store.contract import Claim, End, TaskRecord
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership

Run = Callable[[str | None], TaskRecord]


@pytest.fixture
def run(queue: TaskQueue) -> Run:
    """Return a function that has a worker with this executor start a new task."""

    def act(executor: str | None) -> TaskRecord:
        queue.enqueue("long", retry=RetryPolicy(delay=0))
        return again(queue, executor)

    return act


def again(queue: TaskQueue, executor: str | None) -> TaskRecord:
    worker = Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor=executor).join()
    claim = Claim([queue.name], 1, clock.now(), start=True)
    return queue.store.exchange(worker, claim=claim).claimed[0]


def is_suspended(queue: TaskQueue, record: TaskRecord) -> bool:
    """Check that all readers and the task's worker see the same; return it."""
    seen = queue.get(record.id).suspended
    assert record.worker is not None
    assert [bool(held.suspended) for held in queue.store.held(record.worker)] in ([seen], [])
    assert [task.suspended for task in queue.tasks()] == [seen]
    return seen


def test_a_running_task_is_suspended_and_continued(queue: TaskQueue, run: Run) -> None:
    record = run("process")
    assert not is_suspended(queue, record)
    for _ in range(2):
        queue.suspend(record.id)
        assert is_suspended(queue, record)
    assert (queue.get(record.id).state, queue.get(record.id).token) == ("running", record.token)
    for _ in range(2):
        queue.continue_(record.id)
        assert not is_suspended(queue, record)
    verdict = queue.store.suspend(record.id, True)
    assert verdict[:3] == (True, TaskState.RUNNING, record.token)


@pytest.mark.parametrize(
    ("executor", "why"), [("thread", "threads"), ("asyncio", "asyncio"), (None, "was fetched by a program")]
)
def test_only_tasks_in_processes_can_be_suspended(queue: TaskQueue, run: Run, executor: str | None, why: str) -> None:
    record = run(executor)
    for act in (queue.suspend, queue.continue_):
        with pytest.raises(InvalidTransition, match=f"task {record.id} .*{why}"):
            act(record.id)
    assert not is_suspended(queue, record)


@pytest.mark.parametrize("state", [state for state in TaskState if state != "running"])
def test_only_a_running_task_can_be_suspended(queue: TaskQueue, state: TaskState) -> None:
    task = queue.enqueue(1)
    if state != "pending":
        [task] = queue.fetch()
        lead(task, state)
    for act in (queue.suspend, queue.continue_):
        with pytest.raises(InvalidTransition, match=f"is {state}"):
            act(task.id)
    assert not queue.get(task.id).suspended
    assert queue.get(task.id).state == state


def lead(task: Task, state: TaskState) -> None:
    if state == "reserved":
        return
    if state == "cancelled":
        task.cancel()
        return
    task.start()
    if state == "done":
        task.finish()
    else:
        task.fail("x", retry=state == "failed")


def test_an_unknown_task(queue: TaskQueue) -> None:
    for act in (queue.suspend, queue.continue_):
        with pytest.raises(TaskNotFound):
            act(77)
    assert queue.store.suspend(77, True)[:3] == (False, None, None)


def test_the_task_of_a_lost_worker(queue: TaskQueue, run: Run) -> None:
    record = run("process")
    assert record.worker is not None
    queue.store.suspend(record.id, True)
    [beat] = [worker.beat for worker in queue.store.workers() if worker.id == record.worker]
    assert queue.store.rescue(record.worker, beat, "lost", clock.now(), lambda *_: clock.now())
    assert not is_suspended(queue, record)
    with pytest.raises(InvalidTransition, match="is failed"):
        queue.continue_(record.id)
    assert not again(queue, "process").suspended, "a new claim is not suspended"
    assert not queue.get(record.id).suspended


@pytest.mark.parametrize("verb", ["finish", "fail", "release"])
def test_the_end_of_an_attempt_ends_its_suspension(queue: TaskQueue, run: Run, verb: str) -> None:
    record = run("process")
    assert record.worker is not None
    queue.suspend(record.id)
    end = End(verb, record.id, record.token, clock.now(), error="x" if verb == "fail" else None)
    assert queue.store.exchange(record.worker, ends=[end]).ended[0].stored
    assert not is_suspended(queue, record)
    if verb == "finish":
        queue.retry(record.id)
    again(queue, "process")
    assert not is_suspended(queue, record)


def test_a_cancel_reaches_a_suspended_task(queue: TaskQueue, run: Run) -> None:
    record = run("process")
    assert record.worker is not None
    queue.suspend(record.id)
    queue.cancel(record.id)
    [held] = queue.store.held(record.worker)
    assert (held.suspended, held.cancel_requested) == (1, 1)

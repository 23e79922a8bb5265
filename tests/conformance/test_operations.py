"""Operations: stored bulk actions, carried out in steps, stopped, and taken over from a program that has died."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engines import execute
from helpers import start_one_before_each_step, until

from dbtaskqueue import TaskQueue
from dbtaskqueue._formats.filters import parse
from dbtaskqueue._store.contract import BulkStep, OperationRecord, OperationStep
from dbtaskqueue._system import clock
from dbtaskqueue.audit import Actor
from dbtaskqueue.bulk import searched
from dbtaskqueue.operations import (
    OperationNotFound,
    OperationRunner,
    create_operation,
    find_operation,
    stop_operation,
)

ALICE = Actor("alice", "dashboard")


@pytest.fixture
def runner(queue: TaskQueue) -> Iterator[OperationRunner]:
    """Return a runner, which is closed at the end."""
    runner = OperationRunner(queue.store)
    yield runner
    runner.close()


def create(queue: TaskQueue, verb: Any = "cancel", /, *, highest: int | None = None, **where: Any) -> int:
    options = where.pop("options", {})
    filters = parse(where or {"queue": queue.name}, clock.now())
    return create_operation(queue.store, verb, filters, options, ALICE, highest=highest)


def ended(queue: TaskQueue, runner: OperationRunner, id: int) -> OperationRecord:
    """Let a runner carry out an operation, and return it at its end."""
    runner.wake()

    def look() -> OperationRecord | None:
        found = find_operation(queue.store, id)
        return None if found.state == "running" else found

    return until(look, what=f"the end of operation {id}")


def test_a_task_that_starts_after_it_was_found_pending_is_not_interrupted(
    queue: TaskQueue, runner: OperationRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue_many(range(3))
    started = start_one_before_each_step(queue, monkeypatch)
    found = ended(queue, runner, create(queue, state="pending"))
    assert (found.changed, found.refused) == (2, '{"it is running": 1}')
    assert [queue.get(task.id).cancel_requested for task in started] == [False]


def test_an_operation_changes_all_that_match(queue: TaskQueue, runner: OperationRunner) -> None:
    tasks = queue.enqueue_many(range(1100))
    tasks[0].cancel()
    other = queue.lane("other").enqueue(1)
    found = ended(queue, runner, create(queue))
    assert (found.state, found.changed, found.refused) == ("done", 1099, '{"it is cancelled": 1}')
    assert found.scanned >= 1100
    assert found.ended_at is not None
    assert queue.stats().cancelled == 1100
    assert other.refresh().state == "pending"
    rows = [row for row in queue.audit() if row.who == "alice"]
    assert sum(row.count for row in rows) == 1099
    assert {(row.verb, row.via) for row in rows} == {("cancel", "dashboard")}


def test_each_verb(queue: TaskQueue, runner: OperationRunner) -> None:
    tasks = queue.enqueue_many(range(5))
    moved = {"priority": 7, "start_in": 3600, "queue": "other"}
    assert ended(queue, runner, create(queue, "reschedule", options=moved)).changed == 5
    assert {(task.refresh().priority, task.queue) for task in tasks} == {(7, "other")}
    assert ended(queue, runner, create(queue, "cancel", queue="other")).changed == 5
    assert ended(queue, runner, create(queue, "retry", queue="other", options={"spread": 3600})).changed == 5
    due = [(task.refresh().start_at - task.created_at).total_seconds() for task in tasks]
    assert min(due) >= 0
    assert len(set(due)) == 5
    assert ended(queue, runner, create(queue, "delete", queue="other")).changed == 0
    assert ended(queue, runner, create(queue, "cancel", queue="other")).changed == 5
    assert ended(queue, runner, create(queue, "delete", queue="other")).changed == 5
    assert queue.lane("other").tasks() == []


def test_tasks_that_are_enqueued_later_are_not_meant(queue: TaskQueue, runner: OperationRunner) -> None:
    asked, since = queue.enqueue_many(range(2))
    first, second = create(queue, highest=asked.id), create(queue)
    later = queue.enqueue("later")
    assert ended(queue, runner, first).changed == 1
    assert (asked.refresh().state, later.refresh().state) == ("cancelled", "pending")
    assert ended(queue, runner, second).changed == 1
    assert (since.refresh().state, later.refresh().state) == ("cancelled", "pending")


def test_a_stopped_operation_changes_nothing_more(queue: TaskQueue, runner: OperationRunner) -> None:
    tasks = queue.enqueue_many(range(3))
    id = create(queue)
    assert stop_operation(queue.store, id, "bob")
    assert not stop_operation(queue.store, id, "bob")
    assert ended(queue, runner, id).state == "stopped"
    assert {task.refresh().state for task in tasks} == {"pending"}
    assert [(row.verb, row.outcome) for row in queue.audit(who="bob")] == [("stop", "it is stopped"), ("stop", "done")]


def test_a_missing_operation(queue: TaskQueue) -> None:
    create(queue)
    for id in (0, -1, 2, 2**63):
        with pytest.raises(OperationNotFound, match="no operation"):
            find_operation(queue.store, id)
    with pytest.raises(OperationNotFound):
        stop_operation(queue.store, 2, "bob")


@pytest.mark.parametrize("options", [{}, {"priority": 99_999}, {"queue": "a b"}, {"start_in": -1}])
def test_bad_options(queue: TaskQueue, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"start_in|priority|queue"):
        create(queue, "reschedule", options=options)
    with pytest.raises(ValueError, match="filter"):
        create_operation(queue.store, "cancel", parse({}, 0), {}, "me")
    assert queue.store.operations(1) == []


# -- programs that die -----------------------------------------------------------------------------


def one_step(queue: TaskQueue, id: int, runner: str, last: str | None = None) -> bool:
    """Carry out the next step of an operation as a runner would, and die. Return whether it was allowed to."""
    record = find_operation(queue.store, id)
    page = next(
        searched(queue.store, parse({"queue": queue.name}, 0), highest=record.highest, position=record.position)
    )
    step = OperationStep(id, runner, page.next or last, page.scanned)
    return queue.store.act(BulkStep("cancel", page.ids, clock.now(), operation=step)).is_current


def test_a_runner_takes_over_from_one_that_is_silent(url: str, queue: TaskQueue, runner: OperationRunner) -> None:
    queue.enqueue_many(range(1200))
    id = create(queue)
    assert queue.store.set_operation(id, runner="dead", now=clock.now())
    assert one_step(queue, id, "dead")
    assert find_operation(queue.store, id).changed == 500
    assert not queue.store.set_operation(id, runner="another", now=clock.now())
    assert not one_step(queue, id, "another")
    assert find_operation(queue.store, id).changed == 500
    execute(url, "UPDATE dbtaskqueue_operation SET step_at = 0")
    found = ended(queue, runner, id)
    assert (found.changed, found.refused) == (1200, "{}")
    assert queue.stats().cancelled == 1200


def test_a_runner_that_died_after_the_last_step(url: str, queue: TaskQueue, runner: OperationRunner) -> None:
    """The last tasks are not tried again, which would count them as refused."""
    queue.enqueue_many(range(10))
    id = create(queue)
    assert queue.store.set_operation(id, runner="dead", now=clock.now())
    assert one_step(queue, id, "dead", last="end")
    execute(url, "UPDATE dbtaskqueue_operation SET step_at = 0")
    found = ended(queue, runner, id)
    assert (found.state, found.changed, found.refused) == ("done", 10, "{}")


def test_operations_are_listed_newest_first(queue: TaskQueue, runner: OperationRunner) -> None:
    ids = [create(queue) for _ in range(3)]
    assert [each.id for each in queue.store.operations(2)] == ids[:0:-1]
    assert [each.id for each in queue.store.operations(2, ids[1])] == ids[:1]
    stop_operation(queue.store, ids[0], "bob")
    assert sorted(each.id for each in queue.store.operations(9, open_only=True)) == ids[1:]
    for id in ids[1:]:
        assert ended(queue, runner, id).state == "done"
    assert queue.store.operations(9, open_only=True) == []


def test_a_runner_ends_when_nothing_is_open_and_starts_again(queue: TaskQueue, runner: OperationRunner) -> None:
    for _ in range(3):
        queue.enqueue(1)
        assert ended(queue, runner, create(queue, state="pending")).changed == 1
    runner.close()
    runner.wake()
    assert runner._thread is None


def test_a_closed_runner_leaves_operations_to_others(queue: TaskQueue, runner: OperationRunner) -> None:
    queue.enqueue(1)
    runner.close()
    id = create(queue)
    runner.wake()
    assert find_operation(queue.store, id).runner is None

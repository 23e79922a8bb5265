"""Bulk actions, reschedule, delete, and the audit log of all of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from engines import execute
from helpers import Background, start_one_before_each_step

from dbtaskqueue import Action, Bulk, InvalidTransition, RetryPolicy, Task, TaskNotFound, TaskQueue, Worker
from dbtaskqueue._store.connections import Conflict
from dbtaskqueue._store.contract import NewAction
from dbtaskqueue._store.verbs import base, operations


def run_all(queue: TaskQueue, code: Callable[[Any], Any] = lambda payload: payload) -> None:
    Worker(queue).run(code, burst=True)


def broken(payload: Any) -> None:
    raise ValueError("broken")


def a_done_task(queue: TaskQueue, **options: Any) -> Task[Any]:
    task = queue.enqueue("done", **options)
    run_all(queue)
    return task.refresh()


def last(queue: TaskQueue) -> Action:
    return queue.audit(limit=1)[0]


# -- reschedule ------------------------------------------------------------------------------------


def test_reschedule_changes_due_time_priority_and_queue(queue: TaskQueue) -> None:
    id = queue.enqueue("x", start_in=3600, priority=1).id
    task = queue.reschedule(id, start_in=0, priority=7, queue="other")
    assert (task.queue, task.priority, task.state) == ("other", 7, "pending")
    assert queue.fetch(timeout=0) == []
    assert [held.id for held in queue.lane("other").fetch(timeout=5)] == [id]


def test_reschedule_keeps_what_is_not_given(queue: TaskQueue) -> None:
    id = queue.enqueue("x", start_in=3600, priority=3).id
    before = queue.get(id)
    after = queue.reschedule(id, priority=4)
    assert (after.start_at, after.queue, after.priority) == (before.start_at, before.queue, 4)
    at = datetime(2031, 1, 1, tzinfo=UTC)
    assert queue.reschedule(id, start_at=at).start_at == at


def test_a_failed_task_is_retried_at_its_new_time(queue: TaskQueue) -> None:
    task = queue.enqueue("x", retry=RetryPolicy(delay=3600, max_attempts=5))
    run_all(queue, broken)
    assert queue.reschedule(task.id, start_in=0).state == "failed"
    run_all(queue)
    assert task.refresh().state == "done"


def test_a_blocked_task_is_due_at_its_new_time(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent, start_in=3600)
    queue.reschedule(child.id, start_in=0)
    run_all(queue)
    assert child.refresh().state == "done"


@pytest.mark.parametrize("state", ["reserved", "running", "done", "cancelled"])
def test_only_waiting_tasks_are_rescheduled(queue: TaskQueue, state: str) -> None:
    id = queue.enqueue("x").id
    [task] = queue.fetch(timeout=5)
    if state != "reserved":
        task.start()
    if state == "done":
        task.finish()
    if state == "cancelled":
        queue.cancel(id)
        task.fail("as requested")
    with pytest.raises(InvalidTransition, match=f"reschedule: task {id} is {state}"):
        queue.reschedule(id, priority=1)


def test_a_key_is_unique_in_the_new_queue(queue: TaskQueue) -> None:
    queue.lane("other").enqueue("y", key="k")
    id = queue.enqueue("x", key="k").id
    with pytest.raises(InvalidTransition, match="another unfinished task has its key"):
        queue.reschedule(id, queue="other")
    assert queue.get(id).queue == queue.name


def test_reschedule_wants_something_to_change(queue: TaskQueue) -> None:
    id = queue.enqueue().id
    with pytest.raises(ValueError, match="give what to change"):
        queue.reschedule(id)
    with pytest.raises(ValueError, match="not both"):
        queue.reschedule(id, start_in=1, start_at=datetime.now(UTC))
    with pytest.raises(TaskNotFound):
        queue.reschedule(id + 1, priority=1)


# -- delete ----------------------------------------------------------------------------------------


def test_delete_removes_a_final_task_with_its_attempts(queue: TaskQueue) -> None:
    task = queue.enqueue("x" * 1000, max_attempts=2, retry=RetryPolicy(delay=0, max_attempts=2))
    run_all(queue, broken)
    assert task.refresh().state == "abandoned"
    queue.delete(task.id)
    with pytest.raises(TaskNotFound):
        queue.get(task.id)
    assert queue.store.attempts(task.id) == []
    assert queue.enqueue("next").id > task.id


@pytest.mark.parametrize("state", ["pending", "reserved", "running"])
def test_an_unfinished_task_is_not_deleted(queue: TaskQueue, state: str) -> None:
    id = queue.enqueue("x").id
    if state != "pending":
        [task] = queue.fetch(timeout=5)
        if state == "running":
            task.start()
    with pytest.raises(InvalidTransition, match=f"delete: task {id} is {state}"):
        queue.delete(id)
    assert queue.get(id).state == state


def test_the_parent_of_an_unfinished_child_is_not_deleted(queue: TaskQueue) -> None:
    parent = a_done_task(queue)
    child = queue.enqueue("child", after=parent, start_in=3600)
    with pytest.raises(InvalidTransition, match="an unfinished task waits for it"):
        queue.delete(parent.id)
    queue.cancel(child.id)
    queue.delete(parent.id)


# -- many ------------------------------------------------------------------------------------------


def test_cancel_many_cancels_what_matches(queue: TaskQueue) -> None:
    wanted = queue.enqueue_many(range(1200), priority=1)
    kept = queue.enqueue_many(range(3))
    assert queue.cancel_many(priority=1) == Bulk(1200, {})
    assert {task.refresh().state for task in wanted} == {"cancelled"}
    assert {task.refresh().state for task in kept} == {"pending"}
    assert queue.cancel_many(priority=1) == Bulk(0, {"it is cancelled": 1200})


def test_other_queues_are_left_alone_unless_named(queue: TaskQueue) -> None:
    other = queue.lane("other")
    other.enqueue_many(range(2))
    queue.enqueue_many(range(3))
    assert queue.cancel_many(state="pending", dry_run=True).changed == 3
    assert queue.cancel_many(state="pending", queue="other", dry_run=True).changed == 2
    assert queue.cancel_many(state="pending", all_queues=True).changed == 5


def test_a_running_task_counts_as_changed_once(queue: TaskQueue) -> None:
    queue.enqueue("x")
    [task] = queue.fetch(timeout=5)
    task.start()
    assert queue.cancel_many(state="running") == Bulk(1, {})
    assert queue.cancel_many(state="running") == Bulk(0, {"its cancellation was requested already": 1})
    assert queue.get(task.id).cancel_requested


def test_a_task_that_starts_after_it_was_found_pending_is_not_interrupted(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue_many(range(3))
    started = start_one_before_each_step(queue, monkeypatch)
    assert queue.cancel_many(state=["pending", "failed"]) == Bulk(2, {"it is running": 1})
    assert [queue.get(task.id).cancel_requested for task in started] == [False]


def test_a_dry_run_changes_nothing(queue: TaskQueue) -> None:
    tasks = queue.enqueue_many(range(5))
    done = a_done_task(queue.lane("other"))
    assert queue.delete_many(all_queues=True, id=[done.id, tasks[0].id], dry_run=True, actor="a") == Bulk(
        1, {"it is pending": 1}
    )
    assert queue.get(done.id).state == "done"
    assert queue.audit() == []


def test_children_of_cancelled_parents_are_cancelled(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(3), priority=5)
    child = queue.enqueue("child", after=parents)
    either = queue.enqueue("either", after=parents, when="ended")
    assert queue.cancel_many(priority=5).changed == 3
    assert (child.refresh().state, either.refresh().state, either.blocked) == ("cancelled", "pending", None)


def test_retry_many_retries_what_it_may(queue: TaskQueue) -> None:
    abandoned = queue.enqueue_many(range(700), max_attempts=1)
    queue.enqueue("first", key="k", max_attempts=1)
    run_all(queue, broken)
    holder = queue.enqueue("second", key="k", start_in=3600)
    assert queue.retry_many(state="abandoned") == Bulk(700, {"another unfinished task has its key": 1})
    assert {task.refresh().state for task in abandoned} == {"pending"}
    queue.cancel(holder.id)
    assert queue.retry_many(state="abandoned") == Bulk(1, {})
    run_all(queue)
    assert queue.stats().done == 701


def test_of_two_tasks_with_one_key_only_one_is_retried(queue: TaskQueue) -> None:
    for _ in range(2):
        queue.cancel(queue.enqueue("x", key="k").id)
    assert queue.retry_many(state="cancelled") == Bulk(1, {"another unfinished task has its key": 1})


def test_a_done_task_that_is_retried_keeps_its_attempt(queue: TaskQueue) -> None:
    task = a_done_task(queue)
    assert queue.retry_many(state="done") == Bulk(1, {})
    assert [attempt.outcome for attempt in task.attempts()] == ["done"]
    assert task.refresh().result is None


def test_retried_tasks_are_spread(queue: TaskQueue) -> None:
    tasks = queue.enqueue_many(range(50))
    queue.cancel_many(state="pending")
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert queue.retry_many(state="cancelled", spread=600).changed == 50
    delays = [(task.refresh().start_at - before).total_seconds() for task in tasks]
    assert min(delays) < 100
    assert 400 < max(delays) <= 610
    assert len(set(delays)) == 50


def test_reschedule_many_moves_tasks(queue: TaskQueue) -> None:
    queue.enqueue_many(range(3), start_in=3600)
    queue.enqueue("x", key="k", start_in=3600)
    queue.lane("other").enqueue("y", key="k")
    bulk = queue.reschedule_many(start_in=0, to_queue="other", to_priority=2, state="pending")
    assert bulk == Bulk(3, {"another unfinished task has its key": 1})
    assert {task.priority for task in queue.lane("other").tasks()} == {0, 2}
    with pytest.raises(ValueError, match="give what to change"):
        queue.reschedule_many(state="pending")


def test_two_tasks_with_one_key_do_not_move_into_the_same_queue(queue: TaskQueue) -> None:
    for name in ("one", "two"):
        queue.lane(name).enqueue(name, key="k")
    bulk = queue.reschedule_many(to_queue="third", all_queues=True, key="k")
    assert bulk == Bulk(1, {"another unfinished task has its key": 1})


def test_delete_many_leaves_needed_parents(queue: TaskQueue) -> None:
    parent = a_done_task(queue)
    others = [a_done_task(queue) for _ in range(3)]
    queue.enqueue("child", after=parent, start_in=3600)
    assert queue.delete_many(state="done") == Bulk(3, {"an unfinished task waits for it": 1})
    assert queue.get(parent.id).state == "done"
    for task in others:
        with pytest.raises(TaskNotFound):
            queue.get(task.id)


def test_an_empty_filter_is_refused(queue: TaskQueue) -> None:
    queue.enqueue()
    for act in (queue.cancel_many, queue.retry_many, queue.delete_many):
        with pytest.raises(ValueError, match="at least one filter"):
            act()
    with pytest.raises(ValueError, match="at least one filter"):
        queue.reschedule_many(start_in=0)
    with pytest.raises(ValueError, match="colour"):
        queue.cancel_many(colour="red")


def test_tasks_that_are_enqueued_meanwhile_are_left_alone(queue: TaskQueue) -> None:
    queue.enqueue_many(range(1100), start_in=3600)
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        queue.enqueue("late", start_in=3600)

    assert queue.cancel_many(state="pending", progress=progress).changed == 1100
    assert seen[0] == (0, 1100)
    assert seen[-1] == (1100, 1100)
    assert queue.stats().pending == len(seen)


def test_bulk_beside_a_worker(queue: TaskQueue) -> None:
    """Every task is done or cancelled, none is both, and the counts are right."""
    tasks = queue.enqueue_many(range(2000))
    ran: set[int] = set()
    worker = Worker(queue)
    thread = threading.Thread(target=lambda: worker.run(ran.add, burst=True))
    thread.start()
    bulk = queue.cancel_many(state=["pending", "reserved"])
    thread.join()
    states = {task.payload: task.refresh().state for task in tasks}
    assert set(states.values()) <= {"done", "cancelled"}
    cancelled = {payload for payload, state in states.items() if state == "cancelled"}
    assert len(cancelled) == bulk.changed
    assert not {payload for payload, state in states.items() if state == "done"} - ran


# -- the audit log ---------------------------------------------------------------------------------


def test_actions_with_an_actor_are_logged(queue: TaskQueue) -> None:
    id = queue.enqueue("secret payload").id
    queue.reschedule(id, priority=2, actor="alice")
    queue.cancel(id, actor="alice")
    queue.retry(id, actor="bob")
    queue.pause(actor="bob")
    queue.resume(actor="bob")
    queue.purge(actor="alice")
    queue.delete(id, actor="alice")
    queue.prune(0, actor="alice")
    logged = queue.audit()
    assert [(each.who, each.verb, each.task, each.queue, each.count, each.outcome) for each in reversed(logged)] == [
        ("alice", "reschedule", id, None, 1, "done"),
        ("alice", "cancel", id, None, 1, "done"),
        ("bob", "retry", id, None, 1, "done"),
        ("bob", "pause", None, queue.name, 1, "done"),
        ("bob", "resume", None, queue.name, 1, "done"),
        ("alice", "purge", None, queue.name, 1, "done"),
        ("alice", "delete", id, None, 1, "done"),
        ("alice", "prune", None, queue.name, 0, "done"),
    ]
    assert {each.via for each in logged} == {"python"}
    assert "secret" not in repr(logged)
    assert [each.verb for each in queue.audit(task=id, who="alice")] == ["delete", "cancel", "reschedule"]
    assert [each.id for each in queue.audit(before=logged[0].id, limit=2)] == [each.id for each in logged[1:3]]


def test_refusals_are_logged_with_their_reason(queue: TaskQueue) -> None:
    task = a_done_task(queue)
    for act in (queue.cancel, queue.suspend, queue.continue_):
        with pytest.raises(InvalidTransition):
            act(task.id, actor="alice")
        assert (last(queue).count, last(queue).outcome) == (0, "it is done")
    with pytest.raises(TaskNotFound):
        queue.retry(task.id + 100, actor="alice")
    assert (last(queue).verb, last(queue).outcome) == ("retry", "it does not exist")
    with pytest.raises(LookupError):
        queue.unschedule("nightly", actor="alice")
    assert (last(queue).verb, last(queue).count) == ("unschedule", 0)


def test_nothing_is_logged_without_an_actor(queue: TaskQueue) -> None:
    id = queue.enqueue().id
    queue.cancel(id)
    queue.retry(id)
    queue.purge()
    queue.delete_many(state="abandoned")
    assert queue.audit() == []
    with pytest.raises(ValueError, match="actor"):
        queue.pause(actor="")


def test_a_bulk_action_has_a_row_for_each_step(queue: TaskQueue) -> None:
    queue.enqueue_many(range(1001))
    queue.cancel_many(state="pending", actor="alice")
    logged = queue.audit()
    assert sum(each.count for each in logged) == 1001
    assert len(logged) == 3
    assert logged[0].detail is not None
    assert logged[0].detail["where"] == {"state": ["pending"], "queue": [queue.name]}
    queue.cancel_many(state="pending", actor="alice")
    assert (last(queue).count, last(queue).outcome) == (0, "no task matched")


def test_old_actions_are_pruned(queue: TaskQueue) -> None:
    for _ in range(10):
        queue.pause(actor="alice")
    ids = [each.id for each in queue.audit()]
    assert queue.store.prune_actions(0, 4, 100) == 6
    assert [each.id for each in queue.audit()] == ids[:4]
    assert queue.store.prune_actions(2**62, 100, 3) == 3
    assert queue.store.prune_actions(2**62, 100, 3) == 1
    assert execute(queue.url, "SELECT count(*) FROM dbtaskqueue_action") == [(0,)]


# -- races -----------------------------------------------------------------------------------------

RACES: dict[str, tuple[str, Callable[[TaskQueue, int], object], str]] = {
    "retry": ("cancelled", lambda queue, id: queue.retry(id, actor="alice"), "it is pending"),
    "cancel": ("pending", lambda queue, id: queue.cancel(id, actor="alice"), "it is cancelled"),
    "delete": ("cancelled", lambda queue, id: queue.delete(id, actor="alice"), "it does not exist"),
    "retry_many": ("cancelled", lambda queue, id: queue.retry_many(id=id, actor="alice"), "it is pending"),
    "cancel_many": ("pending", lambda queue, id: queue.cancel_many(id=id, actor="alice"), "it is cancelled"),
}


@pytest.mark.every_engine("each has its own locks")
@pytest.mark.parametrize("verb", RACES)
def test_of_four_who_act_on_a_task_at_the_same_time_one_succeeds(queue: TaskQueue, verb: str) -> None:
    state, act, refusal = RACES[verb]
    for _ in range(5):
        id = queue.enqueue("x").id
        if state == "cancelled":
            queue.cancel(id)
        before = len(queue.audit())
        race([act] * 4, queue.url, id)
        logged = queue.audit()[: len(queue.audit()) - before]
        assert [each.count for each in logged].count(1) == 1
        assert sorted(each.outcome for each in logged) == sorted(["done", *[refusal] * 3])


@pytest.mark.every_engine("each has its own locks")
def test_four_who_reschedule_a_task_are_logged_in_the_order_of_their_changes(queue: TaskQueue) -> None:
    id = queue.enqueue("x").id
    acts = [partial(reschedule, priority) for priority in range(4)]
    race(acts, queue.url, id)
    assert [each.outcome for each in queue.audit()] == ["done"] * 4
    assert queue.get(id).priority == last(queue).detail["priority"]  # type: ignore[index]


@pytest.mark.every_engine("each has its own locks")
def test_retry_and_delete_at_the_same_time(queue: TaskQueue) -> None:
    """Either the task is deleted, or it is pending; the log says which."""
    for _ in range(5):
        task = queue.enqueue("x")
        task.cancel()
        race([RACES["retry"][1], RACES["delete"][1]] * 2, queue.url, task.id)
        done = [each.verb for each in queue.audit(task=task.id, who="alice") if each.outcome == "done"]
        try:
            assert (done, task.refresh().state) == (["retry"], "pending")
        except TaskNotFound:
            assert done == ["delete"]


def reschedule(priority: int, queue: TaskQueue, id: int) -> None:
    queue.reschedule(id, priority=priority, actor="alice")


def race(acts: Sequence[Callable[[TaskQueue, int], object]], url: str, id: int) -> None:
    """Run each of these in a thread with a connection of its own. They may be refused, but not fail."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[TaskQueue, int], object]) -> None:
        with TaskQueue(url, create=False) as handle:
            barrier.wait(30)
            with contextlib.suppress(InvalidTransition, TaskNotFound):
                act(handle, id)

    for thread in [Background(partial(run, act)) for act in acts]:
        thread.join()


@pytest.mark.every_engine("each has its own transactions")
@pytest.mark.parametrize("verb", ["reschedule", "cancel_many"])
def test_a_transaction_that_is_repeated_leaves_one_row(
    queue: TaskQueue, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first transaction breaks after its row was inserted, as if in a deadlock."""
    id = queue.enqueue("x").id
    broken: list[NewAction] = []
    log = base.log

    def break_once(tx: Any, action: NewAction, *rest: Any) -> None:
        log(tx, action, *rest)
        if not broken:
            broken.append(action)
            raise Conflict

    for module in (base, operations):
        monkeypatch.setattr(module, "log", break_once)
    if verb == "reschedule":
        queue.reschedule(id, priority=1, actor="alice")
    else:
        queue.cancel_many(id=id, actor="alice")
    assert len(broken) == 1
    assert [(each.count, each.outcome) for each in queue.audit()] == [(1, "done")]

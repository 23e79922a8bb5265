"""Every verb in every state, by each kind of caller; the tests are generated from the table in ``states.py``.

A *holder* is the ``Task`` that ``fetch`` returned; a *late holder* one whose claim was taken away; a
*stranger* a ``Task`` that ``fetch`` did not return. A verb that the table does not allow must raise the right
exception, store nothing, and leave the token unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers import die_holding, spawn, until

from dbtaskqueue import InvalidTransition, LeaseLost, RetryPolicy, Task, TaskNotFound, TaskQueue, TaskState
from dbtaskqueue._system import clock
from dbtaskqueue.states import FINAL, TRANSITIONS, Transition

ARROWS = {(arrow.verb, arrow.source): arrow for arrow in TRANSITIONS}
FLOW_VERBS = ["block", "disappoint", "expire"]
HOLDER_VERBS = sorted({arrow.verb for arrow in TRANSITIONS if arrow.by_holder} - {"expire"})
ANYONE_VERBS = sorted({arrow.verb for arrow in TRANSITIONS if not arrow.by_holder} - {"rescue", *FLOW_VERBS})
SITUATIONS = [*TaskState, "running, cancellation requested"]
NOW = RetryPolicy(delay=0, max_attempts=100)

Do = Callable[[Task], Any]
HOLDER_ACTS: dict[str, Do] = {
    "start": lambda task: task.start(),
    "finish": lambda task: task.finish({"answer": 42}),
    "fail": lambda task: task.fail("broken"),
    "release": lambda task: task.release(),
}
ANYONE_ACTS: dict[str, Callable[[TaskQueue, int], Any]] = {
    "fetch": lambda queue, id: queue.fetch(timeout=0),
    "cancel": lambda queue, id: queue.cancel(id),
    "retry": lambda queue, id: queue.retry(id),
    "reschedule": lambda queue, id: queue.reschedule(id, priority=3),
    "delete": lambda queue, id: queue.delete(id),
    "purge": lambda queue, id: queue.purge(),
}


def test_every_verb_of_the_table_is_tried() -> None:
    assert set(HOLDER_VERBS) == set(HOLDER_ACTS)
    assert set(ANYONE_VERBS) == set(ANYONE_ACTS)
    assert {arrow.verb for arrow in TRANSITIONS} == {*HOLDER_VERBS, *ANYONE_VERBS, *FLOW_VERBS, "rescue"}


def bring(queue: TaskQueue, situation: str, *, last_attempt: bool = False, **options: Any) -> Task:
    """Enqueue a task and bring it into this situation. Return the ``Task`` of its holder."""
    queue.enqueue({"n": 1}, retry=NOW, max_attempts=1 if last_attempt else None, **options)
    task = queue.fetch(timeout=10)[0]
    lead(task, situation)
    return task


def lead(task: Task, situation: str) -> None:
    """Let the holder of a reserved task bring it into this situation under its own token."""
    if situation == "reserved":
        return
    if situation == "pending":
        task.release()
        return
    task.start()
    if situation == "failed":
        task.fail("first", retry=True)
    elif situation == "done":
        task.finish("first")
    elif situation == "abandoned":
        task.fail("first", retry=False)
    elif situation in ("running, cancellation requested", "cancelled"):
        task.cancel()
        if situation == "cancelled":
            task.fail("as requested")


def make_late(queue: TaskQueue, situation: str) -> tuple[Task, Task]:
    """Return a late holder, and the ``Task`` of the next holder, which has brought the task into this situation."""
    queue.enqueue({"n": 1}, retry=NOW)
    late = queue.fetch(timeout=10)[0]
    late_runs = situation in ("running", "failed")
    if late_runs:
        late.start()
        queue.purge()
    else:
        queue.cancel(late.id)
    queue.retry(late.id)
    holder = queue.fetch(timeout=10)[0]
    assert holder.id == late.id
    lead(holder, situation)
    return late, holder


def picture(queue: TaskQueue, id: int) -> dict[str, Any]:
    """Return all public attributes of a task and its attempts."""
    task = queue.get(id)
    names = [name for name, kind in vars(Task).items() if isinstance(kind, property)]
    return {name: getattr(task, name) for name in names} | {"attempts": task.attempts()}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("verb", HOLDER_VERBS)
class TestHolderVerbs:
    """The verbs start, finish, fail and release, by each kind of holder."""

    def test_by_the_holder(self, queue: TaskQueue, verb: str, situation: str) -> None:
        task = bring(queue, situation)
        arrow = ARROWS.get((verb, task.refresh().state))
        before = picture(queue, task.id)
        if arrow is None:
            with pytest.raises(InvalidTransition, match=str(task.id)):
                HOLDER_ACTS[verb](task)
            assert picture(queue, task.id) == before
            return
        answer = HOLDER_ACTS[verb](task)
        after = queue.get(task.id)
        assert after.state in arrow.targets
        assert after.state == expected(arrow, situation)
        assert task.state == after.state
        assert after.token == before["token"]
        assert answer is (True if verb == "start" else None)
        check_side_effects(verb, before, after)

    def test_by_a_late_holder(self, queue: TaskQueue, verb: str, situation: str) -> None:
        late, _holder = make_late(queue, situation)
        before = picture(queue, late.id)
        if verb == "start":
            assert late.start() is False
        else:
            with pytest.raises(LeaseLost, match=str(late.id)):
                HOLDER_ACTS[verb](late)
        assert picture(queue, late.id) == before

    @pytest.mark.one_engine("a handle without a claim sends no query")
    def test_by_a_stranger(self, queue: TaskQueue, verb: str, situation: str) -> None:
        holder = bring(queue, situation)
        before = picture(queue, holder.id)
        for stranger in (queue.get(holder.id), queue.tasks()[0]):
            with pytest.raises(InvalidTransition):
                HOLDER_ACTS[verb](stranger)
        assert picture(queue, holder.id) == before

    @pytest.mark.one_engine("a handle without a claim sends no query")
    def test_the_producer_of_a_task_does_not_hold_it(self, queue: TaskQueue, verb: str, situation: str) -> None:
        enqueued = queue.enqueue(1)
        holder = queue.fetch(timeout=10)[0]
        lead(holder, situation)
        before = picture(queue, holder.id)
        with pytest.raises(InvalidTransition):
            HOLDER_ACTS[verb](enqueued)
        assert picture(queue, holder.id) == before


def expected(arrow: Transition, situation: str) -> TaskState:
    """Return the state that the verb leads to in this situation."""
    if len(arrow.targets) == 1:
        return next(iter(arrow.targets))
    asked = situation == "running, cancellation requested"
    plain = {"fail": TaskState.FAILED, "release": TaskState.PENDING, "rescue": TaskState.FAILED}[arrow.verb]
    return TaskState.CANCELLED if asked else plain


def check_side_effects(verb: str, before: dict[str, Any], after: Task) -> None:
    """Check the side effects of the verb, as listed on the design page."""
    attempts = after.attempts()
    if verb == "start":
        assert after.attempt == before["attempt"] + 1
        assert after.started_at is not None
        assert attempts[-1].outcome is None
        return
    if verb == "release" and before["state"] == "reserved":
        assert after.attempt == before["attempt"]
        assert attempts == before["attempts"]
        return
    outcomes = {"pending": "released"}
    assert attempts[-1].outcome == outcomes.get(after.state, str(after.state))
    assert attempts[-1].finished_at is not None
    assert attempts[-1].token == after.token
    assert (after.finished_at is not None) == (after.state in FINAL)
    if verb == "finish":
        assert after.result == {"answer": 42}
        assert after.attempt == before["attempt"]
    elif verb == "fail":
        assert after.error == "broken"
        assert after.attempt == before["attempt"]
    elif after.state == "pending":
        assert after.attempt == before["attempt"] - 1


@pytest.mark.parametrize(("verb", "last"), [("fail", True), ("fail", False)])
def test_a_failure_is_final_after_the_last_attempt_or_without_a_retry(queue: TaskQueue, verb: str, last: bool) -> None:
    task = bring(queue, "running", last_attempt=last)
    task.fail("broken", retry=last)
    assert task.state == "abandoned"
    assert task.finished_at is not None
    assert [attempt.outcome for attempt in task.attempts()] == ["abandoned"]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("verb", ANYONE_VERBS)
def test_verbs_of_anyone(queue: TaskQueue, verb: str, situation: str) -> None:
    holder = bring(queue, situation)
    state = holder.refresh().state
    arrow = ARROWS.get((verb, state))
    before = picture(queue, holder.id)
    act = ANYONE_ACTS[verb]
    if arrow is None:
        # fetch and purge skip it; cancel of a cancelled task does nothing; other verbs raise
        if verb == "fetch":
            assert act(queue, holder.id) == []
        elif verb == "purge":
            assert act(queue, holder.id) == 0
        elif (verb, state) == ("cancel", "cancelled"):
            act(queue, holder.id)
        else:
            with pytest.raises(InvalidTransition, match=str(holder.id)):
                act(queue, holder.id)
        assert picture(queue, holder.id) == before
        return
    kept = act(queue, holder.id)
    if verb == "delete":
        with pytest.raises(TaskNotFound):
            queue.get(holder.id)
        return
    after = queue.get(holder.id)
    assert after.token == before["token"] + arrow.new_token
    assert after.state in (arrow.targets or {state})
    assert len(arrow.targets) < 2
    if verb == "purge":
        assert kept == 1
    if arrow.new_token:
        check_that_the_old_claim_is_lost(queue, holder)


def check_that_the_old_claim_is_lost(queue: TaskQueue, holder: Task) -> None:
    before = picture(queue, holder.id)
    for verb in ("finish", "fail", "release"):
        with pytest.raises(LeaseLost):
            HOLDER_ACTS[verb](holder)
    assert picture(queue, holder.id) == before


# -- dependencies and expiry -----------------------------------------------------------------------


def check_change(queue: TaskQueue, verb: str, holder: Task, before: dict[str, Any]) -> None:
    """Check that the task was changed as the table says, or not at all."""
    arrow = ARROWS.get((verb, before["state"]))
    if arrow is None or arrow.by_holder:
        assert picture(queue, holder.id) == before
        return
    after = queue.get(holder.id)
    assert (after.state, after.token) == (expected(arrow, ""), before["token"] + arrow.new_token)
    check_that_the_old_claim_is_lost(queue, holder)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_expire(queue: TaskQueue, situation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = bring(queue, situation, expires_in=60)
    holder.refresh()
    before = picture(queue, holder.id)
    wall = clock.source
    monkeypatch.setattr(clock, "source", lambda: wall() + 61_000_000)
    queue.store.expire(clock.now())
    check_change(queue, "expire", holder, before)


def test_expire_by_the_start_of_a_holder(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = bring(queue, "reserved", expires_in=60)
    wall = clock.source
    monkeypatch.setattr(clock, "source", lambda: wall() + 61_000_000)
    assert holder.start() is False
    arrow = ARROWS["expire", TaskState.RESERVED]
    after = queue.get(holder.id)
    assert (after.state, after.token) == (expected(arrow, ""), holder.token + arrow.new_token)
    check_that_the_old_claim_is_lost(queue, holder)


def bring_child(queue: TaskQueue, situation: str) -> tuple[Task, Task]:
    """Return a done parent, and its child in this situation."""
    parent = queue.lane("parents").enqueue()
    [held] = queue.lane("parents").fetch(timeout=10)
    held.start()
    held.finish()
    return parent, bring(queue, situation, after=parent)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_block(queue: TaskQueue, situation: str) -> None:
    """The parent is retried. That is impossible if the child has started and is unfinished."""
    parent, holder = bring_child(queue, situation)
    state = holder.refresh().state
    before = picture(queue, holder.id)
    if state in ("running", "failed"):
        with pytest.raises(InvalidTransition, match=str(holder.id)):
            queue.retry(parent.id)
    else:
        queue.retry(parent.id)
    if state == "pending":
        assert queue.get(holder.id).blocked == (["parents"], 1, 1)
        before["blocked"] = queue.get(holder.id).blocked
    check_change(queue, "block", holder, before)


@pytest.mark.parametrize("situation", [state for state in TaskState if state in {*FINAL, "pending"}])
def test_disappoint(queue: TaskQueue, situation: str) -> None:
    """The parent is retried and cancelled. In any other state, the child waits for no parent."""
    parent, holder = bring_child(queue, situation)
    queue.retry(parent.id)
    holder.refresh()
    before = picture(queue, holder.id)
    queue.cancel(parent.id)
    check_change(queue, "disappoint", holder, before)
    if situation == "pending":
        assert str(parent.id) in (queue.get(holder.id).error or "")


def test_cancel_of_a_running_task_requests_it_from_the_holder(queue: TaskQueue) -> None:
    task = bring(queue, "running")
    queue.cancel(task.id)
    assert task.refresh().state == "running"
    assert task.cancel_requested
    queue.cancel(task.id)
    task.finish("despite the request")
    assert (task.state, task.result) == ("done", "despite the request")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_retry_makes_a_task_pending_again(queue: TaskQueue, situation: str) -> None:
    holder = bring(queue, situation)
    before = picture(queue, holder.id)
    if ("retry", holder.refresh().state) not in ARROWS:
        return
    task = queue.retry(holder.id)
    assert task.state == "pending"
    assert task.max_attempts == before["attempt"] + 100
    assert (task.error, task.result, task.finished_at, task.cancel_requested) == (None, None, None, False)
    assert task.attempts() == before["attempts"]
    assert [found.id for found in queue.fetch(timeout=10)] == [task.id]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_rescue(queue: TaskQueue, url: str, situation: str) -> None:
    """The holder's process dies. A task that it no longer holds does not change."""
    policy = RetryPolicy(delay=3600)
    watcher = queue.enqueue("held by this process")
    held_here = queue.fetch(timeout=10)[0]
    task = queue.enqueue({"n": 1}, retry=policy)
    before_due = task.start_at
    assert die_holding_in(url, situation) == task.id
    state = TaskState("running" if situation == "running, cancellation requested" else situation)
    arrow = ARROWS.get(("rescue", state))
    if arrow is None:
        queue.pause()
        before = picture(queue, task.id)
        assert queue.fetch(timeout=1.5) == []
        assert picture(queue, task.id) == before
        return
    token = 1
    queue.pause()  # so that this handle rescues, but claims nothing
    rescuer = queue.fetch
    until(lambda: rescuer(timeout=0.1) == [] and task.refresh().token != token, what="the rescue")
    assert task.state in arrow.targets
    assert task.state == (TaskState.PENDING if state == "reserved" else expected(arrow, situation))
    assert task.token == token + 1
    assert (task.finished_at is not None) == (task.state in FINAL)
    if state == "reserved":
        assert (task.attempt, task.attempts(), task.start_at) == (0, [], before_due)
    else:
        assert task.attempt == 1
        [attempt] = task.attempts()
        assert attempt.outcome == ("cancelled" if task.state == "cancelled" else "lost")
        assert attempt.finished_at is not None
        assert task.error is not None
        assert f"worker {attempt.worker}" in task.error
    assert watcher.refresh().token == held_here.token
    assert held_here.start()


LEAD_AND_DIE = """
import os, sys
from dbtaskqueue import TaskQueue
url, situation = sys.argv[1:]
queue = TaskQueue(url)
[task] = queue.fetch(timeout=30)
if situation == "pending":
    task.release()
elif situation != "reserved":
    assert task.start()
if situation == "failed":
    task.fail("first")
elif situation == "done":
    task.finish("first")
elif situation == "abandoned":
    task.fail("first", retry=False)
elif situation in ("running, cancellation requested", "cancelled"):
    task.cancel()
    if situation == "cancelled":
        task.fail("as requested")
print(task.id, flush=True)
os._exit(9)
"""


def die_holding_in(url: str, situation: str) -> int:
    """Let another process bring the next task into this situation and die. Return the task's id."""
    process = spawn(LEAD_AND_DIE, url, situation)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    return int(output)


def test_a_rescue_after_the_last_attempt_abandons(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue(1, max_attempts=1)
    assert die_holding(url) == [task.id]
    until(lambda: queue.fetch(timeout=0.1) == [] and task.refresh().state != "running", what="the rescue")
    assert task.state == "abandoned"
    assert [attempt.outcome for attempt in task.attempts()] == ["lost"]
    assert task.finished_at is not None


def test_the_first_lost_attempt_is_due_immediately_the_next_by_the_policy(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue(1, retry=RetryPolicy(delay=3600))
    die_holding(url)
    [held] = queue.fetch(timeout=30)
    assert held.id == task.id
    held.release()
    die_holding(url)
    until(lambda: queue.fetch(timeout=0.1) == [] and task.refresh().state != "running", what="the rescue")
    assert task.state == "failed"
    [_first, second] = task.attempts()
    assert second.finished_at is not None
    # the second retry of a linear policy: two hours
    assert (task.start_at - second.finished_at).total_seconds() == pytest.approx(7200, abs=60)

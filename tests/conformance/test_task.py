"""``Task``: attributes, the ``with`` block, waiting, the history of attempts, and holders that are dropped."""

from __future__ import annotations

import gc
from datetime import UTC, datetime

import pytest
from helpers import Background, run_python, until

from dbtaskqueue import (
    AbandonTask,
    Attempt,
    InvalidTransition,
    LeaseLost,
    PayloadError,
    ReleaseTask,
    RetryPolicy,
    RetryTask,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskQueue,
    TaskState,
)


@pytest.fixture
def held(queue: TaskQueue) -> Task:
    """Return a reserved task, with this process as its holder."""
    queue.enqueue({"n": 1}, retry=RetryPolicy(delay=3600))
    return queue.fetch(timeout=10)[0]


# -- attributes ------------------------------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_the_state_is_a_word(held: Task) -> None:
    assert held.state is TaskState.RESERVED
    assert held.state == "reserved"
    assert str(held.state) == f"{held.state}" == "reserved"


def test_attributes_show_the_last_read_values(queue: TaskQueue, held: Task) -> None:
    seen = queue.get(held.id)
    held.start()
    assert (seen.state, seen.attempt, seen.started_at) == ("reserved", 0, None)
    assert seen.refresh() is seen
    assert (seen.state, seen.attempt) == ("running", 1)
    assert seen.started_at == held.started_at
    held.finish([1])
    assert seen.result is None
    assert seen.refresh().result == [1]
    assert seen.finished_at == held.finished_at is not None


def test_times_are_aware_and_in_order(queue: TaskQueue, held: Task) -> None:
    held.start()
    held.finish()
    task = queue.get(held.id)
    times = [task.created_at, task.started_at, task.finished_at, datetime.now(UTC)]
    assert all(time is not None and time.tzinfo is UTC for time in times)
    assert times == sorted(times)  # type: ignore[type-var]


def test_worker_is_the_id_of_the_holder(queue: TaskQueue, other: TaskQueue) -> None:
    queue.enqueue_many(range(2))
    mine, also = queue.fetch(timeout=10)[0], None
    [also] = other.fetch(timeout=10)
    assert mine.worker != also.worker
    assert isinstance(mine.worker, int)
    mine.release()
    assert mine.worker is None


def test_a_pruned_task_cannot_be_read(queue: TaskQueue, held: Task) -> None:
    held.start()
    held.finish()
    assert queue.prune(0) == 1
    for act in (held.refresh, held.cancel, held.wait, held.get_result):
        with pytest.raises(TaskNotFound, match=str(held.id)):
            act()


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_repr_shows_id_queue_and_state(held: Task) -> None:
    assert all(word in repr(held) for word in (str(held.id), "default", "reserved"))


def test_release_with_a_delay(queue: TaskQueue, held: Task) -> None:
    before = datetime.now(UTC)
    held.start()
    held.release(3600)
    assert (held.state, held.attempt) == ("pending", 0)
    assert (held.start_at - before).total_seconds() == pytest.approx(3600, abs=120)
    assert queue.fetch(timeout=0) == []


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "60"])
def test_release_with_a_bad_delay(queue: TaskQueue, held: Task, delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        held.release(delay)
    assert queue.get(held.id).state == "reserved"
    held.release()


# -- with task: ------------------------------------------------------------------------------------


def test_with_starts_and_finishes(queue: TaskQueue, held: Task) -> None:
    with held as task:
        assert task is held
        assert queue.get(held.id).state == "running"
        task.result = {"answer": 42}
    done = queue.get(held.id)
    assert (done.state, done.result, done.attempt) == ("done", {"answer": 42}, 1)


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_without_a_result(queue: TaskQueue, held: Task) -> None:
    with held:
        pass
    assert (queue.get(held.id).state, queue.get(held.id).result) == ("done", None)


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_a_task_that_is_already_running(queue: TaskQueue, held: Task) -> None:
    held.start()
    with held:
        pass
    assert queue.get(held.id).attempt == 1
    assert queue.get(held.id).state == "done"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("act", [lambda task: task.finish(1), lambda task: task.fail("x"), lambda task: task.release()])
def test_with_does_nothing_if_the_holder_has_ended_the_task(queue: TaskQueue, held: Task, act) -> None:
    with held:
        act(held)
        ended = queue.get(held.id).state
    assert queue.get(held.id).state == ended
    assert len(held.attempts()) == 1


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_an_exception_in_the_block_fails_the_attempt_and_propagates(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(ZeroDivisionError), held:
        _ = 1 / 0
    failed = queue.get(held.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "ZeroDivisionError" in failed.error
    assert "test_task.py" in failed.error


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_an_exception_after_the_end_propagates(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(ZeroDivisionError), held:
        held.finish("done")
        _ = 1 / 0
    assert queue.get(held.id).result == "done"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize(
    ("choice", "state", "attempt"),
    [
        (RetryTask(), "failed", 1),
        (RetryTask(delay=60), "failed", 1),
        (AbandonTask("hopeless"), "abandoned", 1),
        (ReleaseTask(), "pending", 0),
        (ReleaseTask(60), "pending", 0),
    ],
    ids=repr,
)
def test_a_chosen_outcome_ends_the_block_silently(
    queue: TaskQueue, held: Task, choice: Exception, state: str, attempt: int
) -> None:
    before = datetime.now(UTC)
    with held:
        raise choice
    task = queue.get(held.id)
    assert (task.state, task.attempt) == (state, attempt)
    delay = getattr(choice, "delay", None)
    if delay is not None:
        assert (task.start_at - before).total_seconds() == pytest.approx(delay, abs=50)
    elif state == "failed":
        assert (task.start_at - before).total_seconds() == pytest.approx(3600, abs=120)
    if state == "abandoned":
        assert "hopeless" in (task.error or "")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_releases_the_task_and_propagates(
    queue: TaskQueue, held: Task, interrupt: type[BaseException]
) -> None:
    with pytest.raises(interrupt), held:
        raise interrupt
    task = queue.get(held.id)
    assert (task.state, task.attempt) == ("pending", 0)
    assert [attempt.outcome for attempt in task.attempts()] == ["released"]


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_of_a_lost_claim(queue: TaskQueue, held: Task) -> None:
    queue.cancel(held.id)
    with pytest.raises(LeaseLost), held:
        pytest.fail("the block must not run")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_when_the_claim_is_taken_away(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(LeaseLost), held:
        queue.purge()
    assert queue.get(held.id).state == "abandoned"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_when_the_claim_is_taken_away_hides_no_exception(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(ZeroDivisionError), held:
        queue.purge()
        _ = 1 / 0
    assert queue.get(held.id).state == "abandoned"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_when_the_claim_is_taken_away_and_an_outcome_is_chosen(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(LeaseLost), held:
        queue.purge()
        raise ReleaseTask


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_of_a_cancelled_task(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(ZeroDivisionError), held:
        queue.cancel(held.id)
        _ = 1 / 0
    assert queue.get(held.id).state == "cancelled"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_of_a_task_that_is_not_held(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(InvalidTransition), queue.get(held.id):
        pytest.fail("the block must not run")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_of_a_task_that_its_holder_ended(held: Task) -> None:
    held.release()
    with pytest.raises(InvalidTransition), held:
        pytest.fail("the block must not run")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_with_a_result_that_cannot_be_stored_ends_the_task(queue: TaskQueue, held: Task) -> None:
    with pytest.raises(PayloadError, match="result"), held:
        held.result = object()
    task = queue.get(held.id)
    assert task.state == "failed"
    assert "result" in (task.error or "")


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_bad_result_leaves_the_task_running(queue: TaskQueue, held: Task) -> None:
    held.start()
    with pytest.raises(PayloadError, match="result"):
        held.finish(float("nan"))
    assert queue.get(held.id).state == "running"
    held.finish(1)
    assert queue.get(held.id).result == 1


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("error", ["a text", ValueError("an exception"), KeyboardInterrupt()], ids=repr)
def test_fail_takes_a_text_or_an_exception(queue: TaskQueue, held: Task, error: BaseException | str) -> None:
    held.start()
    held.fail(error)
    assert (str(error) or type(error).__name__) in (queue.get(held.id).error or "")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_fail_with_a_raised_exception_stores_its_traceback(queue: TaskQueue, held: Task) -> None:
    held.start()
    try:
        raise ValueError("the reason")
    except ValueError as error:
        held.fail(error)
    text = queue.get(held.id).error or ""
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("ValueError: the reason")


def test_a_claim_can_be_ended_only_once(held: Task) -> None:
    held.start()
    held.finish()
    for act in (held.finish, held.release, held.start, lambda: held.fail("x")):
        with pytest.raises(InvalidTransition):
            act()


# -- waiting ---------------------------------------------------------------------------------------


def test_wait_and_get_result(queue: TaskQueue, other: TaskQueue) -> None:
    task = queue.enqueue()
    waiter, getter = Background(task.wait), Background(queue.get(task.id).get_result)
    [held] = other.fetch(timeout=10)
    held.start()
    assert waiter.runs
    held.finish({"answer": 42})
    assert waiter.join() is task
    assert getter.join() == {"answer": 42}


def test_wait_notices_another_process(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue("x")
    waiter = Background(task.get_result)
    run_python("import sys; from dbtaskqueue import Worker; Worker(sys.argv[1]).run(str.upper, burst=True)", url)
    assert waiter.join() == "X"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_wait_times_out(queue: TaskQueue, timeout: float) -> None:
    task = queue.enqueue()
    with pytest.raises(TimeoutError, match="pending"):
        task.wait(timeout)
    with pytest.raises(TimeoutError):
        task.get_result(timeout)


def test_a_failed_task_is_waited_for(held: Task) -> None:
    held.start()
    held.fail("it will be tried again")
    with pytest.raises(TimeoutError, match="failed"):
        held.wait(0)


def test_the_result_of_an_abandoned_task(queue: TaskQueue, held: Task) -> None:
    held.start()
    held.fail("the disk is on fire", retry=False)
    task = queue.get(held.id)
    assert task.wait(10) is task
    with pytest.raises(TaskFailed, match=r"abandoned after 1 attempt: .*the disk is on fire") as caught:
        task.get_result(10)
    assert caught.value.error == "the disk is on fire"


def test_the_result_of_a_cancelled_task(queue: TaskQueue) -> None:
    task = queue.enqueue()
    task.cancel()
    assert task.state == "cancelled"
    with pytest.raises(TaskCancelled):
        task.get_result(10)


# -- attempts --------------------------------------------------------------------------------------


def test_the_history_has_one_entry_for_each_start(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=0, max_attempts=3))

    def start() -> Task:
        [held] = queue.fetch(timeout=10)
        assert held.start()
        return held

    queue.fetch(timeout=10)[0].release()  # never started, so it has no entry
    start().release()
    start().fail("one")
    start().release()
    start().fail("two")
    queue.retry(task.id)
    start().finish("yes")
    queue.retry(task.id)
    runs = start()
    history = task.attempts()
    assert all(isinstance(attempt, Attempt) for attempt in history)
    assert [attempt.outcome for attempt in history] == [
        *("released", "failed", "released", "failed"),
        *("done", None),
    ]
    assert [attempt.number for attempt in history] == [1, 1, 2, 2, 3, 4]
    assert [attempt.error for attempt in history] == [None, "one", None, "two", None, None]
    tokens = [attempt.token for attempt in history]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == runs.token
    assert all(attempt.worker == runs.worker for attempt in history)
    assert all(attempt.started_at is not None for attempt in history)
    assert [attempt.finished_at is None for attempt in history] == [False] * 5 + [True]
    assert all(attempt.output is None for attempt in history)


def test_purge_closes_the_attempt_that_runs(queue: TaskQueue, held: Task) -> None:
    held.start()
    assert queue.purge() == 1
    [attempt] = queue.get(held.id).attempts()
    assert attempt.outcome == "abandoned"
    assert attempt.finished_at is not None


def test_the_error_is_the_last_one(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=0))
    for text in ("one", "two"):
        [held] = queue.fetch(timeout=10)
        held.start()
        held.fail(text)
        assert task.refresh().error == text
    [held] = queue.fetch(timeout=10)
    with held:
        pass
    assert queue.get(task.id).attempts()[0].error == "one"


def test_the_class_of_an_error(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=0))
    for error, name in ((PayloadError("x"), "dbtaskqueue.errors.PayloadError"), ("a text", None)):
        [held] = queue.fetch(timeout=10)
        held.start()
        held.fail(error)
        assert task.refresh().error_type == name
    assert [attempt.error_type for attempt in task.attempts()] == ["dbtaskqueue.errors.PayloadError", None]
    queue.cancel(task.id)
    assert (queue.retry(task.id).error, queue.get(task.id).error_type) == (None, None)


# -- dropped by their holder -----------------------------------------------------------------------


def test_a_dropped_reserved_task_is_released(queue: TaskQueue) -> None:
    task = queue.enqueue()
    queue.fetch(timeout=10)
    gc.collect()
    until(lambda: task.refresh().state == "pending", what="the release")
    assert (task.attempt, task.attempts()) == (0, [])


def test_a_dropped_running_task_fails(queue: TaskQueue) -> None:
    task = queue.enqueue()
    queue.fetch(timeout=10)[0].start()
    gc.collect()
    until(lambda: task.refresh().state == "failed", what="the failure")
    assert "dropped by its holder" in (task.error or "")
    assert [attempt.outcome for attempt in task.attempts()] == ["failed"]


def test_dropping_an_ended_or_lost_task_changes_nothing(queue: TaskQueue) -> None:
    done, lost = queue.enqueue_many(range(2))
    one, two = queue.fetch(2, timeout=10)
    one.start()
    one.finish("kept")
    two.start()
    queue.purge()
    queue.retry(lost.id)
    del one, two
    gc.collect()
    queue.enqueue("marker")
    [again, marker] = queue.fetch(2, timeout=10)
    assert (again.id, marker.payload) == (lost.id, "marker")
    del marker
    gc.collect()
    until(lambda: queue.stats().reserved == 1, what="the release of the marker")
    assert done.refresh().result == "kept"
    assert again.start()


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_dropping_a_task_that_is_not_held_changes_nothing(queue: TaskQueue, held: Task) -> None:
    queue.get(held.id)
    gc.collect()
    assert held.start()


def test_a_holder_cannot_start_a_task_that_it_has_ended_whatever_came_after(queue):
    queue.enqueue()
    [task] = queue.fetch()
    task.release()
    queue.cancel(task.id)
    with pytest.raises(LeaseLost):
        task.finish()
    with pytest.raises(InvalidTransition, match="ended by its holder"):
        task.start()

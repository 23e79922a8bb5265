"""Retries of failed tasks: the policy that is stored with a task, and the operator's retry."""

from __future__ import annotations

from datetime import timedelta

import pytest
from helpers import die_holding, until

from dbtaskqueue import RetryPolicy, Task, TaskNotFound, TaskQueue


def fail_now(queue: TaskQueue, task: Task) -> float:
    """Make the task due and fail an attempt of it. Return the seconds until it is due again."""
    [held] = queue.fetch(timeout=30)
    assert held.id == task.id
    held.start()
    held.fail("broken")
    attempt = held.attempts()[-1]
    assert attempt.finished_at is not None
    return (task.refresh().start_at - attempt.finished_at).total_seconds()


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch):
    """Return a function that moves the clock forward by this many seconds."""
    from dbtaskqueue._system import clock

    started = clock.source
    ahead = [0]
    monkeypatch.setattr(clock, "source", lambda: started() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] += int(seconds * 1e6)

    return jump


@pytest.mark.one_engine("the policy is applied in Python")
def test_the_default_waits_as_dbix_taskqueue_does(queue: TaskQueue, jump) -> None:
    task = queue.enqueue()
    waits = []
    for _ in range(9):
        waits.append(fail_now(queue, task))
        assert task.state == "failed"
        assert queue.fetch(timeout=0) == []
        jump(waits[-1])
    assert waits == [60, 120, 180, 240, 300, 600, 1200, 2400, 4800]
    fail_now(queue, task)
    assert (task.state, task.attempt) == ("abandoned", 10)


@pytest.mark.one_engine("the policy is applied in Python")
def test_the_policy_is_stored_with_the_task(url: str, queue: TaskQueue, jump) -> None:
    """The producer's policy applies, whatever the policy of the queue handle that fails the task."""
    with TaskQueue(url, retry=RetryPolicy(delay=10, linear=2, factor=3, max_delay=70, max_attempts=5)) as producer:
        task = producer.enqueue()
    waits = []
    for _ in range(4):
        waits.append(fail_now(queue, task))
        jump(waits[-1])
    assert waits == [10, 20, 60, 70]
    fail_now(queue, task)
    assert task.state == "abandoned"


@pytest.mark.one_engine("the policy is applied in Python")
def test_the_policy_of_enqueue_overrides_that_of_the_queue(url: str) -> None:
    with TaskQueue(url, retry=RetryPolicy(delay=10)) as queue:
        assert fail_now(queue, queue.enqueue(retry=RetryPolicy(delay=77))) == 77


@pytest.mark.one_engine("the policy is applied in Python")
def test_retries_without_limit(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=0, max_attempts=None))
    for _ in range(25):
        fail_now(queue, task)
    assert (task.state, task.attempt, task.max_attempts) == ("failed", 25, None)


@pytest.mark.one_engine("the policy is applied in Python")
def test_jitter_stays_within_its_bounds(queue: TaskQueue) -> None:
    waits = set()
    for _ in range(20):
        task = queue.enqueue(retry=RetryPolicy(delay=1000, jitter=0.1))
        waits.add(fail_now(queue, task))
    assert all(900 <= wait <= 1100 for wait in waits)
    assert len(waits) > 1


def test_an_operators_retry_resets_the_delays(queue: TaskQueue, jump) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=60, max_attempts=2))
    jump(fail_now(queue, task))
    fail_now(queue, task)
    assert (task.state, task.attempt) == ("abandoned", 2)
    again = queue.retry(task.id)
    assert (again.id, again.state, again.attempt, again.max_attempts) == (task.id, "pending", 2, 4)
    assert (again.error, again.finished_at) == (None, None)
    assert len(again.attempts()) == 2
    assert fail_now(queue, task) == 60
    jump(60)
    fail_now(queue, task)
    assert (task.state, task.attempt) == ("abandoned", 4)
    assert queue.retry(task.id).max_attempts == 6


def test_an_operators_retry_makes_a_failed_task_due_now(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=3600))
    fail_now(queue, task)
    assert queue.fetch(timeout=0) == []
    queue.retry(task.id)
    assert queue.fetch(timeout=10)[0].id == task.id


def test_an_operators_retry_of_a_task_with_unlimited_attempts(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=0, max_attempts=None))
    fail_now(queue, task)
    assert queue.retry(task.id).max_attempts is None


@pytest.mark.parametrize("result", ["small", "large" * 1000])
def test_an_operators_retry_of_a_done_task_removes_its_result(queue: TaskQueue, result: str) -> None:
    task = queue.enqueue("x" * 5000)
    [held] = queue.fetch(timeout=10)
    with held:
        held.result = result
    again = queue.retry(task.id)
    assert (again.state, again.result, again.finished_at) == ("pending", None, None)
    assert again.payload == "x" * 5000
    [attempt] = again.attempts()
    assert (attempt.outcome, attempt.number) == ("done", 1)
    [held] = queue.fetch(timeout=10)
    with held:
        pass
    assert task.refresh().result is None
    assert [attempt.outcome for attempt in task.attempts()] == ["done", "done"]


def test_an_operators_retry_of_a_cancelled_task_removes_the_request(queue: TaskQueue) -> None:
    task = queue.enqueue()
    [held] = queue.fetch(timeout=10)
    held.start()
    task.cancel()
    held.release()
    assert task.refresh().state == "cancelled"
    assert queue.retry(task.id).cancel_requested is False
    [held] = queue.fetch(timeout=10)
    held.start()
    held.fail("like any other")
    assert held.state == "failed"


def test_after_an_operators_retry_the_first_lost_attempt_is_due_immediately(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=3600))
    for _ in range(2):
        die_holding(url)
        queue.pause()
        until(lambda: queue.fetch(timeout=0) == [] and task.refresh().state == "failed", what="the rescue")
        queue.retry(task.id)
        queue.resume()
    die_holding(url)
    [held] = queue.fetch(timeout=30)
    assert held.id == task.id


@pytest.mark.one_engine("the policy is applied in Python")
def test_retry_of_an_unknown_task(queue: TaskQueue) -> None:
    for id in (1, 0, -1, 2**63, "1", True, None):
        with pytest.raises(TaskNotFound):
            queue.retry(id)  # type: ignore[arg-type]


@pytest.mark.one_engine("the policy is applied in Python")
def test_a_timedelta_means_the_same_as_its_seconds(queue: TaskQueue) -> None:
    task = queue.enqueue(start_in=timedelta(minutes=1))
    assert (task.start_at - task.created_at) == timedelta(seconds=60)

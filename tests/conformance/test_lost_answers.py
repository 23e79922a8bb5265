"""Writes whose answer was lost, for example because the connection broke at COMMIT."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from faults import Faults
from helpers import Background, until

from dbtaskqueue import InvalidTransition, LeaseLost, RetryPolicy, StoreUnavailable, Task, TaskQueue, Worker
from dbtaskqueue._store.contract import End, Exchanged
from dbtaskqueue._system import clock
from dbtaskqueue._worker import held

pytestmark = pytest.mark.one_engine("the answers are lost in Python, above the engines")

# -- a claim ---------------------------------------------------------------------------------------


@pytest.fixture
def faults(queue: TaskQueue) -> Faults:
    return Faults(queue)


def away(worker: int) -> Any:
    raise StoreUnavailable("away")


def is_claim(asked: dict[str, object]) -> bool:
    return asked.get("claim") is not None


def test_a_claim_is_released_later_if_its_answer_and_its_release_are_lost(
    queue: TaskQueue, other: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("x")
    faults.lose, faults.stored = is_claim, True
    held, is_down = queue.store.held, [True]

    def read_held(worker: int) -> object:
        if is_down:
            raise StoreUnavailable("unavailable")
        return held(worker)

    monkeypatch.setattr(queue.store, "held", read_held)
    with pytest.raises(StoreUnavailable):
        queue.fetch()
    assert other.stats().reserved == 1
    is_down.clear()
    [task] = other.fetch(timeout=30)
    assert (task.payload, task.attempt) == ("x", 0)


def test_many_lost_claims_leave_one_check(queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a program that fetches again and again during an outage of hours."""
    faults.lose, faults.in_doubt = is_claim, True
    checks = list[float]()
    monkeypatch.setattr(queue.store, "held", away)

    def count() -> None:
        checks.append(time.monotonic())
        raise StoreUnavailable("away")

    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            queue.fetch(timeout=0)
    monkeypatch.setattr(queue._membership._lost_claims, "check", count)
    until(lambda: len(checks) >= 3, what="some checks")
    assert checks[-1] - checks[0] > 1


def test_the_later_release_leaves_newer_claims_alone(
    queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same handle has another claim in flight while the maintenance searches for tasks without a known holder."""
    queue.enqueue("lost", priority=1)
    queue.enqueue_many(["kept"] * 20)
    faults.lose, faults.stored = is_claim, True
    held, is_down = queue.store.held, [True]

    def read_held(worker: int) -> object:
        if is_down:
            raise StoreUnavailable("unavailable")
        return held(worker)

    monkeypatch.setattr(queue.store, "held", read_held)
    with pytest.raises(StoreUnavailable):
        queue.fetch()
    faults.heal()
    faults.pause = 0.1
    is_down.clear()
    kept: list[Task] = []
    deadline = time.monotonic() + 30
    while not any(task.payload == "lost" for task in kept):
        assert time.monotonic() < deadline
        kept += queue.fetch(timeout=10)
    assert all(task.start() for task in kept)


def test_a_worker_releases_a_claim_that_arrives_late(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke with the claim in flight. The server runs it while the worker is busy with another task."""
    ask, in_flight = queue.store.exchange, list[Callable[[], list[int]]]()

    def exchange(worker: int, **asked: Any) -> Exchanged:
        if asked.get("claim") is None or in_flight:
            return ask(worker, **asked)

        def arrive() -> list[int]:
            """Run it with the time of its arrival, so that it finds tasks that were enqueued since."""
            late = asked["claim"]._replace(now=clock.now())
            return [record.id for record in ask(worker, **{**asked, "claim": late}).claimed]

        in_flight.append(arrive)
        raise StoreUnavailable("no answer", maybe_done=True)

    monkeypatch.setattr(queue.store, "exchange", exchange)
    ran: list[str] = []
    leave = threading.Event()

    def work(name: str) -> None:
        ran.append(name)
        assert leave.wait(60)

    queue.enqueue("first")
    running = Background(lambda: Worker(queue).run(work, max_tasks=2))
    until(lambda: ran, what="the first task")
    second = other.enqueue("second")
    assert in_flight[0]() == [second.id]
    until(lambda: second.refresh().state == "pending", what="the release of the late claim")
    leave.set()
    running.join()
    assert ran == ["first", "second"]
    assert (second.refresh().state, second.attempt) == ("done", 1)


# -- on_error --------------------------------------------------------------------------------------


def fails(payload: object) -> None:
    raise ValueError("no luck")


class ErrorCalls:
    """An ``on_error`` that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, int, str, str]] = []

    def __call__(self, task: Task, error: BaseException) -> None:
        self.calls.append((task.id, task.state, task.attempt, (task.error or "").splitlines()[-1], str(error)))


@pytest.mark.parametrize("max_attempts", [1, 2])
@pytest.mark.parametrize("batch", [1, 8])
def test_on_error_is_called_once_if_the_answer_to_a_failure_was_lost(
    queue: TaskQueue, faults: Faults, max_attempts: int, batch: int
) -> None:
    task = queue.enqueue("x", retry=RetryPolicy(delay=3600, max_attempts=max_attempts))
    faults.lose, faults.stored, faults.times = is_end, True, 2
    reported = ErrorCalls()
    Worker(queue, on_error=reported).run(fails, burst=True, batch=batch)
    assert faults.lost == 2
    state = "failed" if max_attempts == 2 else "abandoned"
    assert reported.calls == [(task.id, state, 1, "ValueError: no luck", "no luck")]


@pytest.mark.parametrize("is_read_immediately", [True, False])
def test_on_error_is_called_once_if_the_task_was_claimed_again_before_the_second_try(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch, is_read_immediately: bool
) -> None:
    """The token has changed, but the task's history shows the attempt that this worker ended."""
    ask, read, again = queue.store.exchange, queue.store.attempts, list[Task]()
    refused = [] if is_read_immediately else [1, 2]

    def exchange(worker: int, **asked: Any) -> Exchanged:
        answer = ask(worker, **asked)
        if asked.get("ends") and not again:
            other.retry(task.id)
            again.extend(other.fetch(timeout=30))
            raise StoreUnavailable("no answer", maybe_done=True)
        return answer

    def attempts(task: int, since: int = 0) -> Any:
        if refused:
            raise StoreUnavailable(f"unavailable {refused.pop()}")
        return read(task, since)

    monkeypatch.setattr(queue.store, "exchange", exchange)
    monkeypatch.setattr(queue.store, "attempts", attempts)
    task = queue.enqueue("x", retry=RetryPolicy(delay=3600))
    reported: list[str] = []
    Worker(queue, on_error=lambda task, error: reported.append(str(error))).run(fails, burst=True)
    assert len(again) == 1
    assert not refused
    assert reported == ["no luck"]


def test_on_error_is_not_called_for_an_end_that_was_never_stored(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = queue.enqueue("x")

    def purged(payload: object) -> None:
        other.purge()
        fails(payload)

    reported = ErrorCalls()
    Worker(queue, on_error=reported).run(purged, burst=True)
    assert task.refresh().state == "abandoned"
    assert reported.calls == []


@pytest.mark.parametrize("batch", [1, 8])
def test_on_error_is_called_if_the_task_cannot_be_read(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    def get(*arguments: object) -> None:
        raise StoreUnavailable("unavailable")

    task = queue.enqueue("x", retry=RetryPolicy(delay=3600))
    reported = ErrorCalls()
    with monkeypatch.context() as patch:
        patch.setattr(queue.store, "get", get)
        Worker(queue, on_error=reported).run(fails, burst=True, batch=batch)
    assert reported.calls == [(task.id, "failed", 1, "ValueError: no luck", "no luck")]


# -- a holder's verbs ------------------------------------------------------------------------------


def started(queue: TaskQueue) -> Task:
    queue.enqueue("x")
    [task] = queue.fetch(timeout=10)
    assert task.start()
    return task


def is_end(asked: dict[str, object]) -> object:
    return asked.get("ends")


VERBS: dict[str, tuple[Callable[[Task], object], str]] = {
    "finish": (lambda task: task.finish("result"), "done"),
    "fail": (lambda task: task.fail("reason"), "failed"),
    "abandon": (lambda task: task.fail("reason", retry=False), "abandoned"),
    "release": (lambda task: task.release(3600), "pending"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("stored", [True, False])
def test_an_end_in_doubt_is_retried_automatically(queue: TaskQueue, faults: Faults, verb: str, stored: bool) -> None:
    """``stored``: whether the first try took effect."""
    task = started(queue)
    act, state = VERBS[verb]
    faults.lose, faults.stored, faults.in_doubt, faults.times = is_end, stored, True, 2
    act(task)
    assert (task.state, task.refresh().state, faults.lost) == (state, state, 2)
    assert len(task.attempts()) == 1


@pytest.mark.parametrize("verb", ["fail", "release"])
def test_an_end_in_doubt_of_a_task_with_a_cancellation_request(queue: TaskQueue, faults: Faults, verb: str) -> None:
    task = started(queue)
    queue.cancel(task.id)
    faults.lose, faults.stored, faults.times = is_end, True, 1
    VERBS[verb][0](task)
    assert faults.lost == 1
    assert (task.state, task.refresh().state) == ("cancelled", "cancelled")


@pytest.mark.parametrize("meanwhile", ["another claim", "another thread"])
def test_an_end_in_doubt_was_not_stored_if_the_task_has_ended_otherwise(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The task ends between the first try, which did not arrive, and the second."""
    task, ask = started(queue), queue.store.exchange

    def exchange(worker: int, **asked: Any) -> Exchanged:
        monkeypatch.undo()
        if meanwhile == "another claim":
            other.purge()
            other.retry(task.id)
            [again] = other.fetch(timeout=10)
            again.start()
            again.finish("its result")
        else:
            ask(worker, ends=[End("fail", task.id, task.token, clock.now(), error="by another thread")])
        raise StoreUnavailable("no answer", maybe_done=True)

    monkeypatch.setattr(queue.store, "exchange", exchange)
    with pytest.raises(LeaseLost if meanwhile == "another claim" else InvalidTransition):
        task.finish("ours")
    assert task.refresh().result == ("its result" if meanwhile == "another claim" else None)


def test_there_are_pauses_between_the_tries(queue: TaskQueue, faults: Faults) -> None:
    task = started(queue)
    faults.lose, faults.in_doubt = is_end, True
    before = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        task.finish()
    assert time.monotonic() - before >= 1
    assert 3 <= faults.lost <= 20
    assert caught.value.maybe_done


@pytest.mark.parametrize("verb", VERBS)
def test_the_caller_may_repeat_an_end_in_doubt(
    queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(held, "_PAUSES", (0.01,))
    task = started(queue)
    act, state = VERBS[verb]
    faults.lose, faults.stored = is_end, True
    with pytest.raises(StoreUnavailable) as caught:
        act(task)
    assert caught.value.maybe_done
    faults.heal()
    act(task)
    assert (task.state, task.refresh().state) == (state, state)
    with pytest.raises(InvalidTransition):
        act(task)  # the outcome is certain now


def test_the_caller_may_repeat_a_start_in_doubt(
    queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_PAUSES", (0.01,))
    queue.enqueue("x")
    [task] = queue.fetch(timeout=10)
    faults.lose, faults.stored = lambda asked: asked.get("starts"), True
    with pytest.raises(StoreUnavailable):
        task.start()
    faults.heal()
    assert task.start()
    assert task.attempt == 1
    with pytest.raises(InvalidTransition):
        task.start()
    task.finish()


def test_a_verb_other_than_the_one_in_doubt_raises_the_true_state(
    queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_PAUSES", ())
    task = started(queue)
    faults.lose, faults.stored = is_end, True
    with pytest.raises(StoreUnavailable):
        task.finish("result")
    faults.heal()
    with pytest.raises(InvalidTransition, match="is done"):
        task.fail("reason")
    task.finish("result")


def test_an_end_stays_in_doubt_while_the_database_is_unavailable(
    queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that lost the answer is down. The next try stores nothing, but the first may have."""
    monkeypatch.setattr(held, "_PAUSES", (0.01, 0.01))
    task = started(queue)
    faults.lose, faults.stored, faults.times = is_end, True, 1
    faults.then_away = True
    with pytest.raises(StoreUnavailable) as caught:
        task.finish()
    assert caught.value.maybe_done
    assert task.refresh().state == "done"


def test_a_holder_that_dropped_an_end_in_doubt_deregisters_when_it_is_closed(
    queue: TaskQueue, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end was stored, so the handle holds nothing any more."""
    monkeypatch.setattr(held, "_PAUSES", ())
    task = started(queue)
    faults.lose, faults.stored = is_end, True
    with pytest.raises(StoreUnavailable):
        task.finish()
    faults.heal()
    number = task.id
    del task
    queue.close()
    with TaskQueue(queue.url) as other:
        until(lambda: other.stats().workers == 0, what="the end of the worker")
        assert other.get(number).state == "done"

"""``current_task()``: what the running code can read about its task."""

from __future__ import annotations

import itertools
import threading

import pytest
from helpers import Background

from dbtaskqueue import RetryPolicy, RunningTask, TaskQueue, Worker, current_task, track

pytestmark = pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")


def test_outside_of_a_task(queue: TaskQueue) -> None:
    with pytest.raises(RuntimeError, match="inside a task"):
        current_task()


def test_attributes_show_the_task_at_its_start(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue({"n": 1}, retry=RetryPolicy(delay=0, max_attempts=5))
    seen: list[dict[str, object]] = []

    def callback(payload: object) -> None:
        running = current_task()
        assert isinstance(running, RunningTask)
        names = ("id", "queue", "payload", "attempt", "max_attempts", "token", "function", "cancelled", "should_stop")
        seen.append({name: getattr(running, name) for name in names} | {"stored": queue.get(running.id).token})
        if running.attempt < 3:
            raise ValueError

    Worker(url).run(callback, max_tasks=3)
    for number, entry in enumerate(seen, start=1):
        assert entry["stored"] == entry["token"]
        assert entry == {
            "id": task.id,
            "queue": "default",
            "payload": {"n": 1},
            "attempt": number,
            "max_attempts": 5,
            "token": number,
            "function": None,
            "cancelled": False,
            "should_stop": False,
            "stored": number,
        }
    assert len(seen) == 3


def test_options_times_and_the_worker(queue: TaskQueue) -> None:
    task = queue.enqueue(1, priority=7, key="once", retry=RetryPolicy(delay=0))
    seen: list[tuple[object, ...]] = []

    def callback(payload: object) -> None:
        running = current_task()
        seen.append((running.priority, running.key, running.created_at, running.start_at, running.worker))
        assert task.created_at < running.started_at
        if running.attempt == 1:
            raise ValueError

    Worker(queue).run(callback, burst=True)
    first, second = task.attempts()
    assert seen[0] == (7, "once", task.created_at, task.start_at, first.worker)
    assert seen[1][3] > task.start_at
    assert second.started_at is not None
    assert first.started_at is not None
    assert first.started_at < second.started_at


@pytest.mark.parametrize("batch", [1, 5])
def test_attempts_are_numbered_from_one_in_a_batch_too(queue: TaskQueue, url: str, batch: int) -> None:
    queue.enqueue_many(range(10))
    seen: list[int] = []
    Worker(url).run(lambda payload: seen.append(current_task().attempt), burst=True, batch=batch)
    assert seen == [1] * 10


def test_of_a_task_function(queue: TaskQueue) -> None:
    @queue.task(name="who")
    def who(greeting: str) -> list[object]:
        return [greeting, current_task().function, current_task().payload]

    task = who.enqueue("hello")
    Worker(queue).run(burst=True)
    assert task.get_result(10)[:2] == ["hello", "who"]


def test_each_thread_has_its_own_current_task(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(4))
    together = threading.Barrier(4, timeout=30)
    pairs: list[tuple[object, object]] = []

    def callback(payload: object) -> None:
        together.wait()
        pairs.append((payload, current_task().payload))
        together.wait()

    Worker(url, concurrency=4).run(callback, burst=True)
    assert sorted(pairs) == [(n, n) for n in range(4)]


def test_a_thread_that_a_task_starts_is_outside(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue()

    def callback(payload: object) -> str:
        with pytest.raises(RuntimeError):
            Background(current_task).join()
        return "outside"

    Worker(url).run(callback, burst=True)
    assert task.get_result(10) == "outside"


def test_current_task_ends_with_the_task(queue: TaskQueue, url: str) -> None:
    kept: list[object] = []

    def callback(payload: object) -> None:
        kept.append(current_task())

    queue.enqueue_many(range(2))
    Worker(url).run(callback, burst=True)
    assert len({id(running) for running in kept}) == 2
    with pytest.raises(RuntimeError):
        current_task()


def test_track_reports_how_many_elements_are_done(queue: TaskQueue) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    def callback(payload: object) -> None:
        for _ in track(["a", "b", "c"], message="pages"):
            seen.append(current_task()._tracker.latest or (-1, None, None))

    task = queue.enqueue()
    Worker(queue).run(callback, burst=True)
    progress = task.refresh().progress
    assert seen == [(0, 3, "pages"), (1, 3, "pages"), (2, 3, "pages")]
    assert progress is not None
    assert progress[:3] == (3, 3, "pages")


@pytest.mark.parametrize(("total", "expected"), [(None, None), (9, 9)])
def test_track_needs_no_length(queue: TaskQueue, total: float | None, expected: float | None) -> None:
    def callback(payload: object) -> list[int]:
        return list(track((number for number in range(2)), total))

    task = queue.enqueue()
    Worker(queue).run(callback, burst=True)
    progress = task.refresh().progress
    assert task.result == [0, 1]
    assert progress is not None
    assert progress[:2] == (2, expected)


def test_track_ends_a_cancelled_task(queue: TaskQueue) -> None:
    def callback(payload: object) -> None:
        for _ in track(itertools.count()):
            queue.cancel(current_task().id)

    task = queue.enqueue()
    Worker(queue).run(callback, burst=True)
    assert task.refresh().state == "cancelled"


def test_track_only_yields_outside_of_a_task() -> None:
    assert list(track("ab", total=2, message="letters")) == ["a", "b"]

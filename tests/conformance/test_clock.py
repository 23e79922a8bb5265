"""When the clock jumps, no task is lost or stuck, and no live worker loses its tasks.

The library reads the time from ``dbtaskqueue._system.clock.source``, which these tests replace. A task with a chosen
start time follows the changed clock. A task that was due immediately must not wait because the clock was set back.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from helpers import Background, die_holding, until

from dbtaskqueue import RetryPolicy, Task, TaskQueue, Worker
from dbtaskqueue._maintenance.clock_watch import ClockWatch
from dbtaskqueue._system import clock

HOUR = 3600
Jump = Callable[[float], None]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Move the clock forward by this many seconds, or back if negative."""
    wall, ahead = clock.source, [0]
    monkeypatch.setattr(clock, "source", lambda: wall() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] += int(seconds * 1_000_000)

    return jump


def test_a_task_enqueued_before_the_clock_was_set_back(queue: TaskQueue, jump: Jump) -> None:
    tasks = [queue.enqueue(n, priority=n) for n in range(3)]
    jump(-HOUR)
    fetched = queue.fetch(10, timeout=20)
    assert sorted(task.id for task in fetched) == [task.id for task in tasks]


def test_a_worker_that_waits_while_the_clock_is_set_back(queue: TaskQueue, url: str, jump: Jump) -> None:
    done = Background(lambda: Worker(url).run(lambda payload: payload, max_tasks=2))
    queue.enqueue("before").get_result(30)
    queue.pause()
    task = queue.enqueue("stuck?")
    jump(-HOUR)
    queue.resume()
    assert task.get_result(30) == "stuck?"
    done.join()


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_clock_that_is_set_back_is_noticed_at_the_next_check(queue: TaskQueue, jump: Jump) -> None:
    watch = ClockWatch(queue.store)
    assert watch() == 0  # it has read the newest task, and reads it again only in 10 s
    task = queue.enqueue()
    jump(-HOUR)
    assert watch() == 1
    assert [held.id for held in queue.fetch(timeout=0)] == [task.id]


def test_a_handle_opened_after_the_clock_was_set_back(queue: TaskQueue, url: str, jump: Jump) -> None:
    task = queue.enqueue()
    jump(-HOUR)
    with TaskQueue(url) as later:
        [held] = later.fetch(timeout=20)
        assert held.id == task.id


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_burst_after_the_clock_was_set_back(queue: TaskQueue, url: str, jump: Jump) -> None:
    """A burst runs until no task is due: a task that was due immediately is not left behind."""
    task = queue.enqueue("x")
    jump(-HOUR)
    Worker(url).run(lambda payload: payload, burst=True)
    if task.refresh().state != "done":  # the first worker ended before it noticed the changed clock
        Worker(url).run(lambda payload: payload, max_tasks=1, idle_timeout=20)
    assert task.refresh().state == "done"


def release_task(queue: TaskQueue, url: str) -> None:
    [task] = queue.fetch(timeout=10)
    task.release()


def retry_task(queue: TaskQueue, url: str) -> None:
    [task] = queue.fetch(timeout=10)
    task.start()
    task.finish()
    queue.retry(task.id)


def fail_without_delay(queue: TaskQueue, url: str) -> None:
    [task] = queue.fetch(timeout=10)
    task.start()
    task.fail("x")


def die_and_rescue(queue: TaskQueue, url: str) -> None:
    die_holding(url)
    queue.pause()
    until(lambda: queue.fetch(timeout=0) == [] and not queue.stats().running, what="the rescue")
    queue.resume()


@pytest.mark.parametrize(
    "return_task",
    [release_task, retry_task, fail_without_delay, die_and_rescue],
)
def test_a_task_that_became_due_immediately_is_not_stuck(
    queue: TaskQueue, url: str, jump: Jump, return_task: Callable[[TaskQueue, str], None]
) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=0))
    return_task(queue, url)
    jump(-HOUR)
    assert [held.id for held in queue.fetch(timeout=20)] == [task.id]


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_delay_from_the_producer_follows_the_clock(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue(start_in=HOUR / 2)
    jump(-HOUR)
    assert queue.fetch(timeout=0.1) == []
    jump(2 * HOUR)
    assert [held.id for held in queue.fetch(timeout=20)] == [task.id]


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_retry_delay_after_the_clock_was_moved_forward(queue: TaskQueue, jump: Jump) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=HOUR))
    [held] = queue.fetch(timeout=10)
    held.start()
    held.fail("x")
    assert queue.fetch(timeout=0) == []
    jump(HOUR)
    assert [again.id for again in queue.fetch(timeout=20)] == [task.id]


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 1000 * HOUR])
def test_no_live_worker_loses_its_tasks_when_the_clock_jumps(
    queue: TaskQueue, url: str, jump: Jump, seconds: float
) -> None:
    """Whether a worker is alive is never decided by a clock."""
    with TaskQueue(url, lease=0.5) as holder:
        queue.enqueue_many(["reserved", "running"])
        reserved, running = holder.fetch(2, timeout=10)
        running.start()
        jump(seconds)
        assert queue.fetch(timeout=2.5) == []
        assert reserved.start()
        reserved.finish(1)
        running.finish(2)
        assert queue.stats().done == 2


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_tasks_while_the_clock_keeps_jumping(queue: TaskQueue, url: str, jump: Jump) -> None:
    """Producers and workers with some failures run while the clock keeps jumping by an hour, back and forth."""
    stop = threading.Event()
    runs: Counter[int] = Counter()

    def callback(n: int) -> int:
        runs[n] += 1
        if n % 5 == 0 and runs[n] == 1:
            raise ValueError
        return n

    def jumps() -> None:
        for step in itertools.cycle([HOUR, -HOUR, -HOUR, HOUR]):
            if stop.wait(0.01):
                return
            jump(step)

    jumper = Background(jumps)
    workers = [Worker(url, concurrency=2) for _ in range(2)]
    threads = [Background(lambda worker=worker: worker.run(callback)) for worker in workers]
    tasks: list[Task] = [queue.enqueue(n, retry=RetryPolicy(delay=0)) for n in range(200)]
    tokens = {task.id: 0 for task in tasks}

    def all_done() -> bool:
        for task in tasks:
            before = tokens[task.id]
            tokens[task.id] = task.refresh().token
            assert task.token >= before
        return all(task.state == "done" for task in tasks)

    until(all_done, within=60, what="the end of all tasks")
    stop.set()
    jumper.join()
    for worker, thread in zip(workers, threads, strict=True):
        worker.stop()
        thread.join()
    for n, task in enumerate(tasks):
        failed = n % 5 == 0
        assert (task.result, task.attempt) == (n, 1 + failed)
        assert runs[n] == 1 + failed
        assert [attempt.outcome for attempt in task.attempts()] == ["failed"] * failed + ["done"]


def test_a_prune_after_the_clock_was_set_back_keeps_tasks_that_just_ended(queue: TaskQueue, jump: Jump) -> None:
    queue.enqueue()
    with queue.fetch(timeout=10)[0]:
        pass
    jump(-HOUR)
    assert queue.prune(60) == 0

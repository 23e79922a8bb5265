"""Tasks that kill their worker, and workers that are asked to stop."""

from __future__ import annotations

import signal

import pytest
from helpers import until
from workers import has_written

from dbtaskqueue import RetryPolicy, TaskQueue

pytestmark = pytest.mark.one_engine("a pid decides, not SQL")

EAGER = RetryPolicy(delay=0)


@pytest.mark.elsewhere("psutil")
def test_a_task_that_kills_its_worker_is_abandoned_and_its_batch_spends_no_attempt(url, worker):
    with TaskQueue(url, retry=EAGER) as queue:
        before = queue.enqueue_many([["nothing", None]] * 60)
        poison = queue.enqueue(["die", None], max_attempts=2)
        behind = queue.enqueue_many([["nothing", None]] * 60)
        deaths = 0
        while worker(run={"burst": True, "batch": 40}).wait(timeout=60):
            deaths += 1
            assert deaths < 10, "the task kills its workers without limit"
        assert poison.refresh().state == "abandoned"
        assert [attempt.outcome for attempt in poison.attempts()] == ["lost", "lost"]
        assert deaths == 3, "once in a batch, where the culprit is unknown, then twice alone"
        for task in (*before, *behind):
            assert task.refresh().state == "done"
            assert task.attempt == 1
            assert [attempt.outcome for attempt in task.attempts()] == ["done"]


def test_a_long_task_that_kills_its_worker_is_abandoned(url, worker):
    with TaskQueue(url, retry=EAGER) as queue:
        poison = queue.enqueue(["die", None], max_attempts=3)
        while worker(run={"burst": True}).wait(timeout=60):
            pass
        assert poison.refresh().state == "abandoned"
        assert poison.attempt == 3


def test_a_drain_lets_a_task_finish(url, worker, note):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["obey", None])
        process = worker()
        until(lambda: has_written(note, "start"))
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert task.refresh().state == "done"
        assert task.attempt == 1


def test_a_drain_releases_what_does_not_end_in_time(url, worker, note):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["sleep", 600])
        process = worker(drain_timeout=0.3)
        until(lambda: has_written(note, "start"))
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert task.refresh().state == "pending"
        assert task.attempt == 0
        assert [attempt.outcome for attempt in task.attempts()] == ["released"]


def test_a_second_signal_ends_the_drain_immediately(url, worker, note):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["linger", 600])
        process = worker(drain_timeout=500)
        until(lambda: has_written(note, "start"))
        process.send_signal(signal.SIGINT)
        until(lambda: has_written(note, "told"), what="the first signal's effect; two at once count as one")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert task.refresh().state == "pending"
        assert task.attempt == 0


def test_a_batch_is_released_by_a_drain(url, worker, note):
    with TaskQueue(url) as queue:
        queue.enqueue_many([["sleep", 600]] + [["nothing", None]] * 30)
        process = worker(drain_timeout=0, run={"batch": 31})
        until(lambda: has_written(note, "start"))
        process.terminate()
        assert process.wait(timeout=30) == 0
        stats = queue.stats()
        assert (stats.pending, stats.reserved, stats.running) == (31, 0, 0)
        assert all(task.attempt == 0 for task in queue.tasks())

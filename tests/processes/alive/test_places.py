"""Which workers are alive: in the same place the pid decides, elsewhere the heartbeat. No false rescues."""

from __future__ import annotations

import json
import os
import signal

import pytest
from helpers import WorkerReads, until
from workers import FETCHER, WORKER, Elsewhere, has_written, need_namespaces, watch

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.one_engine("a pid or a counter decides, not SQL")

LEASE = 2.0


@pytest.fixture
def elsewhere(start, url, note):
    """Start a worker in a PID namespace of its own."""
    need_namespaces()
    return Elsewhere(start, WORKER, url, note, json.dumps({"lease": LEASE}))


@pytest.mark.elsewhere("psutil")
def test_a_stopped_process_of_the_same_place_keeps_its_tasks(url, worker, note):
    with TaskQueue(url, lease=LEASE) as queue:
        task = queue.enqueue(["sleep", 0.5])
        process = worker(lease=LEASE)
        until(lambda: has_written(note, "start"))
        os.kill(process.pid, signal.SIGSTOP)
        watch(3 * LEASE, lambda: queue.fetch(timeout=0.1) == [], "a false rescue")
        os.kill(process.pid, signal.SIGCONT)
        assert task.get_result(timeout=30) == "sleep"
        assert task.attempt == 1


@pytest.mark.elsewhere("psutil")
def test_a_killed_worker_is_noticed_in_the_same_place(url, worker, note):
    with TaskQueue(url) as queue:
        queue.enqueue(["sleep", 600])
        process = worker()
        until(lambda: has_written(note, "start"))
        process.kill()
        process.wait()
        [task] = queue.fetch(timeout=30)
        assert task.attempt == 1
        assert [attempt.outcome for attempt in task.attempts()] == ["lost"]
        assert str(process.pid) in (task.error or "")


def test_a_killed_worker_elsewhere_is_noticed_by_its_silence(url, elsewhere, note):
    with TaskQueue(url) as queue:
        queue.enqueue(["sleep", 600])
        until(lambda: has_written(note, "start"))
        watch(3 * LEASE, lambda: queue.fetch(timeout=0.1) == [], "a false rescue")
        elsewhere.kill()
        looks = WorkerReads(queue)
        [task] = queue.fetch(timeout=60)
        assert [attempt.outcome for attempt in task.attempts()] == ["lost"]
        assert looks.count <= WorkerReads.until_rescued(LEASE), "not within a lease and one check"


def test_an_interpreter_lock_held_elsewhere_is_not_silence(url, elsewhere, note):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["hold", 3 * LEASE])
        until(lambda: has_written(note, "start"))
        until(
            lambda: queue.fetch(timeout=0.1) != [] or has_written(note, "end"), within=120, what="the end of the task"
        )
        assert task.get_result(timeout=30) == "hold"
        assert task.attempt == 1


def test_an_interpreter_lock_held_by_a_fetch_user_elsewhere_is_not_silence(url, start):
    need_namespaces()
    with TaskQueue(url) as queue:
        task = queue.enqueue(1)
        place = Elsewhere(start, FETCHER, url, LEASE, 3 * LEASE)
        assert place.process.stdout.readline() == "start\n"
        until(lambda: queue.fetch(timeout=0.1) != [] or task.refresh().state == "done", within=120)
        assert task.get_result(timeout=30) == "held"
        assert task.attempt == 1


def test_a_worker_frozen_elsewhere_is_fenced_after_it_thaws(url, elsewhere, note):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["sleep", 5])  # it is frozen before its end, also on a busy machine
        until(lambda: has_written(note, "start"))
        elsewhere.signal(signal.SIGSTOP)
        [taken] = queue.fetch(timeout=30)
        assert taken.id == task.id
        with taken:
            taken.result = "ours"
        elsewhere.signal(signal.SIGCONT)
        until(lambda: has_written(note, "end"), what="the end of the late run")
        again = queue.enqueue(["sleep", 0])
        assert again.get_result(timeout=30) == "sleep", "the thawed worker continues as a new worker"
        assert task.refresh().result == "ours"
        assert [attempt.outcome for attempt in task.attempts()] == ["lost", "done"]

"""The heartbeat process sends heartbeats for as long as its worker exists, and no longer."""

from __future__ import annotations

import os
import signal

import pytest
from helpers import until
from workers import has_written, heartbeat_process_of, is_running

from dbtaskqueue import TaskQueue


@pytest.mark.elsewhere("psutil", "none")
def test_a_heartbeat_process_that_dies_is_started_again(url, worker, note):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["sleep", 4])
        process = worker(lease=1)
        until(lambda: has_written(note, "start"))
        first = heartbeat_process_of(process.pid)
        os.kill(first, signal.SIGKILL)
        until(lambda: heartbeat_process_of(process.pid) != first, what="another heartbeat process")
        assert task.get_result(timeout=30) == "sleep"
        assert task.attempt == 1


@pytest.mark.elsewhere("psutil", "none")
def test_the_heartbeat_process_ends_with_its_worker(url, worker):
    TaskQueue(url).close()
    process = worker()
    heartbeat = heartbeat_process_of(process.pid)
    process.kill()
    process.wait()
    until(lambda: not is_running(heartbeat), what="the heartbeat process's end")


def test_the_heartbeat_process_ends_although_a_child_inherited_its_pipe(url, worker, note):
    with TaskQueue(url) as queue:
        queue.enqueue(["fork", 600])
        process = worker()
        until(lambda: has_written(note, "child"))
        child = int(next(line for line in note.read_text().splitlines() if line.startswith("child")).split()[1])
        heartbeat = heartbeat_process_of(process.pid)
        process.kill()
        process.wait()
        try:
            until(lambda: not is_running(heartbeat), what="the heartbeat process's end")
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_worker_that_stops_leaves_no_process_and_no_row(url, worker):
    with TaskQueue(url) as queue:
        process = worker()
        heartbeat = heartbeat_process_of(process.pid)
        until(lambda: queue.stats().workers == 1)
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert not is_running(heartbeat)
        assert queue.stats().workers == 0

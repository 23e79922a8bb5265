"""4 producers, 4 workers and 20,000 tasks. The oracle is the files that the processes write, not the database."""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path

import pytest
from helpers import spawn, until
from processes.oracle import WORKER, lines, runs_of

from dbtaskqueue import TaskQueue

PROCESSES = 4

PRODUCER = """
import os, sys
from dbtaskqueue import RetryPolicy, TaskQueue
queue = TaskQueue(sys.argv[1], retry=RetryPolicy(delay=0.05, max_attempts=None))
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
left = int(sys.argv[3])
while left > 0:
    size = min(left, 1 + left % 50)
    tasks = queue.enqueue_many(list(range(size)))
    os.write(log, "".join(f"{task.id}\\n" for task in tasks).encode())
    left -= size
queue.close()
"""


@pytest.fixture
def count(request):
    """The number of tasks."""
    return 20_000 if request.config.option.all_engines else 4_000


def all_done(queue: TaskQueue, acknowledged: Path) -> bool:
    stats = queue.stats()
    return stats.done >= len(lines(acknowledged)) and stats.pending + stats.failed + stats.reserved + stats.running == 0


def test_each_task_is_done_exactly_once_if_no_process_dies(url, tmp_path, started, count):
    acknowledged, log = tmp_path / "acknowledged", tmp_path / "runs"
    with TaskQueue(url) as queue:
        workers = [spawn(WORKER, url, log) for _ in range(PROCESSES)]
        producers = [spawn(PRODUCER, url, acknowledged, count // PROCESSES) for _ in range(PROCESSES)]
        started += workers + producers
        for producer in producers:
            assert producer.wait(timeout=120) == 0, producer.communicate()
        until(lambda: all_done(queue, acknowledged), within=120, what="the end of all tasks")
        for worker in workers:
            worker.terminate()
            assert worker.wait(timeout=60) == 0
        ids = {int(line) for line in lines(acknowledged)}
        assert len(ids) == count
        runs = runs_of(log)
        assert set(runs) == ids
        assert all(len(each) == 1 and each[0].end for each in runs.values())
        assert queue.stats().done == count
        assert queue.stats().workers == 0


def test_nothing_is_lost_and_no_two_runs_overlap_under_sigkill(url, tmp_path, started, count):
    acknowledged, log = tmp_path / "acknowledged", tmp_path / "runs"
    killed: dict[int, int] = {}
    with TaskQueue(url) as queue:
        workers = [spawn(WORKER, url, log) for _ in range(PROCESSES)]
        producers = [spawn(PRODUCER, url, acknowledged, count // PROCESSES) for _ in range(PROCESSES)]
        started += workers + producers
        deadline = time.monotonic() + 200
        for victim in itertools.count():
            producing = any(producer.poll() is None for producer in producers)
            if not producing and len(killed) >= 8 and all_done(queue, acknowledged):
                break
            assert time.monotonic() < deadline, f"not done in time: {queue.stats()}"
            time.sleep(random.uniform(0.1, 0.5))
            if producing or len(killed) < 20:
                worker = workers[victim % PROCESSES]
                killed[worker.pid] = time.monotonic_ns()
                worker.kill()
                worker.communicate()
                workers[victim % PROCESSES] = spawn(WORKER, url, log)
                started.append(workers[victim % PROCESSES])
        ids = {int(line) for line in lines(acknowledged)}
        assert len(ids) == count
        runs = runs_of(log)
        assert ids <= set(runs), "an accepted task never ran"
        for task, each in runs.items():
            for earlier, later in itertools.pairwise(each):
                over = earlier.end if earlier.end is not None else killed[earlier.pid]
                assert later.start >= over, f"two runs of task {task} overlap"
                assert later.token > earlier.token
                assert earlier.pid in killed, f"task {task} ran again although its worker was alive"
        assert queue.stats().done == count


def test_tasks_that_a_killed_producer_got_acknowledged_exist(url, tmp_path, started):
    acknowledged = tmp_path / "acknowledged"
    producers = [spawn(PRODUCER, url, acknowledged, 10**6) for _ in range(PROCESSES)]
    started += producers
    for producer in producers:
        enough = len(lines(acknowledged)) + 200
        until(lambda enough=enough: len(lines(acknowledged)) >= enough, what="some acknowledged tasks")
        os.kill(producer.pid, 9)
    for producer in producers:
        producer.communicate()
    with TaskQueue(url) as queue:
        # the last line of a killed producer may be incomplete
        for line in lines(acknowledged):
            assert queue.get(int(line)).state == "pending"

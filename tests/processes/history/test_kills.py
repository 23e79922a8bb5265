"""Workers that are killed: the history has every attempt at most once, and lacks at most those of the last 10 s.

Workers that stop: it has all of them. The oracle is the table of attempts. Attempts that were lost with a worker are
counted by its rescuer, exactly.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter

from attempts import in_history, in_tables
from helpers import python_path, spawn, until

from dbtaskqueue import TaskQueue

WORKER = """
import sys, time
from dbtaskqueue import AbandonTask, ReleaseTask, RetryPolicy, TaskQueue, Worker
from dbtaskqueue._maintenance.attempt_history import AttemptHistory
AttemptHistory.interval = float(sys.argv[2])
queue = TaskQueue(sys.argv[1])
def work(number):
    if number % 20 == 3:
        raise ValueError(number)
    if number % 20 == 5:
        raise AbandonTask("never")
    if number % 20 == 7:
        raise ReleaseTask(0.5)
    if number % 20 == 9:
        time.sleep(0.2)
print("ready", flush=True)
Worker(queue, concurrency=2).run(work)
"""
FETCHER = """
import signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
from dbtaskqueue import TaskQueue
from dbtaskqueue._maintenance.attempt_history import AttemptHistory
AttemptHistory.interval = float(sys.argv[2])
with TaskQueue(sys.argv[1]) as queue:
    print("ready", flush=True)
    for task in queue:
        task.start()
        task.finish()
"""

Process = subprocess.Popen[str]


def start(code: str, url: str, interval: float) -> Process:
    process = spawn(code, url, interval, PYTHONPATH=python_path())
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def stop(process: Process, how: signal.Signals = signal.SIGTERM) -> str:
    """Stop a process and return its error output."""
    process.send_signal(how)
    return process.communicate(timeout=60)[1]


def ended(url: str) -> int:
    return in_tables(url).total()


def test_killed_workers_are_never_counted_too_high(queue: TaskQueue, url: str) -> None:
    dice = random.Random(1)
    queue.enqueue_many(range(400), max_attempts=3)
    processes = [start(code, url, 0.2) for code in (WORKER, WORKER, FETCHER)]
    try:
        for kill in range(6):
            before = ended(url)
            until(lambda before=before: ended(url) > before or not queue.stats().pending, within=60)
            time.sleep(dice.random() * 0.4)  # a random moment, also in the middle of a write
            stop(processes.pop(0), signal.SIGKILL)
            queue.enqueue_many(range(400, 500), max_attempts=3)
            processes.append(start(FETCHER if kill % 3 == 2 else WORKER, url, 0.2))
            counted, stored = in_history(queue), in_tables(url)
            assert counted <= stored, "an attempt was counted before or without its end"
            assert counted["lost"] == stored["lost"], "what rescuers count is exact"
        until(lambda: queue.stats().running == 0 and queue.stats().pending < 60, within=60)
    finally:
        for process in processes:
            stop(process)
    counted, stored = in_history(queue), in_tables(url)
    assert counted <= stored
    assert counted["lost"] == stored["lost"]
    assert counted.total() >= stored.total() * 0.5, "most attempts did not end right before a kill"


def test_several_workers_that_stop_are_exact(queue: TaskQueue, url: str) -> None:
    processes = [start(code, url, 10) for code in (FETCHER, WORKER, WORKER)]
    try:
        until(lambda: queue.stats().workers == 3, within=60)  # or one of them may be done before another starts
        queue.enqueue_many(range(300), max_attempts=2)
        until(lambda: queue.stats().pending < 40, within=90)
    finally:
        errors = [stop(process) for process in processes]
    counted = in_history(queue)
    assert counted == in_tables(url), errors
    assert counted["done"] > 100
    writers = Counter(row.worker for row in queue.store.history(0) if row.worker)
    assert len(writers) >= 2, "each process has rows of its own"


def test_a_busy_fetch_user_that_is_interrupted_is_exact(queue: TaskQueue, url: str) -> None:
    """Its signal handler raises SystemExit at a random moment: in most cases while it waits for the database."""
    dice = random.Random(1)
    queue.enqueue_many(range(3000))
    for _ in range(4):
        before = ended(url)
        process = start(FETCHER, url, 10)
        try:
            until(lambda before=before: ended(url) > before + 10, within=90)
            time.sleep(dice.random() * 0.05)  # a random moment
        finally:
            errors = stop(process)
        assert in_history(queue) == in_tables(url), errors

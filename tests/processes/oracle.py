"""The oracle: files in which producers and workers record what they do, independent of the database."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from helpers import spawn, until

from dbtaskqueue import StoreUnavailable, Task, TaskQueue

Process = subprocess.Popen[str]

WORKER = """
import logging, os, sys, time
from dbtaskqueue import Worker, current_task
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def work(number):
    task = current_task()
    def note(what):
        os.write(log, f"{what} {task.id} {task.token} {os.getpid()} {time.monotonic_ns()}\\n".encode())
    note("start")
    if number % 40 == 7:
        time.sleep(0.002)
    note("end")
Worker(sys.argv[1]).run(work)
"""


class Run(NamedTuple):
    """One execution of a task, as recorded by its worker; ``end`` is None if the worker was killed during it."""

    start: int
    end: int | None
    token: int
    pid: int


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def runs_of(path: Path) -> dict[int, list[Run]]:
    """Return every execution of each task, in the order of their starts."""
    open_runs: dict[tuple[int, int], Run] = {}
    for line in lines(path):
        what, task, token, pid, moment = line.split()
        key = int(task), int(token)
        if what == "start":
            assert key not in open_runs, f"task {task} ran twice under one token"
            open_runs[key] = Run(int(moment), None, int(token), int(pid))
        else:
            open_runs[key] = open_runs[key]._replace(end=int(moment))
    runs = defaultdict(list)
    for (task, _), run in open_runs.items():
        runs[task].append(run)
    return {task: sorted(each) for task, each in runs.items()}


PRODUCER = """
import os, sys, time
from dbtaskqueue import StoreUnavailable, TaskQueue
url, file, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(what, pairs):
    os.write(log, "".join(f"{what} {number} {id}\\n" for number, id in pairs).encode())
queue = TaskQueue(url)
while first < last:
    numbers = list(range(first, min(last, first + 1 + first % 50)))
    try:
        tasks = queue.enqueue_many(numbers)
    except StoreUnavailable as gone:
        note("doubt" if gone.maybe_done else "refused", [(number, 0) for number in numbers])
        time.sleep(0.01)
        continue
    note("accepted", [(number, task.id) for number, task in zip(numbers, tasks)])
    first += len(numbers)
queue.close()
"""

UNAVAILABLE, AVAILABLE_AGAIN = "database unavailable", "database available again"


class Crowd:
    """Producers that repeat each number below ``tasks`` until it is acknowledged, and workers."""

    def __init__(self, url: str, directory: Path, started: list[Process], *, tasks: int, processes: int) -> None:
        self._url = url
        self._tasks = tasks
        self._told, self._log = directory / "told", directory / "runs"
        with TaskQueue(url):
            pass
        bounds = [tasks * number // processes for number in range(processes + 1)]
        pairs = itertools.pairwise(bounds)
        self._producers = [spawn(PRODUCER, url, self._told, first, last) for first, last in pairs]
        self._workers = [spawn(WORKER, url, self._log) for _ in range(processes)]
        started += self._producers + self._workers
        with TaskQueue(url) as queue:  # a worker that starts while the server is unavailable ends with an error
            until(lambda: self._failed() or queue.stats().workers == processes, what="all workers")
        until(lambda: self._failed() or all(self._has_started(first) for first in bounds[:-1]), what="all producers")

    def _has_started(self, first: int) -> bool:
        return any(line.split()[1] == str(first) for line in lines(self._told))

    def await_accepted(self, share: float) -> None:
        """Wait until this fraction of all tasks is accepted."""
        enough = share * self._tasks
        until(lambda: self._accepted() >= enough or self._failed(), within=60, what=f"{enough} accepted tasks")

    def _accepted(self) -> int:
        return sum(line.startswith("accepted") for line in lines(self._told))

    def _failed(self) -> bool:
        for process in (*self._producers, *self._workers):
            assert not process.poll(), process.communicate()[1]
        return False

    def finish(self, outages: int) -> None:
        """Wait until all tasks are done; check that none was lost or ran twice, and that each outage logged 2 lines."""
        for producer in self._producers:
            assert producer.wait(timeout=60) == 0, producer.communicate()
        with TaskQueue(self._url) as queue:
            until(lambda: self._is_through(queue), within=60, what="the end of all tasks")
            logs = [self._stopped(worker) for worker in self._workers]
            self._check(queue)
        for text in logs:  # a worker that asks nothing during a short outage does not notice it
            assert text.count(UNAVAILABLE) == text.count(AVAILABLE_AGAIN) <= outages, text
            assert "Traceback" not in text, text
        assert any(UNAVAILABLE in text for text in logs)

    @staticmethod
    def _is_through(queue: TaskQueue) -> bool:
        try:
            stats = queue.stats()
        except StoreUnavailable:
            return False
        return stats.pending + stats.failed + stats.reserved + stats.running == 0

    @staticmethod
    def _stopped(worker: Process) -> str:
        worker.terminate()
        _, text = worker.communicate(timeout=60)
        assert worker.returncode == 0, text
        return text

    def _check(self, queue: TaskQueue) -> None:
        words = [line.split() for line in lines(self._told)]
        ids = {int(id): int(number) for what, number, id in words if what == "accepted"}
        doubts = Counter(int(number) for what, number, _ in words if what == "doubt")
        assert sorted(ids.values()) == list(range(self._tasks)), "not one acknowledgement for each task"
        runs = runs_of(self._log)
        assert set(ids) <= set(runs), "an accepted task never ran"
        twice = {task: each for task, each in runs.items() if len(each) != 1 or not each[0].end}
        assert not twice, "a task ran twice although no worker died"
        tasks = _all_tasks(queue)
        assert {task.id for task in tasks} == set(runs), "the tasks that exist are those that ran"
        assert {(task.state, task.attempt) for task in tasks} == {("done", 1)}, "a crash of the server cost an attempt"
        doubles = Counter(task.payload for task in tasks if task.id not in ids)
        assert all(doubles[number] <= doubts[number] for number in doubles), "a refused task exists"


def _all_tasks(queue: TaskQueue) -> list[Task]:
    tasks: list[Task] = []
    while more := queue.tasks(limit=5000, before=tasks[-1].id if tasks else None):
        tasks += more
    return tasks

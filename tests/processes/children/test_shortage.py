"""File descriptors or processes run out while children are started: running tasks continue, the others wait."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import child_tasks
import pytest
from child_tasks import lines
from helpers import Background, until
from processes.children.supervised import environment

from dbtaskqueue import RetryPolicy, Task, TaskQueue, Worker
from dbtaskqueue._executors.process.child_handle import ChildHandle
from dbtaskqueue._executors.process.resources import PER_CHILD

pytestmark = pytest.mark.engine("sqlite")

ONCE = RetryPolicy(max_attempts=1)
TASKS = 20
WORKER = """
import logging, resource, sys
from processes.children.few_processes import act
from dbtaskqueue import Worker
from dbtaskqueue._executors.process import executor
executor._GIVE_UP = 0.5  # a shortage may last longer
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[3])))
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
worker = Worker(sys.argv[1], executor="process", concurrency=20, drain_timeout=0, cancel_grace=2)
worker.run(act, burst=True)
"""


class Running:
    """A worker process that runs until all tasks are done, and what it has logged."""

    def __init__(self, url: str, directory: Path, soft: int, hard: int) -> None:
        self._log = directory / "log"
        command = [sys.executable, "-c", WORKER, url, str(soft), str(hard)]
        variables = {**environment(directory), "FEW_PROCESSES": str(directory / "few")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=variables)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def count(self, text: str) -> int:
        """The number of lines in the log that have this text."""
        return sum(text in line for line in self.log.splitlines())


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Callable[[int, int], Running]]:
    """Start a worker with these soft and hard limits of open files; it is killed at the end of the test."""
    started: list[Running] = []

    def run(soft: int, hard: int) -> Running:
        started.append(Running(url, tmp_path, soft, hard))
        return started[-1]

    yield run
    for worker in started:
        worker.process.kill()
        worker.process.wait()


@pytest.fixture
def tasks(queue: TaskQueue, tmp_path: Path) -> list[Task]:
    """Enqueue tasks that wait for the file ``go``."""
    wait = {"do": "wait_for", "file": str(tmp_path / "notes"), "go": str(tmp_path / "go")}
    return [queue.enqueue(wait, retry=ONCE) for _ in range(TASKS)]


def started_tasks(tmp_path: Path) -> int:
    return len(lines(tmp_path / "notes"))


def states(tasks: list[Task]) -> tuple[int, int, int]:
    """The numbers of tasks that wait, run and are done."""
    count = Counter(str(task.refresh().state) for task in tasks)
    assert count.keys() <= {"pending", "running", "done"}
    return count["pending"], count["running"], count["done"]


def finish(worker: Running, tasks: list[Task], tmp_path: Path) -> None:
    """Let all tasks finish; check that each has spent exactly one attempt."""
    (tmp_path / "go").touch()
    assert worker.process.wait(60) == 0, worker.log
    assert states(tasks) == (0, 0, TASKS)
    assert {task.refresh().attempt for task in tasks} == {1}


def test_too_many_open_files(start: Callable[[int, int], Running], tasks: list[Task], tmp_path: Path) -> None:
    worker = start(80, 80)
    until(lambda: "no more child processes can be started" in worker.log, what="the error in the log")
    until(lambda: states(tasks)[1] == started_tasks(tmp_path) > 0, what="the release of what has no child")
    waiting, running, _ = states(tasks)
    assert waiting == TASKS - running > 0
    assert {task.refresh().attempt for task in tasks if task.refresh().state == "pending"} == {0}
    [warning] = [line for line in worker.log.splitlines() if "limit of open files is too low" in line]
    assert "limit=80 " in warning
    assert "concurrency=20 " in warning
    assert "ulimit -n" in warning
    finish(worker, tasks, tmp_path)
    assert worker.count("no more child processes") == 1


def test_the_soft_limit_is_raised_for_the_worker_but_not_for_its_children(
    start: Callable[[int, int], Running], queue: TaskQueue, tasks: list[Task], tmp_path: Path
) -> None:
    worker = start(80, 4096)
    until(lambda: started_tasks(tmp_path) == TASKS, what="the start of all tasks")
    limit = queue.enqueue({"do": "open_files_limit"}, retry=ONCE)
    (tmp_path / "go").touch()
    assert worker.process.wait(60) == 0
    assert limit.refresh().result == 80
    assert worker.log == ""


def test_no_more_processes(start: Callable[[int, int], Running], tasks: list[Task], tmp_path: Path) -> None:
    (tmp_path / "few").write_text("3")
    worker = start(4096, 4096)
    until(lambda: started_tasks(tmp_path) == 3, what="the start of three tasks")
    until(lambda: states(tasks) == (TASKS - 3, 3, 0), what="the release of what has no child")
    assert "pids limit" in worker.log
    (tmp_path / "few").write_text("5")
    until(lambda: states(tasks) == (TASKS - 5, 5, 0), what="two more tasks")
    released = [attempt for task in tasks for attempt in task.attempts() if attempt.outcome == "released"]
    assert len(released) <= TASKS  # no task is claimed repeatedly while no child can be started
    (tmp_path / "few").unlink()
    until(lambda: states(tasks) == (0, TASKS, 0), what="the start of all tasks")
    until(lambda: worker.count("can be started again") == 1, what="the end of the shortage in the log")
    finish(worker, tasks, tmp_path)
    assert worker.count("no more child processes") == 1


def test_no_process_at_all(start: Callable[[int, int], Running], tasks: list[Task], tmp_path: Path) -> None:
    (tmp_path / "few").write_text("0")
    worker = start(4096, 4096)
    until(lambda: "no more child processes" in worker.log, what="the error in the log")
    until(lambda: states(tasks) == (TASKS, 0, 0), what="the release of all tasks")
    (tmp_path / "few").unlink()
    finish(worker, tasks, tmp_path)


def test_too_many_descriptors_in_flight(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux refuses to send descriptors while this user has too many that were sent and not yet received."""
    refused, send_fds = [], socket.send_fds

    def refuse_three_times(*arguments: Any) -> int:
        if len(refused) < 3:
            refused.append(arguments)
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return send_fds(*arguments)

    monkeypatch.setattr(socket, "send_fds", refuse_three_times)
    task = queue.enqueue({"do": "return", "value": 1}, retry=ONCE)
    worker = Worker(queue, executor="process", drain_timeout=0)
    running = Background(lambda: worker.run(child_tasks.act))
    try:
        until(lambda: task.refresh().state == "done", what="the end of the task")
    finally:
        worker.stop()
        running.join()
    assert len(refused) == 3


def test_how_many_descriptors_a_child_takes() -> None:
    before = set(os.listdir("/proc/self/fd"))
    child = ChildHandle(1)
    child.close_theirs()
    assert len(set(os.listdir("/proc/self/fd")) - before) == PER_CHILD
    child.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_child_handle_that_cannot_be_made_leaves_nothing_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = set(os.listdir("/proc/self/fd"))
    highest = max(map(int, fds))
    try:
        for room in range(1, 8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, before[1]))
            try:
                child = ChildHandle(1)
            except OSError:
                continue
            child.close_theirs()
            child.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert set(os.listdir("/proc/self/fd")) == fds

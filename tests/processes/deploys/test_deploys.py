"""Workers are replaced while they run tasks, as in a deploy: ``dbtaskqueue worker`` with a process for each task.

``pytest tests/processes/deploys --deploy-task-seconds=20`` has tasks of a realistic length.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_tasks import lines
from helpers import python_path, until

from dbtaskqueue import Task, TaskQueue

pytestmark = pytest.mark.one_engine("a deploy depends on processes, not on SQL")

TASKS, WORKERS, ROUNDS = 30, 3, 5
STEP = 0.05
WITHIN = 60.0


class Workers:
    """Worker processes by name. All descendants of a worker have its name in their environment."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._mark = uuid.uuid4().hex
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start ``dbtaskqueue worker``, with these options."""
        words = ["-m", "dbtaskqueue", "--url", self._url, "worker", "child_tasks:act", *options]
        with open(self._directory / f"log {name}", "wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": python_path(), "DEPLOYED_AS": f"{self._mark}-{name}"},
            )
        return self._processes[name]

    def log(self, name: str) -> str:
        return (self._directory / f"log {name}").read_text()

    def left(self, name: str) -> list[int]:
        """The pids of a worker and its descendants that exist, without zombies."""
        mark = f"DEPLOYED_AS={self._mark}-{name}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def stop(self, name: str) -> None:
        """Send SIGTERM to a worker."""
        self._processes[name].terminate()

    def drained(self, name: str) -> None:
        """Wait for the orderly end of a worker that was asked to stop; check that no process of it is left."""
        assert self._processes[name].wait(WITHIN) == 0, self.log(name)
        assert self.left(name) == []
        assert "Traceback" not in self.log(name), self.log(name)

    def kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def workers(url: str, tmp_path: Path) -> Iterator[Workers]:
    found = Workers(url, tmp_path)
    yield found
    found.kill_all()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file in which tasks record each step before they store it as their checkpoint."""
    return tmp_path / "notes"


def outcomes(task: Task) -> list[str | None]:
    return [attempt.outcome for attempt in task.attempts()]


def test_a_rolling_deploy(url: str, workers: Workers, file: Path, request: pytest.FixtureRequest) -> None:
    """Three workers are each replaced five times; of 30 tasks with many small steps, half ignore the drain."""
    steps = round(float(request.config.getoption("--deploy-task-seconds")) / STEP)
    options = ["--concurrency", "2", "--drain-timeout", "0.3", "--log-level", "warning"]
    gate = file.with_name("over")
    with TaskQueue(url) as queue:
        payload = {"do": "deployed", "file": str(file), "gate": str(gate), "steps": steps, "seconds": STEP}
        tasks = [queue.enqueue({**payload, "looks": bool(n % 2)}, max_attempts=1) for n in range(TASKS)]
        names = [f"{slot}.0" for slot in range(WORKERS)]
        for name in names:
            workers.start(name, *options)
        for number in range(1, ROUNDS + 1):
            for slot in range(WORKERS):
                old, new = names[slot], f"{slot}.{number}"
                share = ((number - 1) * WORKERS + slot) / (WORKERS * ROUNDS + 5)
                await_work(file, old, share * TASKS * steps)
                workers.start(new, *options)
                workers.stop(old)
                workers.drained(old)
                names[slot] = new
        gate.touch()
        until(lambda: has_ended(queue), within=WITHIN + 20 * steps * STEP, what="the end of all tasks")
        for name in names:
            workers.stop(name)
            workers.drained(name)
        assert queue.stats().workers == 0
        done = [task.refresh() for task in tasks]
        assert {(task.state, task.attempt, task.result) for task in done} == {("done", 1, steps)}
        ends = [outcomes(task) for task in done]
        assert all(each == ["released"] * (len(each) - 1) + ["done"] for each in ends)
        assert sum(map(len, ends)) >= TASKS + WORKERS * ROUNDS, "each worker that was replaced has released something"
    for task in done:
        check_steps(file, task, steps)


def has_ended(queue: TaskQueue) -> bool:
    stats = queue.stats()
    return stats.pending + stats.reserved + stats.running == 0


def await_work(file: Path, name: str, steps: float) -> None:
    """Wait until this worker has done something, and all workers together this many steps."""

    def is_done() -> bool:
        return any(line.split()[0].endswith(f"-{name}") for line in lines(file)) and progress(file) >= steps

    until(is_done, within=WITHIN + steps, what=f"work of {name}")


def progress(file: Path) -> int:
    return len({tuple(line.split()[1:]) for line in lines(file)})


def check_steps(file: Path, task: Task, steps: int) -> None:
    """Check that each step was done, and that only a step without a stored checkpoint was repeated."""
    done: dict[str, list[int]] = defaultdict(list)
    for line in lines(file):
        _, id, step = line.split()
        done[id].append(int(step))
    mine = done[str(task.id)]
    assert sorted(set(mine)) == list(range(steps))
    for before, after in itertools.pairwise(mine):
        assert after in (before, before + 1), f"task {task.id}: step {after} after step {before}"


def test_a_second_signal_releases_immediately(url: str, workers: Workers, file: Path) -> None:
    with TaskQueue(url) as queue:
        task = queue.enqueue({"do": "ignore_the_drain", "file": str(file)})
        worker = workers.start("only", "--drain-timeout", "1h")
        until(lambda: lines(file) == ["started"])
        worker.send_signal(signal.SIGTERM)
        until(lambda: lines(file) == ["started", "told"], what="a task that has noticed the drain")
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        workers.drained("only")
        assert (task.refresh().state, task.attempt, outcomes(task)) == ("pending", 0, ["released"])
        assert queue.stats().workers == 0


def test_a_killed_worker_leaves_its_checkpoints_and_nothing_else(url: str, workers: Workers, file: Path) -> None:
    payload = {"do": "deployed", "file": str(file), "gate": "/", "steps": 60, "seconds": STEP, "looks": True}
    with TaskQueue(url) as queue:
        tasks = [queue.enqueue(payload) for _ in range(2)]
        family = queue.enqueue({"do": "family", "file": str(file.with_name("family"))}, max_attempts=1)
        killed = workers.start("killed", "--concurrency", "3")
        until(lambda: all(len(noted(file, task)) > 3 for task in tasks), what="tasks that have done some steps")
        until(lambda: lines(file.with_name("family")), what="a task that has started processes")
        killed.kill()
        killed.wait()
        until(lambda: workers.left("killed") == [], what="the end of all processes of the killed worker")
        workers.start("next", "--concurrency", "2")
        until(lambda: all(task.refresh().state == "done" for task in tasks), within=WITHIN, what="the end of the tasks")
        assert family.refresh().state == "abandoned"
        for task in tasks:
            assert outcomes(task) == ["lost", "done"]
            steps = noted(file, task)
            repeated = len(steps) - len(set(steps))
            assert sorted(set(steps)) == list(range(60))
            assert repeated <= 1, "at most the step whose checkpoint was not stored yet"
            assert steps == sorted(steps)


def noted(file: Path, task: Task) -> list[int]:
    return [int(line.split()[2]) for line in lines(file) if line.split()[1] == str(task.id)]

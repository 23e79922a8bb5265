"""Each tick makes exactly one task, however many workers there are, and however often they are killed.

The referee is a file to which every run of a task appends a line. What a killed worker has not ended runs again, so the
referee counts the different tasks of each tick. By default there are 4 workers for 8 s; ``--tick-seconds 600`` with 8
workers is the full size. The same test must fail for wrong designs: it does for the twins of ``worker.py``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import execute
from helpers import python_path, until

from dbtaskqueue import TaskQueue, Worker

WORKER = Path(__file__).with_name("worker.py")
SCHEDULES = 100
FEW = 10
"""Schedules for the wrong designs, whose many tasks must run soon."""


class Fleet:
    """Worker processes, of which one is killed and replaced now and then."""

    def __init__(self, url: str, directory: Path, size: int, twin: str = "") -> None:
        self._command = [sys.executable, str(WORKER), url, str(directory)]
        self._environment = {**os.environ, "PYTHONPATH": python_path(), "TWIN": twin}
        self._errors = directory / "errors"
        self.processes = [self._start() for _ in range(size)]

    def _start(self) -> subprocess.Popen[bytes]:
        with self._errors.open("ab") as errors:
            return subprocess.Popen(self._command, env=self._environment, stderr=errors)

    def kill_one(self, queue: TaskQueue) -> None:
        """Kill a worker that has joined, with SIGKILL, and start another one."""
        joined = {worker.pid for worker in queue.workers()}
        victims = [index for index, process in enumerate(self.processes) if process.pid in joined]
        if len(victims) > 1:
            index = random.choice(victims)
            self._kill(self.processes[index])
            self.processes[index] = self._start()

    def stop(self) -> None:
        """Kill all of them."""
        for process in self.processes:
            self._kill(process)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """Return for how long the workers run."""
    return float(request.config.option.tick_seconds)


@pytest.fixture
def size(seconds: float) -> int:
    """Return the number of workers."""
    return 4 if seconds < 20 else 8


@pytest.fixture
def fleets() -> Iterator[list[Fleet]]:
    """The fleets of the test; all their processes are killed at its end."""
    started: list[Fleet] = []
    yield started
    for fleet in started:
        fleet.stop()


def runs(directory: Path) -> dict[tuple[str, int], set[int]]:
    """Return what the referee has seen: the tasks of each tick."""
    found: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    log = directory / "log"
    for line in log.read_text().splitlines() if log.exists() else ():
        schedule, at, task = line.split()
        found[schedule, int(at)].add(int(task))
    return found


def judge(queue: TaskQueue, directory: Path) -> list[str]:
    """Return what is wrong."""
    wrong = []
    ran = runs(directory)
    wrong += [f"tick {tick} has made the tasks {sorted(tasks)}" for tick, tasks in ran.items() if len(tasks) > 1]
    rows: defaultdict[str, dict[int, tuple[str, int | None, int]]] = defaultdict(dict)
    for schedule, at, outcome, task, missed in execute(
        queue.url, "SELECT schedule, at, outcome, task, missed FROM dbtaskqueue_tick"
    ):
        rows[schedule][at // 1_000_000] = (outcome, task, missed)
    for schedule, ticks in rows.items():
        for at, (outcome, task, _) in ticks.items():
            if outcome == "ran" and ran.get((schedule, at)) != {task}:
                wrong.append(f"tick {schedule} {at} has the task {task}, and these ran: {ran.get((schedule, at))}")
        moments = sorted(
            each for at, (_, _, missed) in ticks.items() for each in range(at - max(0, missed - 1), at + 1)
        )
        if moments != list(range(moments[0], moments[-1] + 1)):
            wrong.append(f"{schedule} has ticks without a row, or with two: {moments}")
    wrong += [f"tick {tick} has no row" for tick in ran if tick[1] not in rows[tick[0]]]
    return wrong


def scenario(queue: TaskQueue, directory: Path, fleet: Fleet, seconds: float) -> None:
    """Let the workers make ticks while one of them is killed each second. Then run all tasks that are left."""
    until(lambda: runs(directory), what="the first tick")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        fleet.kill_one(queue)
    for schedule in queue.schedules():
        queue.unschedule(schedule.name)
    until(lambda: not any(queue.store.count("default", final=False).values()), within=120, what="every task's end")
    fleet.stop()


def prepare(queue: TaskQueue, schedules: int = SCHEDULES) -> None:
    for number in range(schedules):
        queue.schedule(f"s{number}", number, every=1, overlap="allow")


def test_each_tick_makes_one_task_under_kills(
    queue: TaskQueue, tmp_path: Path, fleets: list[Fleet], seconds: float, size: int
) -> None:
    prepare(queue)
    fleets.append(fleet := Fleet(queue.url, tmp_path, size))
    scenario(queue, tmp_path, fleet, seconds)
    assert judge(queue, tmp_path) == []
    assert len(runs(tmp_path)) > SCHEDULES


def test_a_wrong_design_fails_in_the_same_test(queue: TaskQueue, tmp_path: Path, fleets: list[Fleet]) -> None:
    """Without the compare-and-set and without the tick's row, workers that see the same tick all make it."""
    prepare(queue, FEW)
    fleets.append(fleet := Fleet(queue.url, tmp_path, 4, twin="neither"))
    until(lambda: any(len(tasks) > 1 for tasks in runs(tmp_path).values()), what="a tick with two tasks")
    fleet.stop()
    assert any("has made the tasks" in line for line in judge(queue, tmp_path))


@pytest.mark.parametrize("twin", ["no compare-and-set", "no row"])
def test_each_of_the_two_guards_suffices_by_itself(
    queue: TaskQueue, tmp_path: Path, fleets: list[Fleet], twin: str
) -> None:
    prepare(queue, FEW)
    fleets.append(fleet := Fleet(queue.url, tmp_path, 3, twin=twin))
    until(lambda: len(runs(tmp_path)) > 5 * FEW, what="some ticks")
    fleet.stop()
    for schedule in queue.schedules():
        queue.unschedule(schedule.name)
    Worker(queue).run(lambda payload: None, burst=True)
    assert [tick for tick, tasks in runs(tmp_path).items() if len(tasks) > 1] == []

"""Tasks that starve their process, on a machine that has no time left: their worker is never robbed.

A worker in a PID namespace of its own, so that only its heartbeat speaks for it, and another one beside it that waits
for its silence. ``--starved-seconds 300`` is the full size.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import until
from processes.children.supervised import TESTS, WORKER, is_heartbeat_process
from workers import Elsewhere, need_namespaces

from dbtaskqueue import Task, TaskQueue

pytestmark = pytest.mark.one_engine("a counter decides, not SQL")

LEASE = 1.0
Start = Callable[[list[str]], "subprocess.Popen[str]"]


@pytest.fixture
def _busy(start: Start) -> None:
    """Others take all CPUs."""
    for _ in range(2 * (os.cpu_count() or 1)):
        start([sys.executable, "-c", "while True: pass"])


@pytest.fixture
def elsewhere(url: str, start: Start) -> Elsewhere:
    """A worker in another place, with children."""
    need_namespaces()
    TaskQueue(url).close()
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{WORKER}"
    return Elsewhere(start, code, url, json.dumps({"lease": LEASE}))


def is_over(queue: TaskQueue, task: Task) -> bool:
    """Whether the task has ended, or this handle could take it."""
    return queue.fetch(timeout=0.1) != [] or task.refresh().finished_at is not None


@pytest.mark.usefixtures("elsewhere")
def test_a_child_that_holds_the_interpreter_for_three_leases(url: str) -> None:
    with TaskQueue(url, lease=LEASE) as queue:
        task = queue.enqueue({"do": "hold_the_interpreter", "seconds": 3 * LEASE})
        until(lambda: task.refresh().state == "running", what="the start of the task")
        until(lambda: is_over(queue, task), within=120, what="the end of the task")
        assert (task.refresh().state, task.result, task.attempt, task.token) == ("done", "done", 1, 1)


@pytest.mark.usefixtures("_busy", "elsewhere")
def test_nine_hours_in_small(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A task of many leases that holds the interpreter half of the time."""
    seconds = float(request.config.getoption("--starved-seconds"))
    with TaskQueue(url, lease=LEASE) as queue:
        task = queue.enqueue({"do": "hold_half", "file": str(tmp_path / "note"), "seconds": seconds})
        until(lambda: task.refresh().state == "running", what="the start of the task")
        until(lambda: is_over(queue, task), within=2 * seconds + 60, what="the end of the task")
        assert (task.refresh().state, task.result, task.attempt, task.token) == ("done", "held", 1, 1)


def test_a_heart_that_is_killed_over_and_over(url: str, elsewhere: Elsewhere) -> None:
    """Until the next one beats, a lease has passed."""
    with TaskQueue(url, lease=LEASE) as queue:
        task = queue.enqueue({"do": "sleep", "seconds": 6 * LEASE})
        until(lambda: task.refresh().state == "running", what="the start of the task")
        killed: set[int] = set()
        while not is_over(queue, task):
            for pid in elsewhere.pids():
                if pid not in killed and is_heartbeat_process(pid) and len(killed) < 4:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        assert len(killed) == 4
        assert (task.refresh().state, task.result, task.attempt, task.token) == ("done", "slept", 1, 1)

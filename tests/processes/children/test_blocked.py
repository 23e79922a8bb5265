"""Tasks that block their process, on a machine without idle CPU time, cause no false rescue.

The worker is in a PID namespace of its own, so that only its heartbeat shows that it is alive. Another worker waits
for its silence. ``--blocked-seconds 300`` is the full size.
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

pytestmark = pytest.mark.one_engine("a counter decides, so the engine does not matter")

LEASE = 1.0
Start = Callable[[list[str]], "subprocess.Popen[str]"]


@pytest.fixture
def _busy(start: Start) -> None:
    """Keep all CPUs busy with other processes."""
    for _ in range(2 * (os.cpu_count() or 1)):
        start([sys.executable, "-c", "while True: pass"])


@pytest.fixture
def elsewhere(url: str, start: Start) -> Elsewhere:
    """Start a worker with children in another place."""
    need_namespaces()
    TaskQueue(url).close()
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{WORKER}"
    return Elsewhere(start, code, url, json.dumps({"lease": LEASE}))


def is_over(queue: TaskQueue, task: Task) -> bool:
    """Whether the task has ended, or this handle could fetch it."""
    return queue.fetch(timeout=0.1) != [] or task.refresh().finished_at is not None


@pytest.mark.usefixtures("elsewhere")
def test_a_child_that_holds_the_interpreter_lock_for_three_leases(url: str) -> None:
    with TaskQueue(url, lease=LEASE) as queue:
        task = queue.enqueue({"do": "hold_the_interpreter", "seconds": 3 * LEASE})
        until(lambda: task.refresh().state == "running", what="the start of the task")
        until(lambda: is_over(queue, task), within=120, what="the end of the task")
        assert (task.refresh().state, task.result, task.attempt, task.token) == ("done", "done", 1, 1)


@pytest.mark.usefixtures("_busy", "elsewhere")
def test_nine_hours_scaled_down(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The task lasts many leases and holds the interpreter lock half of the time."""
    seconds = float(request.config.getoption("--blocked-seconds"))
    with TaskQueue(url, lease=LEASE) as queue:
        task = queue.enqueue({"do": "hold_half", "file": str(tmp_path / "note"), "seconds": seconds})
        until(lambda: task.refresh().state == "running", what="the start of the task")
        until(lambda: is_over(queue, task), within=2 * seconds + 60, what="the end of the task")
        assert (task.refresh().state, task.result, task.attempt, task.token) == ("done", "held", 1, 1)


def test_a_heartbeat_process_that_is_killed_repeatedly(url: str, elsewhere: Elsewhere) -> None:
    """By the first heartbeat of the next process, a lease has passed."""
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

"""The package on systems other than Linux, where it learns about processes from psutil, or not at all.

These tests run on Linux. ``DBTASKQUEUE_SYSTEM`` selects the source for a process and for its descendants.
The docstring of ``_system/psutil_.py`` lists what cannot work there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import child_tasks
import psutil
import pytest
from helpers import ended, python_path, spawn, until

from dbtaskqueue import RetryPolicy, TaskQueue

pytestmark = pytest.mark.engine("sqlite")

TESTS = Path(__file__).parent.parent
HERE = Path(__file__).parent / "elsewhere"
SOURCE = pytest.mark.parametrize("source", ["psutil", "none"])


def environment(source: str) -> dict[str, str]:
    """Return environment variables that make a process believe that this is not Linux."""
    return {"PYTHONPATH": f"{HERE}{os.pathsep}{python_path()}", "DBTASKQUEUE_SYSTEM": source}


WORKER = """
import logging, sys
import child_tasks
from dbtaskqueue import Worker
logging.basicConfig(level=logging.WARNING)
executor = sys.argv[2]
worker = Worker(sys.argv[1], executor=executor, concurrency=4, allow_commands=executor == "process")
worker.run(child_tasks.act_async if executor == "asyncio" else child_tasks.act, burst=True)
print(*(name for name in sys.modules if name.endswith(("_system.linux", "_system.psutil_"))))
"""


@SOURCE
@pytest.mark.parametrize("executor", ["thread", "asyncio", "process"])
def test_a_worker_needs_nothing_that_only_linux_has(queue: TaskQueue, url: str, executor: str, source: str) -> None:
    good = queue.enqueue_many([{"do": "return", "value": number} for number in range(20)])
    bad = queue.enqueue({"do": "raise"}, retry=RetryPolicy(max_attempts=1))
    commands = [queue.enqueue_command(["sh", "-c", "echo hello"])] if executor == "process" else []
    with ended(spawn(WORKER, url, executor, **environment(source))) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.split() == ([] if source == "none" else ["dbtaskqueue._system.psutil_"])
    assert [task.refresh().result for task in good] == list(range(20)), errors
    assert bad.refresh().state == "abandoned"
    assert [task.refresh().state for task in commands] == ["done"] * len(commands), errors


LEFT_ALONE = """
import child_tasks, sys
from dbtaskqueue import Worker
Worker(sys.argv[1], executor="process").run(child_tasks.act)
"""


@SOURCE
def test_a_task_ends_when_its_worker_and_the_fork_server_are_killed(
    queue: TaskQueue, url: str, tmp_path: Path, source: str
) -> None:
    """There is no signal at the end of the parent, so the task's process polls."""
    file = tmp_path / "notes"
    queue.enqueue({"do": "until_told", "file": str(file)})
    with ended(spawn(LEFT_ALONE, url, **environment(source))) as worker:
        [pid] = until(lambda: child_tasks.lines(file))
        task = psutil.Process(int(pid))
        fork_server = task.parent()
        assert fork_server is not None
        fork_server.suspend()  # otherwise it would notice the end of its worker, and kill its children
        worker.kill()
        fork_server.kill()
        until(lambda: not task.is_running() or task.status() == psutil.STATUS_ZOMBIE)


def test_a_memory_limit_without_psutil_is_reported(queue: TaskQueue, url: str) -> None:
    tasks = [queue.enqueue({"do": "sleep", "seconds": 1}, memory_limit=1000) for _ in range(2)]
    with ended(spawn(WORKER, url, "process", **environment("none"))) as process:
        _, errors = process.communicate(timeout=60)
    assert [task.refresh().state for task in tasks] == ["done", "done"]
    assert errors.count("memory limits are not enforced on this system fix=install psutil") == 1


@SOURCE
def test_liveness_executors_and_limits_work(source: str) -> None:
    """The tests with the mark ``elsewhere`` pass on SQLite with this source."""
    files = [path for path in TESTS.rglob("test_*.py") if "pytest.mark.elsewhere(" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "sqlite", "--elsewhere", source]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        [*command, *map(str, files)],
        cwd=TESTS.parent,
        env={**inherited, "DBTASKQUEUE_SYSTEM": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout

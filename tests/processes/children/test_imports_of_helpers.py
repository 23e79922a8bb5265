"""Modules in the current directory are ignored by a worker's helper processes and found by task code."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbtaskqueue import RetryPolicy, TaskQueue

pytestmark = pytest.mark.engine("sqlite", "postgresql", "mariadb")  # each driver has imports of its own

WORKER = """
import asyncio, os, sys, time
import dbtaskqueue._executors.process.executor
from dbtaskqueue import TaskQueue, Worker
queue = TaskQueue(sys.argv[1], lease=1.0)
queue.stats()
sys.path.insert(0, os.getcwd())
import app
Worker(queue, executor="process").run(app.run, burst=True)
"""
APP = """
import time
from pathlib import Path
from dbtaskqueue import current_task
def run(payload):
    current_task().checkpoint("kept")  # opens a connection to the database in the child
    time.sleep(1.5)  # longer than the lease: the heartbeat process has sent heartbeats
    import colorsys
    return [colorsys.__file__, str(Path.cwd())]
"""
TRAP = """
import sys
with open("executed", "a") as file:
    file.write(f"{__name__} {sys.orig_argv}\\n")
"""
NAMES = [name for name in sys.stdlib_module_names if name != "colorsys" and importlib.util.find_spec(name) is not None]
"""Names of modules that this platform has. Others would rightly be imported from the directory."""


def test_a_module_named_like_one_of_the_standard_library_is_not_executed(
    url: str, queue: TaskQueue, tmp_path: Path
) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "app.py").write_text(APP)
    for name in NAMES:
        (directory / f"{name}.py").write_text(TRAP)
    (directory / "colorsys.py").write_text("")
    task = queue.enqueue(retry=RetryPolicy(max_attempts=1))
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    run = [sys.executable, "-P", script, url]
    done = subprocess.run(run, cwd=directory, capture_output=True, text=True, timeout=60, env=_plain(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    executed = directory / "executed"
    assert not executed.exists() or executed.read_text() == ""
    assert task.refresh().result == [str(directory / "colorsys.py"), str(directory)], task.error


@pytest.mark.engine("sqlite")
def test_an_entry_of_sys_path_that_is_not_text(url: str, queue: TaskQueue, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    task = queue.enqueue(retry=RetryPolicy(max_attempts=1))
    script = tmp_path / "worker.py"
    script.write_text(WORKER.replace("import app", "import pathlib; sys.path += [pathlib.Path('/none')]; import app"))
    run = [sys.executable, "-P", script, url]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=_plain(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert task.refresh().state == "done"


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("name", ["json", "signal", "random", "ctypes", "selectors", "secrets", "struct"])
def test_the_command_line_in_a_directory_with_such_a_module(
    url: str, queue: TaskQueue, tmp_path: Path, name: str
) -> None:
    (tmp_path / "app.py").write_text("def run(payload):\n    return payload\n")
    (tmp_path / f"{name}.py").write_text(TRAP)
    task = queue.enqueue("hello", retry=RetryPolicy(max_attempts=1))
    command = [sys.executable, "-P", "-m", "dbtaskqueue", "--url", url, "worker", "--burst", "app:run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=_plain(), check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists(), (tmp_path / "executed").read_text()
    assert task.refresh().result == "hello", task.error


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "PYTHONSAFEPATH")}

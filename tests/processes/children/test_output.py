"""The output of a task does not depend on the worker's own standard output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_tasks import lines
from helpers import until
from processes.children.supervised import WORKER, environment

from dbtaskqueue import RetryPolicy, TaskQueue

pytestmark = pytest.mark.engine("sqlite")

ONCE = RetryPolicy(max_attempts=1)
NOISY_MODULE = """
import sys, child_tasks
print("imported", end="")
print("imported", end="", file=sys.stderr)
def act(payload):
    child_tasks.act(payload)
"""


def start(url: str, directory: Path, stdout: str, code: str = WORKER) -> subprocess.Popen[bytes]:
    """Start a worker with this standard output, in an environment that does not turn off buffering."""
    plain = {name: value for name, value in environment(directory).items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code, url, "{}"]
    if stdout == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    with open(os.devnull if stdout == "null" else directory / "stdout", "wb") as file:
        destination = subprocess.PIPE if stdout == "pipe" else file
        with (directory / "stderr").open("wb") as errors:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=destination, stderr=errors, env=plain)


@pytest.fixture(params=["file", "null", "pipe", "closed"])
def worker(request: pytest.FixtureRequest, url: str, queue: TaskQueue, tmp_path: Path) -> Iterator[None]:
    """Start a worker process with that kind of standard output."""
    process = start(url, tmp_path, request.param)
    yield
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("worker")
def test_output_is_stored_while_the_task_runs(queue: TaskQueue, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    task = queue.enqueue({"do": "count_and_print", "file": str(notes)}, retry=ONCE)
    until(lambda: lines(notes), what="the start of the task")
    until(lambda: task.attempts()[-1].output == "working on it\n", what="the output of the running task")
    assert task.refresh().state == "running"


@pytest.mark.usefixtures("worker")
def test_the_last_lines_of_a_killed_child_are_kept(queue: TaskQueue) -> None:
    task = queue.enqueue({"do": "print_and_die", "number": int(signal.SIGKILL)}, retry=ONCE)
    until(lambda: task.refresh().state == "abandoned", what="the end of the task")
    assert task.attempts()[-1].output == "last words\n"
    assert "last words" in (task.error or "")


def test_output_of_the_import_is_not_output_of_a_task(url: str, queue: TaskQueue, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY_MODULE)
    tasks = [queue.enqueue({"do": "print", "text": "hello"}, retry=ONCE) for _ in range(2)]
    code = WORKER.replace("import child_tasks", f"sys.path.append({str(tmp_path)!r}); import noisy as child_tasks")
    process = start(url, tmp_path, "file", code.replace(".run(child_tasks.act)", ".run(child_tasks.act, burst=True)"))
    assert process.wait(60) == 0, (tmp_path / "stderr").read_text()
    outputs = [task.attempts()[-1].output or "" for task in tasks]
    assert [output.count("hello") for output in outputs] == [3, 3]
    assert not any("imported" in output for output in outputs)
    assert (tmp_path / "stdout").read_text() == "imported" * 2  # once from the worker, once from the fork server


def test_any_text_can_be_printed(url: str, queue: TaskQueue, tmp_path: Path) -> None:
    task = queue.enqueue({"do": "print_a_surrogate"}, retry=ONCE)
    code = WORKER.replace(".run(child_tasks.act)", ".run(child_tasks.act, burst=True)")
    assert start(url, tmp_path, "file", code).wait(60) == 0
    assert task.attempts()[-1].output == "\\udcff\n"

"""What is not guaranteed about processes, as described in docs/concepts/executors.md and long-tasks.md."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import child_tasks
import pytest
from helpers import Background, until
from workers import children_of, is_running

from dbtaskqueue import RetryPolicy, Task, TaskQueue, Worker

Start = Callable[[list[str]], "Popen[str]"]
ONCE = RetryPolicy(delay=0, max_attempts=1)
pytestmark = pytest.mark.engine("sqlite")  # about processes, so the engine does not matter
OBEDIENT = "trap 'echo stopping; exit 0' TERM; echo ready; while :; do sleep 0.1; done"


def commands(queue: TaskQueue, **options: float) -> tuple[Worker, Background[None]]:
    worker = Worker(queue, executor="process", allow_commands=True, **options)  # type: ignore[arg-type]
    return worker, Background(worker.run)


def has_output(task: Task, text: str) -> bool:
    return any(text in (attempt.output or "") for attempt in task.attempts())


@pytest.mark.parametrize("end", ["cancel", "drain"])
def test_a_command_that_exits_with_0_on_sigterm_is_done(queue: TaskQueue, end: str) -> None:
    task = queue.enqueue_command(["sh", "-c", OBEDIENT], retry=ONCE)
    worker, running = commands(queue, drain_timeout=0)
    until(lambda: has_output(task, "ready"), what="a command that runs")
    if end == "cancel":
        task.cancel()
        until(lambda: task.refresh().state == "done", what="the end of the command")
    worker.stop()
    running.join()
    assert (task.refresh().state, task.result) == ("done", {"exit_code": 0})


def test_a_command_that_fails_on_sigterm_is_released_by_a_drain(queue: TaskQueue) -> None:
    task = queue.enqueue_command(["sh", "-c", "echo ready; sleep 300"], retry=ONCE)
    worker, running = commands(queue, drain_timeout=0)
    until(lambda: has_output(task, "ready"), what="a command that runs")
    worker.stop()
    running.join()
    assert (task.refresh().state, task.attempt) == ("pending", 0)


def test_a_sigterm_from_another_process_ends_a_command(queue: TaskQueue) -> None:
    """Python code in a child survives it, but a command does not.

    So a supervisor must signal only the worker (KillMode=mixed).
    """
    task = queue.enqueue_command(["sh", "-c", "echo $$; exec sleep 300"], retry=ONCE)
    worker, running = commands(queue)
    until(lambda: has_output(task, "\n"), what="the command's pid")
    os.kill(int(task.attempts()[0].output or ""), signal.SIGTERM)
    until(lambda: task.refresh().state == "abandoned", what="the end of the command")
    worker.stop()
    running.join()
    assert "the command was killed by SIGTERM" in (task.error or "")


def test_a_drain_releases_a_suspended_task_and_the_next_worker_runs_it(queue: TaskQueue, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    task = queue.enqueue({"do": "resume", "file": str(notes), "steps": 30, "seconds": 0.1})
    worker = Worker(queue, executor="process", drain_timeout=0)
    running = Background(lambda: worker.run(child_tasks.act))
    until(lambda: child_tasks.lines(notes), what="a task that runs")
    queue.suspend(task.id)
    until(lambda: any(_state(pid) == "T" for pid in _below(os.getpid())), what="a suspended task")
    worker.stop()
    running.join()
    assert (task.refresh().state, task.attempt, task.suspended) == ("pending", 0, False)
    Worker(queue, executor="process").run(child_tasks.act, burst=True)
    assert (task.refresh().state, task.attempt) == ("done", 1)


def test_programs_of_a_task_survive_its_worker_and_fork_server(
    queue: TaskQueue, url: str, start: Start, tmp_path: Path
) -> None:
    """The kernel ends the task's process.

    Programs that it started keep running until their cgroup or container ends.
    """
    notes = tmp_path / "notes"
    queue.enqueue({"do": "family", "file": str(notes)}, retry=RetryPolicy(delay=3600))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from dbtaskqueue.cli import main; main()"
    directory = str(Path(child_tasks.__file__).parent)
    worker = start(
        [sys.executable, "-c", code, directory, "--url", url, "worker", "--executor", "process", "child_tasks:act"]
    )
    child, *left = map(int, until(lambda: child_tasks.lines(notes), what="the family's pids")[0].split())
    [server] = [pid for pid in children_of(worker.pid) if child in children_of(pid)]
    try:
        os.kill(worker.pid, signal.SIGSTOP)  # so that neither can react to the end of the other
        os.kill(server, signal.SIGKILL)
        worker.kill()
        until(lambda: not is_running(child), what="the end of the task's own process")
        assert all(map(is_running, left))
        mark = b"\0DBTASKQUEUE_FORK_SERVER="
        assert all(mark in b"\0" + Path(f"/proc/{pid}/environ").read_bytes() for pid in left), (
            "not to be found as documented"
        )
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def _below(pid: int) -> list[int]:
    """The descendants of this process."""
    return [found for child in children_of(pid) for found in (child, *children_of(child))]

"""``dbtaskqueue demo``: the promise in a few seconds, with real workers, one of which is really killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

import click

from ..payload import JSON
from ..queue import TaskQueue
from ..retry import RetryPolicy
from ..running import current_task
from ..states import DONE, RUNNING
from ..task import Attempt, Task
from .output import harmless, progress

_SHORT_TASKS = 6
_LONG = 4.0
"""Seconds that the long task runs, if its worker lives."""
_UNTIL_THE_KILL = 1.0
_PATIENCE = 20.0
_POLL = 0.02
_LOG = "log"


def work(payload: dict[str, JSON]) -> JSON:
    """The callback of the demo's workers."""
    task = current_task()
    if payload.get("fails_at_first") and task.attempt == 1:
        raise ConnectionError("the other side does not answer")
    time.sleep(float(payload["seconds"]))
    return {"name": payload["name"], "process": os.getpid()}


class _Failed(Exception):
    """Something that the demo promises did not hold."""


class _Tasks(NamedTuple):
    long: Task
    flaky: Task
    short: list[Task]

    @property
    def all(self) -> list[Task]:
        return [self.long, self.flaky, *self.short]


@click.command()
def demo() -> None:
    """Enqueue, retry, kill and recover tasks, in a temporary file."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C does: the workers end, too
    try:
        with tempfile.TemporaryDirectory(prefix="dbtaskqueue-demo-") as folder:
            _play(folder)
    except (_Failed, TimeoutError) as error:
        raise click.ClickException(harmless(f"the demo did not show what it should: {error}")) from error


def _play(folder: str) -> None:
    began = time.monotonic()
    url = f"sqlite:///{folder}/demo.sqlite"
    with TaskQueue(url, "demo") as queue, _workers(url, folder, 2) as workers:
        tasks = _enqueue(queue)
        click.echo(f"{len(tasks.all)} tasks are stored in one file, {folder}/demo.sqlite")
        click.echo(f"two workers start: processes {' and '.join(str(worker.pid) for worker in workers)}")
        victim = _worker_of(tasks.long, queue, workers)
        click.echo(f"task {tasks.long.id}, a long one, runs in process {victim.pid}; that one gets SIGKILL now")
        victim.kill()
        victim.wait()
        killed = time.monotonic()
        _until(lambda: tasks.long.refresh().attempt == 2, workers, "the killed worker's task was not run again")
        rescued = time.monotonic() - killed
        click.echo(f"task {tasks.long.id} runs again, in the other process")
        _wait_for_all(tasks, workers)
        _conclude(tasks, victim.pid, rescued, time.monotonic() - began)


def _enqueue(queue: TaskQueue) -> _Tasks:
    long = queue.enqueue({"name": "long", "seconds": _LONG}, priority=1)
    again = RetryPolicy(delay=1)
    flaky = queue.enqueue({"name": "flaky", "seconds": 0.2, "fails_at_first": True}, priority=2, retry=again)
    short = queue.enqueue_many([{"name": f"short {n}", "seconds": 0.3} for n in range(1, _SHORT_TASKS + 1)])
    return _Tasks(long, flaky, short)


# -- the workers -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _workers(url: str, folder: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Worker processes, started as a user would; all are gone at the end."""
    command = [sys.executable, "-P", "-m", "dbtaskqueue", "--url", url, "worker", f"{__name__}:work", "--queue", "demo"]
    command += ["--drain-timeout", "0"]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        with open(Path(folder, _LOG), "wb") as log:
            for _ in range(count):  # one by one: an interruption in between must find those that run
                workers.append(_spawn(command, folder, log))
        yield workers
    except _Failed as error:
        last = Path(folder, _LOG).read_text("utf-8", "replace").splitlines()[-1:]
        raise _Failed(f"{error}; the workers' last words: {''.join(last) or 'none'}") from None
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            _end(worker)


def _spawn(command: list[str], folder: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """In the empty folder no module of the user's is in the way; and a Ctrl-C is for the demo alone."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
        env=_environment(),
        process_group=0,
    )


def _environment() -> dict[str, str]:
    """Ours, without options that were meant for the user's own queue."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DBTASKQUEUE_")}
    folders = filter(None, ours.get("PYTHONPATH", "").split(os.pathsep))
    return {**ours, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, folders))}


def _end(worker: subprocess.Popen[bytes]) -> None:
    try:
        worker.wait(timeout=5)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _worker_of(task: Task, queue: TaskQueue, workers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The process that runs the task, once it has run it for a while."""
    _until(lambda: task.refresh().state == RUNNING, workers, "no worker began the long task")
    time.sleep(_UNTIL_THE_KILL)
    pids = {row.pid for row in queue.store.workers() if row.id == task.refresh().worker}
    for worker in workers:
        if worker.pid in pids:
            return worker
    raise _Failed(f"the long task is {task.state}, and neither of the two workers holds it")


# -- waiting and judging ---------------------------------------------------------------------------


def _until(condition: Callable[[], bool], workers: list[subprocess.Popen[bytes]], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline or all(worker.poll() is not None for worker in workers):
            raise _Failed(otherwise)
        time.sleep(_POLL)


def _wait_for_all(tasks: _Tasks, workers: list[subprocess.Popen[bytes]]) -> None:
    with progress("tasks done", len(tasks.all)) as tell:

        def all_done() -> bool:
            done = sum(task.refresh().state == DONE for task in tasks.all)
            tell(done)
            return done == len(tasks.all)

        _until(all_done, workers, "some task was not done")


def _conclude(tasks: _Tasks, victim: int, rescued: float, took: float) -> None:
    lost, again = _two_attempts(tasks.long, "lost")
    failed, retried = _two_attempts(tasks.flaky, "failed")
    if _time(again.started_at) < _time(lost.finished_at):
        raise _Failed("two workers ran the long task at once")
    pause = (_time(retried.started_at) - _time(failed.finished_at)).total_seconds()
    click.echo(
        f"""
What you saw, in {took:.0f} seconds:
- {len(tasks.all)} tasks were accepted, and all {len(tasks.all)} are done. There is no server: one file is all.
- Task {tasks.flaky.id} failed at its attempt {failed.number}. It was retried {pause:.1f} s later and done \
at its attempt {retried.number}.
- Process {victim} was killed in the middle of task {tasks.long.id}. Another worker ran the task
  again {rescued:.1f} s later: attempt {again.number}. Nothing was lost, and nobody had to do anything.
- No task has a time limit: a worker proves that it lives, however long its task takes."""
    )


def _two_attempts(task: Task, first: str) -> list[Attempt]:
    attempts = task.attempts()
    outcomes = [attempt.outcome for attempt in attempts]
    if outcomes != [first, "done"]:
        raise _Failed(f"the attempts of task {task.id} ended {outcomes}, not {[first, 'done']}")
    return attempts


def _time(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment

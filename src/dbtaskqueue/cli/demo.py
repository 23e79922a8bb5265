"""The command demo: enqueue, retry, kill -9 and recover, with real workers, in ten seconds."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from .._formats.payload import JSON
from .._formats.url import mask
from .._system.signals import noted_until_exit
from ..checkpoints import CHECKPOINT, STEP
from ..current import current_task
from ..queue import TaskQueue
from ..retry import RetryPolicy
from ..states import DONE, FAILED, RUNNING
from ..task import Attempt, Task
from .output import console, escaped

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHORT_TASKS = 6
_PAGES = 40
_SECONDS = 0.15
"""Seconds for each page of the long task."""
_KILL_AFTER = 20
"""The number of pages of the long task."""
_TIMEOUT = 50.0
_POLL = 0.03
_LOG = "log"
_STYLES = {
    "stored": "cyan",
    "workers": "cyan",
    "started": "cyan",
    "progress": "cyan",
    "done": "green",
    "failed": "yellow",
    "retried": "yellow",
    "KILL -9": "bold white on red",
    "rescued": "bold green",
}
_START = "start of attempt"


def work(payload: dict[str, JSON]) -> JSON:
    """Work on the pages of a task, with a checkpoint after each. This is the callback of the demo's workers."""
    task = current_task()
    if payload.get("fails_at_first") and task.attempt == 1:
        raise ConnectionError("no answer")
    first = task.step(f"{_START} {task.attempt}", lambda: task.saved or 0)
    for page in range(first, payload["pages"]):
        time.sleep(payload["seconds"])
        task.checkpoint(page + 1)
    return {"pages": payload["pages"]}


class _Failed(Exception):
    """The demo did not show what it should."""


class _Tasks(NamedTuple):
    long: Task
    flaky: Task
    short: list[Task]

    @property
    def all(self) -> list[Task]:
        return [self.long, self.flaky, *self.short]


@click.command()
@click.option("--dashboard", is_flag=True, help="Serve a dashboard of a demo that runs until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=8484, metavar="PORT", help="The dashboard's port.")
@click.pass_obj
def demo(url: str | None, dashboard: bool, port: int) -> None:
    """Enqueue, retry, kill -9 and recover, on a temporary file. Takes ten seconds.

    With --dashboard, serve the dashboard of a small company instead, whose tasks run for minutes.
    """
    if dashboard:
        from .showcase import play

        play(port)
        return
    raise_if_interrupted = noted_until_exit(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _say("Eight tasks, two workers, one kill -9, on a temporary SQLite file: ten seconds.", "bold")
    _say("One task fails and is retried; one worker is killed, and the other takes over.\n")
    try:
        with tempfile.TemporaryDirectory(prefix="dbtaskqueue-demo-") as directory, _Stage() as stage:
            lesson = _play(directory, stage, raise_if_interrupted)
        raise_if_interrupted()
    except (_Failed, TimeoutError) as error:
        raise click.ClickException(escaped(f"the demo did not show what it should: {error}")) from error
    _say(f"\nWhat you saw, in {stage.seconds:.0f} seconds:", "bold")
    _say(lesson)
    _say("\nThree commands to try next:", "bold")
    for command, what in _what_next(url):
        _say(f"\n  # {what}", "dim")
        _say(f"  {command}", "cyan")
    _say(f"\nA dashboard with tasks that run for minutes: {shlex.join(_program())} demo --dashboard")


def _play(directory: str, stage: _Stage, raise_if_interrupted: Callable[[], None]) -> str:
    """Run the demo and check it; return the summary. It can be interrupted only where it waits."""
    url = f"sqlite:///{directory}/demo.sqlite"
    with TaskQueue(url, "demo") as queue:
        tasks = _enqueue(queue)
        stage.print("stored", f"{len(tasks.all)} tasks, in one SQLite file; no server is needed")
        with _workers(url, directory, 2) as workers:
            stage.print("workers", f"processes {' and '.join(str(worker.pid) for worker in workers)}")
            follower = _Follower(queue, tasks, workers, stage, raise_if_interrupted)
            follower.until(lambda: tasks.long.state == RUNNING, "no worker started the long task")
            victim = follower.worker_of(tasks.long)
            follower.until(lambda: follower.page >= _KILL_AFTER, "the long task made no progress")
            victim.kill()
            victim.wait()
            killed = time.monotonic()
            stage.print("KILL -9", f"worker {victim.pid}, in the middle of task {tasks.long.id}", "bold red")
            stage.label_bar(f"worker {victim.pid} is dead", "red")
            follower.until(lambda: follower.started(2), "the killed worker's task was not run again")
            rescued = time.monotonic() - killed
            second, first = follower.worker_of(tasks.long), follower.first_page(2)
            stage.print(
                "rescued",
                f"task {tasks.long.id}: worker {second.pid} continues at page {first}, not at 1",
                "bold green",
            )
            stage.label_bar(f"worker {second.pid}", "green")
            follower.until(lambda: all(task.state == DONE for task in tasks.all), "some task was not done")
            return _conclude(tasks, victim.pid, second.pid, first, rescued)


def _enqueue(queue: TaskQueue) -> _Tasks:
    long = queue.enqueue({"name": "long", "pages": _PAGES, "seconds": _SECONDS}, priority=1)
    flaky = {"name": "flaky", "pages": 1, "seconds": 0.4, "fails_at_first": True}
    short: list[JSON] = [{"name": f"short {n}", "pages": 1, "seconds": 0.3} for n in range(1, _SHORT_TASKS + 1)]
    return _Tasks(long, queue.enqueue(flaky, priority=2, retry=RetryPolicy(delay=1)), queue.enqueue_many(short))


# -- what is shown ---------------------------------------------------------------------------------


def _say(text: str, style: str = "") -> None:
    screen = console()
    if not screen.is_terminal:
        click.echo(text)
        return
    from rich.text import Text

    screen.print(Text(text, style=style))


class _Stage:
    """Prints each event with its time. On a terminal, also shows a progress bar of the long task."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._screen = console()
        self._bar: Progress | None = None
        self._long: TaskID | None = None
        self._printed_page = 0

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """The seconds since the start of the demo."""
        return time.monotonic() - self._started

    def print(self, event: str, text: str, style: str = "") -> None:
        """Print an event."""
        clock = f"{self.seconds:5.1f} s"
        if not self._screen.is_terminal:
            click.echo(f"{clock}  {event:8}  {escaped(text)}")
            return
        from rich.text import Text

        gap = " " * (10 - len(event))
        line = Text.assemble((clock, "dim"), "  ", (event, _STYLES[event]), gap, (escaped(text), style))
        (self._screen if self._bar is None else self._bar.console).print(line)

    def advance(self, task: int, page: int) -> None:
        """Show the progress of the long task; on a pipe, print a line for every ten pages."""
        if self._bar is not None and self._long is not None:
            self._bar.update(self._long, completed=page)
        elif not self._can_draw and page >= self._printed_page + 10:
            self._printed_page = page - page % 10
            self.print("progress", f"task {task}: page {self._printed_page} of {_PAGES}")

    def label_bar(self, text: str, style: str) -> None:
        """Show which worker runs the long task, at the end of the bar."""
        if not self._can_draw:
            return
        if self._bar is None:
            self._bar = self._new_bar()
            self._long = self._bar.add_task("", total=_PAGES, worker="", style="")
            self._bar.start()
        assert self._long is not None
        self._bar.update(self._long, worker=text, style=style, refresh=True)

    @property
    def _can_draw(self) -> bool:
        return self._screen.is_terminal and not self._screen.is_dumb_terminal

    def _new_bar(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn

        return Progress(
            TextColumn("         "),
            BarColumn(complete_style="cyan", finished_style="green"),
            TextColumn("page {task.completed} of {task.total}"),
            TextColumn("[{task.fields[style]}]{task.fields[worker]}"),
            console=self._screen,
        )


class _Follower:
    """Follows the tasks, and prints what happens to them."""

    def __init__(
        self,
        queue: TaskQueue,
        tasks: _Tasks,
        workers: list[subprocess.Popen[bytes]],
        stage: _Stage,
        raise_if_interrupted: Callable[[], None],
    ) -> None:
        self._queue, self._tasks, self._workers, self._stage = queue, tasks, workers, stage
        self._raise_if_interrupted = raise_if_interrupted
        self._stored: dict[str, Any] = {}

    def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Follow the tasks until the condition holds."""
        deadline = time.monotonic() + _TIMEOUT
        self._poll()
        while not condition():
            if time.monotonic() > deadline or all(worker.poll() is not None for worker in self._workers):
                raise _Failed(otherwise)
            time.sleep(_POLL)
            self._raise_if_interrupted()
            self._poll()

    @property
    def page(self) -> int:
        """The last page of the long task that has a checkpoint."""
        if self._tasks.long.state == DONE:
            return _PAGES
        return int(self._stored.get(CHECKPOINT, 0))

    def started(self, attempt: int) -> bool:
        """Return whether this attempt of the long task has started."""
        return f"{STEP}{_START} {attempt}" in self._stored

    def first_page(self, attempt: int) -> int:
        """Return the page at which this attempt of the long task has started."""
        return int(self._stored[f"{STEP}{_START} {attempt}"]) + 1

    def worker_of(self, task: Task) -> subprocess.Popen[bytes]:
        """Return the worker that runs the task, or ran it last."""
        worker = task.refresh().attempts()[-1].worker
        pids = {row.pid for row in self._queue.store.workers() if row.id == worker}
        for process in self._workers:
            if process.pid in pids:
                return process
        raise _Failed(f"task {task.id} is {task.state}, and neither of the two workers has it")

    def _poll(self) -> None:
        before = {task.id: (task.state, task.attempt) for task in self._tasks.all}
        changed = [task for task in self._tasks.all if (task.refresh().state, task.attempt) != before[task.id]]
        if self._tasks.long.state != DONE:
            self._stored = self._queue.store.saved(self._tasks.long.id)
        self._stage.advance(self._tasks.long.id, self.page)
        # Done tasks come first: their ends made room for the others.
        for task in sorted(changed, key=lambda task: task.state != DONE):
            self._print(task)

    def _print(self, task: Task) -> None:
        is_long = task.id == self._tasks.long.id
        if task.state == DONE:
            attempt = f", at attempt {task.attempt}" if task.attempt > 1 else ""
            self._stage.print("done", f"task {task.id} by worker {self.worker_of(task).pid}{attempt}")
        elif task.state == FAILED and not is_long:
            error = (task.error or "").rstrip().rpartition("\n")[2]
            self._stage.print("failed", f"task {task.id}: {error}; retry in 1 s")
        elif task.state == RUNNING and task.attempt == 2 and not is_long:
            self._stage.print("retried", f"task {task.id} by worker {self.worker_of(task).pid}")
        elif task.state == RUNNING and is_long and task.attempt == 1:
            pid = self.worker_of(task).pid
            self._stage.print("started", f"task {task.id}, a long one of {_PAGES} pages, by worker {pid}")
            self._stage.label_bar(f"worker {pid}", "cyan")


# -- the workers -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _workers(url: str, directory: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start worker processes as a user would, and end them with the block."""
    command = [sys.executable, "-P", "-m", "dbtaskqueue", "--url", url, "worker", f"{__name__}:work", "--queue", "demo"]
    command += ["--drain-timeout", "0"]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        with open(Path(directory, _LOG), "wb") as log:
            for _ in range(count):  # one by one, so that an error ends the ones that are running
                workers.append(spawn(command, directory, log))
        yield workers
    except _Failed as error:
        last = Path(directory, _LOG).read_text("utf-8", "replace").splitlines()[-1:]
        raise _Failed(f"{error}; the last line of the workers' log: {''.join(last) or 'none'}") from None
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            end(worker)


def spawn(command: list[str], directory: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker in an empty directory, so that it imports no module of the user. Ctrl-C does not reach it."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=directory,
        env=environment(),
        process_group=0,
    )


def environment() -> dict[str, str]:
    """Return the environment of this process, without options that are meant for the user's own queue."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DBTASKQUEUE_")}
    directories = filter(None, ours.get("PYTHONPATH", "").split(os.pathsep))
    return {**ours, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, directories))}


def end(worker: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end, and kill it if it does not."""
    try:
        worker.wait(timeout=5)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


# -- the summary -----------------------------------------------------------------------------------


def _conclude(tasks: _Tasks, victim: int, second: int, first: int, rescued: float) -> str:
    lost, again = _two_attempts(tasks.long, "lost")
    failed, retried = _two_attempts(tasks.flaky, "failed")
    if _time(again.started_at) < _time(lost.finished_at):
        raise _Failed("two workers ran the long task at the same time")
    if first <= _KILL_AFTER:
        raise _Failed(f"the long task started again at page {first}, though {_KILL_AFTER} pages had a checkpoint")
    pause = (_time(retried.started_at) - _time(failed.finished_at)).total_seconds()
    soon = f"{rescued:.1f} s later" if rescued >= 0.05 else "immediately"
    count, long, flaky = len(tasks.all), tasks.long.id, tasks.flaky.id
    return f"""\
- {count} tasks were accepted, and all {count} are done. One file holds everything.
- Task {flaky} failed at attempt {failed.number}. It was retried {pause:.1f} s later \
and done at attempt {retried.number}.
- Worker {victim} was killed in the middle of task {long}.
  Worker {second} took over {soon}, at page {first}, after the last checkpoint.
  Nothing was lost, and no one had to do anything.
- No task has a time limit: heartbeats show that a worker is alive, however long
  its task takes."""


def _two_attempts(task: Task, first: str) -> list[Attempt]:
    attempts = task.attempts()
    outcomes = [attempt.outcome for attempt in attempts]
    if outcomes != [first, "done"]:
        raise _Failed(f"the attempts of task {task.id} ended {outcomes}, not {[first, 'done']}")
    return attempts


def _time(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment


def _what_next(url: str | None) -> list[tuple[str, str]]:
    """Return commands to copy, and what each does."""
    us = shlex.join([*_program(), *(() if url is None else ("--url", mask(url)))])
    return [
        (f"""{us} enqueue '{{"hello": "world"}}'""", "Store a task. This prints its id."),
        (f"{us} worker builtins:print --burst", "Run it in a child process."),
        (f"{us} show 1", "Show its outcome, if its id was 1."),
    ]


def _program() -> list[str]:
    """Return how the user can call this program again: by its name if it is on the PATH, else by its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "dbtaskqueue"]
    found = shutil.which(called.name)
    return [called.name if found and called.exists() and called.samefile(found) else str(called)]

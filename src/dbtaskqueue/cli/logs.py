"""The command logs: print the output of an attempt, and with --follow keep printing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

import click

from .._formats.output import OutputFollower
from ..errors import StoreUnavailable
from ..queue import TaskQueue
from ..states import FINAL
from ..task import Attempt, Task, attempts_of, with_output
from .completion import task_ids
from .options import json_option, open_queue, url_option
from .output import counted, escaped, note, print_json

T = TypeVar("T")

_INTERVAL = 1.0
"""Seconds between reads. A worker stores the output of its tasks at the same interval."""
_INTERRUPTED = 130


@click.command()
@click.argument("id", type=int, shell_complete=task_ids)
@click.option(
    "--follow", "-f", "follow", is_flag=True, help="Keep printing while the task runs, including its later attempts."
)
@click.option("--attempt", type=click.IntRange(min=1), metavar="NUMBER", help="This attempt instead of the last one.")
@json_option
@url_option
@click.pass_obj
def logs(url: str | None, id: int, follow: bool, attempt: int | None, json: bool) -> None:
    """Print the output of a task.

    By default, this is the output of the last attempt. Of a longer output, only the first 16 KiB and the last 48 KiB
    are stored; a line marks the gap. With --json, print the attempt with all its attributes, or null.
    """
    if follow and json:
        raise click.UsageError("--json and --follow exclude each other")
    with open_queue(url) as task_queue:
        if follow:
            _follow(task_queue, id, attempt)
            return
        wanted = _wanted(id, task_queue.get(id).attempts(), attempt)[:1]
        found = [with_output(task_queue.store, id, each) for each in wanted]
    if json:
        print_json(found[0]._asdict() if found else None)
        return
    printer = _Printer()
    if found:
        printer.print(found[0], OutputFollower().new_text(found[0].output or ""))
    printer.conclude(id)


def _wanted(id: int, attempts: list[Attempt], number: int | None) -> list[Attempt]:
    """Return the last attempt, or the last one with this number, and later ones; none before the first start."""
    places = [place for place, attempt in enumerate(attempts) if number in (None, attempt.number)]
    if number is not None and not places:
        raise click.ClickException(f"task {id} has no attempt {number}; it has had {counted(len(attempts), 'attempt')}")
    return attempts[places[-1] :] if places else []


class _Printer:
    """Prints pieces of output, and names the attempt on stderr when it changes."""

    def __init__(self) -> None:
        self._token: int | None = None
        self._outcome: str | None = None
        self._has_printed = False
        self._is_in_line = False

    def print(self, attempt: Attempt, piece: str) -> None:
        """Print the next piece of an attempt's output."""
        if attempt.token != self._token:
            if self._token is not None:
                self.end_line()
                before = self._outcome or "unknown"
                note(f"attempt {attempt.number} started on worker {attempt.worker}; the previous one: {before}")
            self._token = attempt.token
        self._outcome = attempt.outcome
        if piece:
            shown = escaped(re.sub("\r\n?", "\n", piece), keep="\n\t")
            self._has_printed, self._is_in_line = True, not shown.endswith("\n")
            click.echo(shown, nl=False)

    def conclude(self, id: int) -> None:
        """End the output. If nothing was printed, print the reason to stderr."""
        self.end_line()
        if self._token is None:
            note(f"task {id} has not started")
        elif not self._has_printed:
            note(f"task {id} has no stored output")

    def end_line(self) -> None:
        """End an unfinished line."""
        if self._is_in_line:
            click.echo()
        self._is_in_line = False


class _Reader:
    """Reads a task. While the database is unavailable, it retries, and reports each outage once."""

    def __init__(self, task_queue: TaskQueue, id: int) -> None:
        self._task_queue = task_queue
        self._id = id
        self._is_unavailable = False

    def read(self, since: int) -> tuple[Task, list[Attempt]]:
        """Read the task, then its attempts from the token ``since`` on. If the task is final, they are complete."""
        return self._retry(
            lambda: (self._task_queue.get(self._id), attempts_of(self._task_queue.store, self._id, since))
        )

    def output(self, attempt: Attempt) -> str:
        """Read the output of an attempt."""
        return self._retry(lambda: with_output(self._task_queue.store, self._id, attempt)).output or ""

    def _retry(self, read: Callable[[], T]) -> T:
        while True:
            try:
                answer = read()
            except StoreUnavailable as error:
                self._note(f"database unavailable, retrying: {error}", is_unavailable=True)
            else:
                self._note("database available again", is_unavailable=False)
                return answer
            time.sleep(_INTERVAL)

    def _note(self, text: str, *, is_unavailable: bool) -> None:
        if is_unavailable != self._is_unavailable:
            note(text)
        self._is_unavailable = is_unavailable


def _follow(task_queue: TaskQueue, id: int, number: int | None) -> None:
    printer, reader = _Printer(), _Reader(task_queue, id)
    since, follower = -1, OutputFollower()
    try:
        task, attempts = reader.read(0)
        attempts = _wanted(id, attempts, number)
        if not attempts and task.state not in FINAL:
            note(f"task {id} has not started yet")
        while True:
            for attempt in attempts:
                if attempt.token != since:
                    since, follower = attempt.token, OutputFollower()
                text = follower.new_text(reader.output(attempt), ended=attempt.outcome is not None)
                printer.print(attempt, text)
            if task.state in FINAL:
                break
            time.sleep(_INTERVAL)
            task, attempts = reader.read(since)
    except KeyboardInterrupt:
        printer.end_line()
        raise SystemExit(_INTERRUPTED) from None
    printer.conclude(id)
    note(f"task {id} is {task.state}")

"""The command logs: print the output of an attempt, and with --follow keep printing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

import click

from .._formats.output import Following
from ..errors import StoreUnavailable
from ..queue import TaskQueue
from ..states import FINAL
from ..task import Attempt, Task, attempts_of, with_output
from .options import json_option, open_queue, url_option
from .output import counted, harmless, note, print_json

T = TypeVar("T")

_INTERVAL = 1.0
"""Seconds between reads: a worker stores the output of its tasks as often."""
_INTERRUPTED = 130


@click.command()
@click.argument("id", type=int)
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
    with open_queue(url) as lane:
        if follow:
            _follow(lane, id, attempt)
            return
        found = [with_output(lane.store, id, each) for each in _wanted(id, lane.get(id).attempts(), attempt)[:1]]
    if json:
        print_json(found[0]._asdict() if found else None)
        return
    screen = _Screen()
    if found:
        screen.show(found[0], Following().news(found[0].output or ""))
    screen.conclude(id)


def _wanted(id: int, attempts: list[Attempt], number: int | None) -> list[Attempt]:
    """The last attempt, or the last one with that number, and what came after it; none before the first start."""
    places = [place for place, attempt in enumerate(attempts) if number in (None, attempt.number)]
    if number is not None and not places:
        raise click.ClickException(f"task {id} has no attempt {number}; it has had {counted(len(attempts), 'attempt')}")
    return attempts[places[-1] :] if places else []


class _Screen:
    """Prints pieces of outputs, and says on stderr whose they are."""

    def __init__(self) -> None:
        self._token: int | None = None
        self._outcome: str | None = None
        self._is_silent = True
        self._is_in_line = False

    def show(self, attempt: Attempt, piece: str) -> None:
        """Print the next piece of an attempt's output."""
        if attempt.token != self._token:
            if self._token is not None:
                self.end_line()
                before = self._outcome or "unknown"
                note(f"attempt {attempt.number} started on worker {attempt.worker}; the previous one: {before}")
            self._token = attempt.token
        self._outcome = attempt.outcome
        if piece:
            shown = harmless(re.sub("\r\n?", "\n", piece), keep="\n\t")
            self._is_silent, self._is_in_line = False, not shown.endswith("\n")
            click.echo(shown, nl=False)

    def conclude(self, id: int) -> None:
        """The end; where nothing was printed, say why."""
        self.end_line()
        if self._token is None:
            note(f"task {id} has not started")
        elif self._is_silent:
            note(f"task {id} has no stored output")

    def end_line(self) -> None:
        """Let what comes next start in a line of its own."""
        if self._is_in_line:
            click.echo()
        self._is_in_line = False


class _Database:
    """Looks at a task; one that is away for a while is said once, and asked again."""

    def __init__(self, lane: TaskQueue, id: int) -> None:
        self._lane = lane
        self._id = id
        self._is_away = False

    def look(self, since: int) -> tuple[Task, list[Attempt]]:
        """The task, then its attempts from a token on: they are complete where the task has reached a final state."""
        return self._ask(lambda: (self._lane.get(self._id), attempts_of(self._lane.store, self._id, since)))

    def output(self, attempt: Attempt) -> str:
        """The output of an attempt that was seen."""
        return self._ask(lambda: with_output(self._lane.store, self._id, attempt)).output or ""

    def _ask(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                answer = ask()
            except StoreUnavailable as gone:
                self._tell(f"database unavailable, retrying: {gone}", is_away=True)
            else:
                self._tell("database available again", is_away=False)
                return answer
            time.sleep(_INTERVAL)

    def _tell(self, news: str, *, is_away: bool) -> None:
        if is_away != self._is_away:
            note(news)
        self._is_away = is_away


def _follow(lane: TaskQueue, id: int, number: int | None) -> None:
    screen, database = _Screen(), _Database(lane, id)
    since, following = -1, Following()
    try:
        task, attempts = database.look(0)
        attempts = _wanted(id, attempts, number)
        if not attempts and task.state not in FINAL:
            note(f"task {id} has not started yet")
        while True:
            for attempt in attempts:
                if attempt.token != since:
                    since, following = attempt.token, Following()
                screen.show(attempt, following.news(database.output(attempt), ended=attempt.outcome is not None))
            if task.state in FINAL:
                break
            time.sleep(_INTERVAL)
            task, attempts = database.look(since)
    except KeyboardInterrupt:
        screen.end_line()
        raise SystemExit(_INTERRUPTED) from None
    screen.conclude(id)
    note(f"task {id} is {task.state}")

"""Print results: tables that fit the terminal, plain text on a pipe, JSON for programs.

In text from the database, rich's markup has no effect, and control characters are escaped. rich is imported in the
functions that use it: it takes 7 MiB, which a worker that logs to a file does not need.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

import click

from ..checks import counted as counted  # the other modules of the command line import both from here
from ..checks import escaped as escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_STYLES = {
    "running": "cyan",
    "reserved": "cyan",
    "done": "green",
    "alive": "green",
    "failed": "yellow",
    "lost": "yellow",
    "silent": "yellow",
    "abandoned": "red",
    "cancelled": "dim",
}
WIDE = 110
"""The width from which on a terminal shows the columns that a narrower one leaves out."""
_LONGEST_CELL = 500
_GAP = 2


class Advance(Protocol):
    """Shows how much is done, and of how much if that is known only now."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Move the progress bar."""
        ...


def console(*, stderr: bool = False) -> Console:
    """Return a console that uses colours on a terminal only, and not if NO_COLOR is set."""
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    colours = is_terminal and not os.environ.get("NO_COLOR")
    return Console(
        stderr=stderr,
        force_terminal=is_terminal,
        color_system="auto" if colours else None,
        highlight=False,
        soft_wrap=True,
    )


def note(text: str) -> None:
    """Print a line to stderr: it is for the user, not for a program that reads the output."""
    click.echo(escaped(text), err=True)


def table(names: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> None:
    """Print a table as wide as the terminal, or 80 columns on a pipe; the last column is cut at the end of the line.

    ``numbers``: all columns but the last one contain numbers, and are aligned right.
    """
    from rich.table import Table

    screen = console()
    cells = [[styled(value) for value in row] for row in rows]
    widths = [max([len(name), *(row[index].cell_len for row in cells)]) for index, name in enumerate(names)]
    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width in zip(names, widths, strict=True):
        is_last = name == names[-1]
        justify: Literal["left", "right"] = "right" if numbers and not is_last else "left"
        grid.add_column(name, no_wrap=True, justify=justify, min_width=len(name) if is_last else min(width, 20))
    room = max(len(names[-1]), screen.width - sum(widths[:-1]) - _GAP * (len(names) - 1))
    for row in cells:
        row[-1].truncate(room, overflow="ellipsis")
        grid.add_row(*row)
    _show(screen, grid)


def _show(screen: Console, grid: Table) -> None:
    """Print a table without the spaces that rich adds at the ends of lines."""
    with screen.capture() as captured:
        screen.print(grid)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=screen.is_terminal)


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line. Values are not cut, and are wrapped on a terminal only."""
    from rich.table import Table
    from rich.text import Text

    known = list(pairs)
    width = max(len(name) for name, _ in known) + _GAP
    screen = console()
    if not screen.is_terminal:
        for name, value in known:
            lines = escaped(value, keep="\n").expandtabs().splitlines() or [""]
            click.echo(f"{name:{width}}" + f"\n{'':{width}}".join(lines))
        return
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in known:
        shown = escaped(value, keep="\n\t").expandtabs()
        grid.add_row(name, Text(shown, style=_STYLES.get(value, "")))
    _show(screen, grid)


def styled(value: str) -> Text:
    """Return a table cell on one line, with control characters escaped, in the colour of its first word."""
    from rich.text import Text

    shown = escaped(value[:_LONGEST_CELL])
    return Text(shown, style=_STYLES.get(shown.partition(" ")[0], "") if len(shown) < 20 else "")


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show a progress bar until the block ends, on a terminal only. Yields a function to call with the total so far."""
    if not sys.stderr.isatty():
        yield lambda done, total=None: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, total=total, refresh=True)


def print_json(value: object) -> None:
    """Print one JSON document, in ASCII, so that any program can read it and control characters are escaped."""
    click.echo(json_line(value, indent=2))


def json_line(value: object, indent: int | None = None) -> str:
    """Return a value as JSON, in ASCII."""
    return json.dumps(value, indent=indent, default=datetime.isoformat).replace("\x7f", "\\u007f")


def queue_name(name: str, *, paused: bool) -> str:
    """Return the name of a queue after a mark if it is paused, so that cutting a long name does not hide the mark."""
    return f"(paused) {name}" if paused else name


def local(moment: datetime | None) -> str:
    """Return a time in the user's time zone; "" for None."""
    if moment is None:
        return ""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # near the year 9999, the local time may not exist
        return moment.strftime("%Y-%m-%d %H:%M:%SZ")

"""How things are shown: tables that fit the terminal, plain text on a pipe, JSON for programs.

What comes from the database is data: neither rich's markup nor the control characters in it take effect.
rich is imported where it is used, since a worker that logs to a file does without it (7 MiB).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from .._formats.payload import JSON
from ..checks import counted as counted  # the other files of the command line import both from here
from ..checks import harmless as harmless
from ..errors import PayloadError
from ..task import Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_ATTRIBUTES = (
    *("id", "queue", "state", "payload", "result", "error", "attempt", "max_attempts", "priority", "key"),
    *("created_at", "start_at", "started_at", "finished_at", "worker", "function", "token", "cancel_requested"),
    *("progress", "suspended", "is_command", "time_limit", "stall_limit", "memory_limit"),
)
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
_LONGEST_CELL = 500
_GAP = 2


def console(*, stderr: bool = False) -> Console:
    """Colours on a terminal only, and none at all where NO_COLOR is set."""
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
    """A line for the user's eyes, not for a program that reads the output."""
    click.echo(harmless(text), err=True)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table as wide as the terminal, 80 on a pipe: the last column is cut where the line ends."""
    from rich.table import Table

    screen = console()
    cells = [[styled(value) for value in row] for row in rows]
    widths = [max([len(name), *(row[index].cell_len for row in cells)]) for index, name in enumerate(names)]
    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width in zip(names, widths, strict=True):
        grid.add_column(name, no_wrap=True, min_width=len(name) if name == names[-1] else min(width, 20))
    room = max(len(names[-1]), screen.width - sum(widths[:-1]) - _GAP * (len(names) - 1))
    for row in cells:
        row[-1].truncate(room, overflow="ellipsis")
        grid.add_row(*row)
    _show(screen, grid)


def _show(screen: Console, grid: Table) -> None:
    """Print a table, without rich's blanks at the ends of lines."""
    with screen.capture() as captured:
        screen.print(grid)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=screen.is_terminal)


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one below the other; nothing is cut, and only a terminal wraps it."""
    from rich.table import Table
    from rich.text import Text

    known = list(pairs)
    width = max(len(name) for name, _ in known) + _GAP
    screen = console()
    if not screen.is_terminal:
        for name, value in known:
            lines = harmless(value, keep="\n").expandtabs().splitlines() or [""]
            click.echo(f"{name:{width}}" + f"\n{'':{width}}".join(lines))
        return
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in known:
        shown = harmless(value, keep="\n\t").expandtabs()
        grid.add_row(name, Text(shown, style=_STYLES.get(value, "")))
    _show(screen, grid)


def styled(value: str) -> Text:
    """A cell of a table: harmless, on one line, in the colour that its word has."""
    from rich.text import Text

    shown = harmless(value[:_LONGEST_CELL])
    return Text(shown, style=_STYLES.get(shown.partition(" ")[0], "") if len(shown) < 20 else "")


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, gone at the end; gives a function that is told how much is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=True)


def print_json(value: object) -> None:
    """One JSON document. In ASCII: it reaches every program, and no terminal obeys it."""
    click.echo(json_line(value, indent=2))


def json_line(value: object, indent: int | None = None) -> str:
    """A value as JSON, in ASCII."""
    return json.dumps(value, indent=indent, default=datetime.isoformat).replace("\x7f", "\\u007f")


def compact(value: JSON) -> str:
    """A JSON value on one line, as people like to read it."""
    return json.dumps(value, ensure_ascii=False)


def attributes(task: Task) -> dict[str, Any]:
    """A task's attributes by name; None for a value that cannot be read."""
    progress = task.progress and task.progress._asdict()
    return {name: readable(task, name) for name in _ATTRIBUTES} | {"progress": progress}


def readable(task: Task, name: str, otherwise: object = None) -> Any:
    """An attribute of a task, or ``otherwise`` where what is stored is damaged."""
    try:
        return getattr(task, name)
    except PayloadError:
        return otherwise


def local(moment: datetime | None) -> str:
    """A time as the user's clock shows it; "" for None."""
    if moment is None:
        return ""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # at the end of all days there is no local time
        return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def took(seconds: float | None) -> str:
    """A time that something took; "" for None."""
    return "" if seconds is None else f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def lasted(seconds: float | None) -> str:
    """A time in at most six characters: ``42s``, ``3m07s``, ``2h05m``, ``9d04h``; "" for None, and for no number."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return ""
    whole = max(0, int(seconds))
    if whole >= 100 * 86400:
        return f"{min(whole // 86400, 99999)}d"
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02}{smaller}"
    return f"{whole}s"


def in_bytes(number: int | None) -> str:
    """A size as people read it: ``512.0 MiB``; "" for None."""
    if number is None:
        return ""
    unit, rest = "B", float(number)
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if rest < 1024:
            break
        unit, rest = larger, rest / 1024
    return f"{number} B" if unit == "B" else f"{rest:.1f} {unit}"

"""The commands about time: history, overdue, retention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from .._formats.display import byte_size, duration, short_duration
from .._formats.quantities import duration as span
from .._formats.quantities import seconds
from ..checks import MOST
from ..history import HistoryPoint, Retention, history, retentions
from ..overdue import Unusual, unusual
from .options import checked, default_queue, json_option, one_queue_option, open_queue, operator, url_option
from .output import console, fields, local, note, print_json, table
from .queues import refuse_unknown, warn_of_unknown

T = TypeVar("T")
_BARS = "▁▂▃▄▅▆▇█"
_LABEL = 12
_NARROWEST = 20
Numbers = Sequence[float | None]


@click.command("history")
@one_queue_option
@click.option("--function", metavar="NAME", help="Only this task function, as stats --functions names it.")
@click.option("--since", default="24h", metavar="DURATION", callback=checked(seconds), help="How far to look back.")
@click.option("--step", default="10m", metavar="DURATION", callback=checked(seconds), help="The time between points.")
@json_option
@url_option
@click.pass_obj
def show_history(
    url: str | None, queue: str | None, function: str | None, since: float, step: float, json: bool
) -> None:
    """Show what attempts did, by time.

    That is how many ended, how long they took and waited, and how many tasks waited. DURATION is a number and a unit:
    30d, 12h, 5m. Without --queue, all queues are added up.
    """
    with open_queue(url) as task_queue:
        refuse_unknown(task_queue.store, queue)
        try:
            points = history(task_queue.store, queue, function, since, step)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if json:
        print_json([point._asdict() for point in points])
        return
    if not any(_attempts(point) or point.pending is not None for point in points):
        note("no attempt has ended, and no worker has run, in this time")
        return
    _draw(points)
    fields(_totals(points))


def _attempts(point: HistoryPoint) -> int:
    return point.done + _failures(point) + point.cancelled + point.released


def _failures(point: HistoryPoint) -> int:
    return point.failed + point.abandoned + point.lost


def _draw(points: Sequence[HistoryPoint]) -> None:
    """Print a line of bars for each figure, as wide as the terminal, between the times of the first and last point."""
    from rich.text import Text

    screen = console()
    room = max(_NARROWEST, screen.width - _LABEL - 14)
    each = math.ceil(len(points) / room)
    lines: list[tuple[str, Numbers, Callable[[float], str], str]] = [
        ("done", _grouped([point.done for point in points], each, sum), _number, "green"),
        ("failures", _grouped([_failures(point) for point in points], each, sum), _number, "yellow"),
        ("run p95", _grouped([point.run_p95 for point in points], each, max), duration, "cyan"),
        ("wait p95", _grouped([point.wait_p95 for point in points], each, max), duration, "cyan"),
        ("pending", _grouped([point.pending for point in points], each, max), _number, "cyan"),
        ("running", _grouped([point.running for point in points], each, max), _number, "cyan"),
    ]
    for label, values, words, style in lines:
        largest = max((value for value in values if value is not None), default=None)
        line = Text(f"{label:{_LABEL}}")
        line.append(bars(values), style)
        line.append("" if largest is None else f"  max {words(largest)}")
        screen.print(line)
    first, last = local(points[0].at), local(points[-1].at)
    width = max(len(lines[0][1]), len(first) + len(last) + 1)
    screen.print(Text(f"{'':{_LABEL}}{first}{last:>{width - len(first)}}", "dim"))


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _grouped(values: Numbers, each: int, together: Callable[[list[float]], float]) -> list[float | None]:
    """Return one value for ``each`` values; None where none of them is known."""
    groups = [[value for value in values[at : at + each] if value is not None] for at in range(0, len(values), each)]
    return [together(group) if group else None for group in groups]


def bars(values: Numbers) -> str:
    """Return a character for each value: a bar up to the largest one, a space for 0, a dot where it is unknown."""
    largest = max((value for value in values if value is not None), default=0)
    return "".join(_bar(value, largest) for value in values)


def _bar(value: float | None, largest: float) -> str:
    if value is None:
        return "·"
    if value <= 0:
        return " "
    return _BARS[min(len(_BARS) - 1, int(value / largest * len(_BARS)))]


def _totals(points: Sequence[HistoryPoint]) -> Iterator[tuple[str, str]]:
    for name in ("done", "failed", "abandoned", "cancelled", "lost", "released"):
        yield name, f"{sum(getattr(point, name) for point in points):,}"
    yield "run time", _long(sum(point.seconds for point in points))
    yield "CPU time", _long(sum(point.cpu_seconds for point in points))
    yield "peak memory", byte_size(max((point.peak_memory or 0 for point in points), default=0) or None) or "unknown"


def _long(seconds: float) -> str:
    return duration(seconds) if seconds < 300 else short_duration(seconds)


# -- tasks that may need someone -------------------------------------------------------------------


@click.command("overdue")
@one_queue_option
@json_option
@url_option
@click.pass_obj
def show_overdue(url: str | None, queue: str | None, json: bool) -> None:
    """List running tasks that may need someone.

    They are overdue, stalled, suspended or being cancelled. An overdue task takes longer than 60 s and 1.5 times as
    long as 95 % of its function's attempts. A stalled one reports progress, but not for 10 minutes, or 5 times its
    usual gap.
    """
    with open_queue(url) as task_queue:
        refuse_unknown(task_queue.store, queue)
        found = unusual(task_queue.store, None if queue is None else [queue])
    if json:
        print_json([task._asdict() for task in found])
    elif found:
        table(("id", "trouble", "for", "queue", "function", "why"), [_unusual_row(task) for task in found])
    else:
        note("no running task is overdue, stalled, suspended or being cancelled")


def _unusual_row(task: Unusual) -> tuple[str, ...]:
    return str(task.id), task.trouble, short_duration(task.seconds), task.queue, task.function, task.text


# -- retention -------------------------------------------------------------------------------------


def _unless_none(check: Callable[[str], T]) -> Callable[[str], tuple[T | None]]:
    """Return a check that also takes ``none``. The value is in a tuple, since None means that the option is missing."""
    return lambda text: (None,) if text == "none" else (check(text),)


def _most(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST):
        raise ValueError(f"invalid number {text!r}: must be a whole number up to {MOST}, or none")
    return int(text)


def _age_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    help = f"Delete {name} tasks that ended longer ago."
    return click.option(f"--{name}", metavar="DURATION", callback=checked(_unless_none(span)), help=help)


@click.command("retention")
@one_queue_option
@_age_option("done")
@_age_option("cancelled")
@_age_option("abandoned")
@click.option(
    "--most",
    metavar="NUMBER",
    callback=checked(_unless_none(_most)),
    help="Delete the oldest final tasks if there are more.",
)
@json_option
@url_option
@click.pass_obj
def retention(
    url: str | None,
    queue: str | None,
    done: tuple[float | None] | None,
    cancelled: tuple[float | None] | None,
    abandoned: tuple[float | None] | None,
    most: tuple[int | None] | None,
    json: bool,
) -> None:
    """Show or store which final tasks are deleted.

    They are deleted in the background. With an option, it is stored for the queue; "none" keeps everything again. Any
    worker of the database deletes, each minute. Unfinished tasks and the parents of unfinished ones are never deleted.
    DURATION is a number and a unit: 30d, 12h, 5m, 0s.
    """
    given = {"done": done, "cancelled": cancelled, "abandoned": abandoned, "most": most}
    changes: dict[str, Any] = {name: value[0] for name, value in given.items() if value is not None}
    with open_queue(url) as task_queue:
        store = task_queue.store
        if changes:
            queue = queue or default_queue()
            warn_of_unknown(store, queue)
            known = retentions(store).get(queue, Retention())
            task_queue.lane(queue).set_retention(**{**known._asdict(), **changes}, actor=operator())
        found = retentions(store)
    shown = found if queue is None else {queue: found.get(queue, Retention())}
    if json:
        print_json([{"queue": name, **kept._asdict()} for name, kept in shown.items()])
    elif shown:
        table(("done", "cancelled", "abandoned", "most", "queue"), [_retention_row(*each) for each in shown.items()])
    else:
        note("everything is kept in all queues")


def _retention_row(queue: str, kept: Retention) -> tuple[str, ...]:
    ages = ["kept" if age is None else short_duration(age) for age in kept[:3]]
    return *ages, "all" if kept.most is None else str(kept.most), queue

"""Charts of what attempts did, from the history that workers store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ...history import HistoryPoint, history
from ...queue import TaskQueue
from .. import charts
from ..charts import Series
from ..words import moment, number, span
from .sources import Sources

RANGES: dict[str, tuple[str, str]] = {
    "1h": ("1m", "the last hour"),
    "6h": ("5m", "the last 6 hours"),
    "24h": ("20m", "the last 24 hours"),
    "7d": ("2h", "the last 7 days"),
    "30d": ("12h", "the last 30 days"),
}
"""The ranges that a page offers, each with the length of a step and its name."""
_EVERY = 10.0


class Chart(NamedTuple):
    """A chart with its numbers. ``key``: the colours, as class and label."""

    id: str
    title: str
    image: Markup
    key: list[tuple[str, str]]
    columns: list[str]
    rows: list[list[Markup | str]]


def points(
    sources: Sources, queue: TaskQueue, since: str, name: str | None = None, function: str | None = None
) -> list[HistoryPoint] | None:
    """Return the history of a queue, a function or everything; None if it is not read yet."""
    step, _ = RANGES[since]

    def read() -> list[HistoryPoint]:
        return history(sources.slow, name, function, since, step)

    return sources.looks.counted(("history", since, name, function), read, _EVERY)


def ended(found: Sequence[HistoryPoint], since: str, height: int = 96) -> Chart:
    """Return how many attempts ended, and how."""
    series = [
        Series("done", "done", [each.done for each in found]),
        Series("failed or lost", "failed", [each.failed + each.lost for each in found]),
        Series("abandoned", "abandoned", [each.abandoned for each in found]),
        Series("cancelled or released", "cancelled", [each.cancelled + each.released for each in found]),
    ]
    sums = ", ".join(f"{sum(value or 0 for value in each.values):,.0f} {each.label}" for each in series)
    image = charts.stacked(f"Attempts ended, {RANGES[since][1]}: {sums}", series, since, height)
    title = "Attempts ended in the last hour" if since == "1h" else "Attempts ended"
    return Chart("ended", title, image, [(each.kind, each.label) for each in series], *_table(found, series))


def depth(found: Sequence[HistoryPoint], since: str) -> Chart:
    """Return how many tasks were waiting and running."""
    series = [
        Series("pending", "1", [each.pending for each in found]),
        Series("running", "2", [each.running for each in found]),
    ]
    return _lines("depth", "Tasks pending and running", found, since, series, lambda value: number(round(value)))


def waits(found: Sequence[HistoryPoint], since: str) -> Chart:
    """Return how long tasks waited."""
    series = [
        Series("usual wait", "1", [each.wait_p50 for each in found]),
        Series("95 of 100 within", "2", [each.wait_p95 for each in found]),
    ]
    return _lines("waits", "Wait from due to start", found, since, series, span)


def runs(found: Sequence[HistoryPoint], since: str) -> Chart:
    """Return how long attempts ran."""
    series = [
        Series("usual time", "1", [each.run_p50 for each in found]),
        Series("95 of 100 within", "2", [each.run_p95 for each in found]),
    ]
    return _lines("runs", "Run time of attempts", found, since, series, span)


def _lines(
    id: str,
    title: str,
    found: Sequence[HistoryPoint],
    since: str,
    series: list[Series],
    words: Callable[[float], str],
) -> Chart:
    values = [value for each in series for value in each.values if value is not None]
    most = words(max(values)) if values else ""
    latest = [f"{each.label} at most {words(max(known))}" for each in series if (known := _known(each))]
    image = charts.lines(f"{title}, {RANGES[since][1]}: {', '.join(latest) or 'nothing known'}", series, most, since)
    return Chart(id, title, image, [(each.kind, each.label) for each in series], *_table(found, series, words))


def _known(series: Series) -> list[float]:
    return [value for value in series.values if value is not None]


def _table(
    found: Sequence[HistoryPoint],
    series: list[Series],
    words: Callable[[float], str] = lambda value: number(round(value)),
) -> tuple[list[str], list[list[Markup | str]]]:
    """Return the columns and rows of the table of a chart, newest first, without steps in which nothing happened."""
    rows: list[list[Markup | str]] = []
    for index in reversed(range(len(found))):
        values = [each.values[index] for each in series]
        if any(values):
            rows.append([charts.when(moment(found[index].at) or 0), *("" if v is None else words(v) for v in values)])
    return ["From", *(each.label for each in series)], rows

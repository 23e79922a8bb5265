"""Charts as SVG, made on the server: they need no script, print well, and follow the theme by their classes.

Positions are percentages, so that a chart is as wide as its place and its texts keep their size. Each chart is an image
with a name; pages show its numbers in a table beneath. All texts are escaped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from .words import iso, span, utc

_MICROSECONDS = 1_000_000
_NARROWEST = 0.3
"""Percent: a bar that is narrower could not be seen."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


class Bar(NamedTuple):
    """A part of a timeline, in microseconds. ``kind``: the class of its colour."""

    start: int
    end: int
    kind: str
    label: str
    title: str


def timeline(name: str, bars: Sequence[Bar], start: int, end: int, marks: Sequence[tuple[int, str]] = ()) -> Markup:
    """Return bars on one line of time, with the times beneath. ``marks``: moments to point out."""
    length = max(end - start, 1)

    def at(moment: int) -> float:
        return 100 * min(max(moment - start, 0), length) / length

    parts = [_open(name, 54)]
    parts.append(Markup('<rect x="0" y="10" width="100%" height="20" rx="4" class="area" opacity=".5"></rect>'))
    for bar in bars:
        left = at(bar.start)
        width = max(at(bar.end) - left, _NARROWEST)
        parts.append(
            Markup(
                '<g><title>{}</title><rect x="{:.3f}%" y="10" width="{:.3f}%" height="20" rx="3" class="b-{}"></rect>'
            ).format(bar.title, min(left, 100 - _NARROWEST), width, bar.kind)
        )
        if bar.label and width > 1.2 * len(bar.label) + 2:
            parts.append(Markup('<text x="{:.3f}%" dx="8" y="24" class="on">{}</text>').format(left, bar.label))
        parts.append(Markup("</g>"))
    for moment, label in marks:
        if start <= moment <= end:
            place = at(moment)
            parts.append(
                Markup('<line x1="{0:.3f}%" x2="{0:.3f}%" y1="4" y2="36" class="l2"></line><title>{1}</title>').format(
                    place, label
                )
            )
    parts += _ticks(start, end, at)
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _ticks(start: int, end: int, at: Callable[[int], float]) -> list[Markup]:
    """Return five times below the line: as time since its start, which needs no zone."""
    found = []
    for number in range(5):
        share = number / 4
        seconds = (end - start) * share / _MICROSECONDS
        anchor = ("start", "middle", "middle", "middle", "end")[number]
        text = "0" if number == 0 else f"+{span(float(int(seconds)) if seconds >= 10 else seconds)}"
        found.append(
            Markup('<text x="{:.1f}%" y="50" text-anchor="{}" class="t-{}">{}</text>').format(
                100 * share, anchor, number + 1, text
            )
        )
    return found


class Series(NamedTuple):
    """One line or one colour of bars: ``values`` at the moments of the chart, None where nothing is known."""

    label: str
    kind: str
    values: Sequence[float | None]


def stacked(name: str, series: Sequence[Series], since: str, height: int = 96) -> Markup:
    """Return stacked bars, one at each moment. ``since``: how long ago the first one was."""
    count = max((len(each.values) for each in series), default=0)
    sums = [sum(each.values[index] or 0 for each in series) for index in range(count)]
    most = max([*sums, 1])
    parts = [_open(name, height + 18), *_scale(height, f"{most:,.0f}", since)]
    width = 100 / max(count, 1)
    for index in range(count):
        top = float(height)
        for each in series:
            tall = (each.values[index] or 0) / most * (height - 8)
            if tall <= 0:
                continue
            top -= max(tall, 1.0)
            parts.append(
                Markup('<rect x="{:.3f}%" y="{:.1f}" width="{:.3f}%" height="{:.1f}" class="b-{}"></rect>').format(
                    index * width, top, width * 0.8, max(tall, 1.0), each.kind
                )
            )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def lines(name: str, series: Sequence[Series], top_label: str, since: str, height: int = 96) -> Markup:
    """Return lines; a hole in the values is a hole in the line. ``since``: how long ago they start."""
    values = [value for each in series for value in each.values if value is not None]
    most = max([*values, 1e-9])
    parts = [_open(name, height + 18), *_scale(height, top_label, since)]
    for number, each in enumerate(series, 1):
        count = max(len(each.values) - 1, 1)
        for run in _runs(each.values):
            points = [(100 * index / count, height - value / most * (height - 8)) for index, value in run]
            if len(points) == 1:
                points.append((points[0][0] + 0.5, points[0][1]))
            for (x1, y1), (x2, y2) in itertools.pairwise(points):
                parts.append(
                    Markup('<line x1="{:.3f}%" y1="{:.1f}" x2="{:.3f}%" y2="{:.1f}" class="l{}"></line>').format(
                        x1, y1, x2, y2, number
                    )
                )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Return the values without holes, each run of them with its places."""
    found: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((index, value))
    return [run for run in found if run]


def _open(name: str, height: int) -> Markup:
    return Markup('<svg class="chart" role="img" aria-label="{}" height="{}" width="100%">').format(
        escape(name), height
    )


def _scale(height: int, top: str, since: str) -> list[Markup]:
    return [
        Markup('<line x1="0" x2="100%" y1="{0}" y2="{0}" class="grid"></line>').format(height),
        Markup('<line x1="0" x2="100%" y1="8" y2="8" class="grid" stroke-dasharray="2 4"></line>'),
        Markup('<text x="100%" y="5" text-anchor="end">{}</text>').format(top),
        Markup('<text x="0" y="{}">{} ago</text>').format(height + 15, since),
        Markup('<text x="100%" y="{}" text-anchor="end">now</text>').format(height + 15),
    ]


def when(at: int) -> Markup:
    """Return a moment for a cell of a table."""
    return Markup('<time datetime="{}" data-t="at">{}</time>').format(iso(at), utc(at))

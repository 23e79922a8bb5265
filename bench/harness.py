"""What all measurements share: interleaved repeats, medians, rows, and tables of rows."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .rivals import Rivals


@dataclass(frozen=True)
class Bench:
    """The settings of one run: where its files are, and how often and how long it measures."""

    directory: Path
    cache: Path
    rivals: Rivals
    quick: bool = False

    @property
    def repeats(self) -> int:
        """The number of repeats of each measurement."""
        return 2 if self.quick else 5

    def some(self, number: int) -> int:
        """Return ``number``, or far fewer in a quick run."""
        return max(1, number // 5) if self.quick else number

    def say(self, text: str) -> None:
        """Print what is being measured."""
        print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Row:
    """One target: a value for each repeat, and what their median must be."""

    group: str
    what: str
    values: list[float]
    unit: str
    target: float
    at_least: bool = False
    details: str = ""

    @property
    def median(self) -> float:
        """The value that is compared with the target."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        """Whether the target was met in this run."""
        return self.median >= self.target if self.at_least else self.median <= self.target

    @property
    def verdict(self) -> str:
        """``is_met`` as a word."""
        return "met" if self.is_met else "MISSED"

    @property
    def measured(self) -> str:
        """The median and the range of the repeats, as text."""
        spread = f" ({_number(min(self.values))}…{_number(max(self.values))})" if len(self.values) > 1 else ""
        return f"{_number(self.median)}{spread} {self.unit}"

    @property
    def target_text(self) -> str:
        """The target with its direction, as text."""
        return f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}"

    def as_dict(self) -> dict[str, object]:
        """Return the row for the JSON file."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return own | {"median": self.median, "met": self.is_met}


def interleave(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure A B C A B C …, so that disturbances of the machine affect all alike."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Return the ratio within each repeat, whose two measurements ran one after the other."""
    return [a / b for a, b in zip(over, under, strict=True)]


def rate(values: list[float]) -> str:
    """Return the median tasks per second as text, for the details of a row."""
    return f"{statistics.median(values):,.0f}/s"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def show(header: Mapping[str, str], rows: list[Row]) -> None:
    """Print everything as a table for a terminal."""
    console = Console(highlight=False)
    for name, value in header.items():
        console.print(f"[bold]{name}[/]: {value}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("what", "median (min…max)", "target", ""):
        table.add_column(name, no_wrap=name != "what")
    for row in rows:
        colour = "green" if row.is_met else "bold red"
        what = f"{row.what}\n[dim]{row.details}[/]" if row.details else row.what
        table.add_row(what, row.measured, row.target_text, f"[{colour}]{row.verdict}[/]")
    console.print(table)
    missed = [row.what for row in rows if not row.is_met]
    console.print(
        f"{len(rows) - len(missed)} of {len(rows)} targets met" + "".join(f"\nMISSED: {what}" for what in missed)
    )


def show_markdown(header: Mapping[str, str], rows: list[Row]) -> None:
    """Print everything as Markdown, for docs/benchmarks.md."""
    print("| what | measured: median (min…max) | target | |\n|---|---|---|---|")
    for row in rows:
        details = f"<br>{row.details}" if row.details else ""
        verdict = "met" if row.is_met else "**missed**"
        print(f"| {row.what}{details} | {row.measured} | {row.target_text} | {verdict} |")
    print("\n" + "; ".join(f"{name}: {value}" for name, value in header.items()) + ".")


def write_json(path: Path, header: Mapping[str, str], rows: list[Row]) -> None:
    """Write everything as JSON, including the value of each repeat."""
    path.write_text(json.dumps({"header": dict(header), "rows": [row.as_dict() for row in rows]}, indent=2) + "\n")

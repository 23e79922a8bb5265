"""Many processes write to one file: how long must a single write wait?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row, interleave
from .processes import next_line, run_child, start_child

PROCESSES = 8
_SECONDS = 3.0
_START_UP = 1.5
_MILLI = 1e3


def measure(bench: Bench) -> Iterator[Row]:
    """Measure the longest single enqueue, and for comparison that of SQLite's own busy handler."""
    bench.say(f"{PROCESSES} processes that write")
    counts: dict[str, list[int]] = {"ours": [], "bare": []}
    measures = {kind: lambda kind=kind: _longest(bench, kind, counts[kind]) for kind in counts}
    found = interleave(measures, bench.repeats)
    busy = found["bare"]
    yield Row(
        "contention",
        f"longest single enqueue with {PROCESSES} processes writing",
        found["ours"],
        "ms",
        100,
        details=f"{_rate(counts['ours'])} written; SQLite's own busy handler: {statistics.median(busy):,.0f}"
        f" ({min(busy):,.0f}…{max(busy):,.0f}) ms, {_rate(counts['bare'])}",
    )


def _rate(counts: list[int]) -> str:
    return f"{statistics.median(counts) / _SECONDS:,.0f}/s"


def _longest(bench: Bench, kind: str, counts: list[int]) -> float:
    with databases.fresh(bench) as path, ExitStack() as stack:
        if kind == "ours":
            TaskQueue(databases.url(path)).close()
        else:
            run_child("bare_worker.py", "fill", path, 0)
        start = time.monotonic() + _START_UP
        arguments = kind, path, start, _SECONDS
        writers = [stack.enter_context(start_child("longest.py", *arguments)) for _ in range(PROCESSES)]
        heards = [next_line(writer) for writer in writers]
    counts.append(sum(each["count"] for each in heards))
    return max(each["longest"] for each in heards) * _MILLI

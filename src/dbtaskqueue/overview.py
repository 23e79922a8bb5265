"""How task functions do, from what their latest attempts were. Pure: records in, figures out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ._store.contract import EndedRecord

LATEST = 10_000
"""How many ended attempts are looked at, the newest ones."""

COMMANDS, CALLBACK = "(commands)", "(callback)"
"""What has no task function is shown under these names."""
_FAILURES = frozenset({"failed", "abandoned", "lost"})


class FunctionStats(NamedTuple):
    """How a task function did in its latest ended attempts, releases not counted.

    ``failures``: how many ended failed, abandoned or lost. ``p50``, ``p95``: seconds that half of them, and 95 of 100,
    took at the most; ``cpu_p50``: the same of CPU seconds, ``peak_memory`` in bytes. None where nothing was measured.
    ``function`` is "(commands)" for command lines and "(callback)" for what a worker's callback runs.
    """

    function: str
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    failures: int
    p50: float | None
    p95: float | None
    cpu_p50: float | None
    peak_memory: int | None


def name_of(function: str | None, command: int) -> str:
    """Under which name a task counts."""
    return COMMANDS if command else CALLBACK if function is None else function


def summarize(attempts: Iterable[EndedRecord]) -> list[FunctionStats]:
    """A line for each function, by name."""
    by_name: defaultdict[str, list[EndedRecord]] = defaultdict(list)
    for attempt in attempts:
        if attempt.outcome != "released":
            by_name[name_of(attempt.function, attempt.command)].append(attempt)
    return [_summary(name, by_name[name]) for name in sorted(by_name)]


def percentile(values: Sequence[float], of_hundred: int) -> float | None:
    """The nearest-rank percentile: the smallest of the values that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * of_hundred / 100) - 1] if ordered else None


def _summary(name: str, attempts: Sequence[EndedRecord]) -> FunctionStats:
    times = [
        max(0, each.finished_at - each.started_at) / 1e6  # the clock may have been set back
        for each in attempts
        if each.started_at is not None and each.finished_at is not None
    ]
    cpu = [each.cpu / 1e6 for each in attempts if each.cpu is not None]
    return FunctionStats(
        name,
        len(attempts),
        sum(each.outcome in _FAILURES for each in attempts),
        percentile(times, 50),
        percentile(times, 95),
        percentile(cpu, 50),
        max((each.memory for each in attempts if each.memory is not None), default=None),
    )

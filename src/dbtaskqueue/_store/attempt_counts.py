"""Adding up rows of the history. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from .._formats import buckets
from .._formats.function_names import name_of
from .contract import HistoryRecord
from .records import SampleRecord

MINUTE = 60
SECOND = 1_000_000
_SUMS = ("done", "failed", "abandoned", "cancelled", "lost", "released", "seconds", "cpu")


class EndedHere(NamedTuple):
    """An attempt that ends in a transaction of the store."""

    queue: str
    function: str | None
    command: int
    outcome: str
    started_at: int | None
    ready_at: int
    """When the task was due, or created if that was later."""


def row_of(attempt: EndedHere, at: int) -> HistoryRecord:
    """Return the row of an attempt that ends at this time."""
    started = at if attempt.started_at is None else max(0, attempt.started_at)  # a damaged row must count, too
    ran, run_times, wait_times = max(0, at - started), [0] * buckets.SIZE, [0] * buckets.SIZE
    run_times[buckets.index_of(ran)] = wait_times[buckets.index_of(started - attempt.ready_at)] = 1
    row = HistoryRecord(
        MINUTE,
        at - at % (MINUTE * SECOND),
        0,
        attempt.queue,
        name_of(attempt.function, attempt.command).encode(errors="replace").decode(),
        seconds=ran,
        run_times=buckets.encode(run_times),
        wait_times=buckets.encode(wait_times),
    )
    return row._replace(**{attempt.outcome: 1})  # type: ignore[arg-type]


def merged(rows: Iterable[HistoryRecord]) -> list[HistoryRecord]:
    """Return the rows with those of the same key added up."""
    groups: defaultdict[tuple[Any, ...], list[HistoryRecord]] = defaultdict(list)
    for row in rows:
        groups[row[:5]].append(row)
    return [sum_of(*group) for group in groups.values()]


def sum_of(*rows: HistoryRecord) -> HistoryRecord:
    """Return the first row with the figures of the others added. All at once: decoding each sum again takes long."""
    if len(rows) == 1:
        return rows[0]
    return rows[0]._replace(
        **{name: sum(map(attrgetter(name), rows)) for name in _SUMS},
        memory=largest(*(row.memory for row in rows)),
        run_times=buckets.encode(buckets.decode(*(row.run_times for row in rows))),
        wait_times=buckets.encode(buckets.decode(*(row.wait_times for row in rows))),
    )


def largest(*values: int | None) -> int | None:
    """Return the largest value; None if all are unknown."""
    return max((each for each in values if each is not None), default=None)


def maxima(one: SampleRecord, other: SampleRecord) -> SampleRecord:
    """Return the first sample with the larger value of each figure."""
    return SampleRecord(*one[:3], *map(largest, one[3:], other[3:]))  # type: ignore[arg-type]

"""What attempts did and how queues were, by time: ``TaskQueue.history``, and figures of functions from the same rows.

Workers store counts by minute (``_maintenance/attempt_history.py``), and one of them a sample of each queue a minute
(``_maintenance/upkeep.py``). Older rows are of longer periods. This module only reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from ._formats import buckets, quantities
from ._store.contract import HistoryRecord, NewAction, RetentionRecord, SampleRecord, Store
from ._system import clock
from .checks import MOST, check_seconds, shown

MOST_POINTS = 10_000
"""The most points that one call returns."""
_SECOND = 1_000_000
_MINUTE = 60 * _SECOND


class HistoryPoint(NamedTuple):
    """What attempts did in one step of time, and how the queue was.

    ``at``: when the step starts. ``queue`` and ``function``: None for all. ``done`` to ``released``: how many attempts
    ended so. ``seconds``: how long they ran in total, without the time for which they were suspended; ``cpu_seconds``:
    the CPU time that was measured. ``peak_memory``: the largest one in bytes, or None. ``run_p50`` and ``run_p95``: the
    seconds that 50 % and 95 % of the attempts did not exceed, ``wait_p50`` and ``wait_p95`` the same for the time from
    due to start. They are interpolated in buckets whose bounds are powers of two, so they are wrong by less than a
    factor of two; None if no attempt has ended.

    ``pending``, ``running``, ``oldest_due`` (seconds) and ``workers`` are the largest values of samples, one a minute.
    They are None if there is no sample, such as while no worker ran.
    """

    at: datetime
    queue: str | None
    function: str | None
    done: int
    failed: int
    abandoned: int
    cancelled: int
    lost: int
    released: int
    seconds: float
    cpu_seconds: float
    peak_memory: int | None
    run_p50: float | None
    run_p95: float | None
    wait_p50: float | None
    wait_p95: float | None
    pending: int | None
    running: int | None
    oldest_due: float | None
    workers: int | None


def history(
    store: Store,
    queue: str | None,
    function: str | None,
    since: float | timedelta | str,
    step: float | timedelta | str,
) -> list[HistoryPoint]:
    """Return a point for each step from ``since`` ago until now: see ``TaskQueue.history``."""
    width = max(1, round(seconds_of(step, "step") * _SECOND))
    age = round(seconds_of(since, "since") * _SECOND)
    if width < _SECOND:
        raise ValueError(f"step must be at least 1 s, not {shown(step)}")
    if age // width >= MOST_POINTS:
        raise ValueError(f"since / step must be at most {MOST_POINTS:,} points, not {age // width + 1:,}")
    now = store.outlook(clock.now()).now  # rows have the times of the database's clock
    start = max(0, now - age)
    start -= start % width
    counts = _by_step(store.history(start - start % _MINUTE, queue=queue, function=function), start, width)
    samples = _samples_by_step(store.samples(start - start % _MINUTE, queue), start, width)
    return [_point(at, queue, function, counts.get(at, []), samples.get(at)) for at in range(start, now + 1, width)]


def seconds_of(duration: float | timedelta | str, name: str) -> float:
    """Return a duration of at least 0 in seconds: a number, a timedelta, or text such as 10m. Raises ValueError."""
    if isinstance(duration, str):
        try:
            duration = quantities.seconds(duration)
        except ValueError:
            raise ValueError(
                f"{name} must be seconds, a timedelta or text such as 10m, not {shown(duration)}"
            ) from None
    return check_seconds(duration, name, finite=True, positive=True)


def _by_step(rows: Iterable[HistoryRecord], start: int, width: int) -> dict[int, list[HistoryRecord]]:
    found: defaultdict[int, list[HistoryRecord]] = defaultdict(list)
    for row in rows:
        found[_step(row.at, start, width)].append(row)
    return found


def _step(at: int, start: int, width: int) -> int:
    return max(start, at - at % width)


def _samples_by_step(rows: Iterable[SampleRecord], start: int, width: int) -> dict[int, SampleRecord]:
    """Return the largest values of each step: samples of the same time are of different queues, and are added up."""
    by_time: dict[tuple[int, int], SampleRecord] = {}
    for row in rows:
        known = by_time.get((row.at, row.period))
        by_time[row.at, row.period] = row if known is None else _together(known, row)
    found: dict[int, SampleRecord] = {}
    for row in by_time.values():
        at = _step(row.at, start, width)
        found[at] = row if at not in found else _larger(found[at], row)
    return found


def _together(one: SampleRecord, other: SampleRecord) -> SampleRecord:
    """Return a sample of two queues. A worker may serve both, so the number of workers is not a sum."""
    return one._replace(
        pending=one.pending + other.pending,
        running=one.running + other.running,
        oldest_due=_max(one.oldest_due, other.oldest_due),
        workers=max(one.workers, other.workers),
    )


def _larger(one: SampleRecord, other: SampleRecord) -> SampleRecord:
    return one._replace(
        pending=max(one.pending, other.pending),
        running=max(one.running, other.running),
        oldest_due=_max(one.oldest_due, other.oldest_due),
        workers=max(one.workers, other.workers),
    )


def _max(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _point(
    at: int, queue: str | None, function: str | None, rows: list[HistoryRecord], sample: SampleRecord | None
) -> HistoryPoint:
    run_times, wait_times = [0] * buckets.SIZE, [0] * buckets.SIZE
    for row in rows:
        run_times = buckets.added(run_times, buckets.decode(row.run_times))
        wait_times = buckets.added(wait_times, buckets.decode(row.wait_times))
    moment = clock.to_datetime(at)
    assert moment is not None
    return HistoryPoint(
        moment,
        queue,
        function,
        sum(row.done for row in rows),
        sum(row.failed for row in rows),
        sum(row.abandoned for row in rows),
        sum(row.cancelled for row in rows),
        sum(row.lost for row in rows),
        sum(row.released for row in rows),
        sum(row.seconds for row in rows) / 1e6,
        sum(row.cpu for row in rows) / 1e6,
        _max(*(row.memory for row in rows)),
        buckets.percentile(run_times, 50),
        buckets.percentile(run_times, 95),
        buckets.percentile(wait_times, 50),
        buckets.percentile(wait_times, 95),
        None if sample is None else sample.pending,
        None if sample is None else sample.running,
        None if sample is None or sample.oldest_due is None else sample.oldest_due / 1e6,
        None if sample is None else sample.workers,
    )


# -- retention -------------------------------------------------------------------------------------


class Retention(NamedTuple):
    """What is pruned in the background in a queue; None is kept.

    ``done``, ``cancelled`` and ``abandoned``: the seconds after its end for which a task is kept. ``most``: the most
    final tasks that are kept; the oldest ones are deleted.
    """

    done: float | None = None
    cancelled: float | None = None
    abandoned: float | None = None
    most: int | None = None


def retention_of(store: Store, queue: str) -> Retention:
    """Return what is pruned in a queue."""
    return retentions(store).get(queue, Retention())


def retentions(store: Store) -> dict[str, Retention]:
    """Return what is pruned in each queue, by name. Queues in which everything is kept are left out."""

    def seconds(time: int | None) -> float | None:
        return None if time is None else time / _SECOND

    return {
        found.queue: Retention(seconds(found.done), seconds(found.cancelled), seconds(found.abandoned), found.most)
        for found in store.retentions()
    }


def store_retention(
    store: Store,
    queue: str,
    *,
    done: float | timedelta | None = None,
    cancelled: float | timedelta | None = None,
    abandoned: float | timedelta | None = None,
    most: int | None = None,
    action: NewAction | None = None,
) -> None:
    """Store what is pruned in a queue: see ``TaskQueue.set_retention``. Raises ValueError for an invalid limit."""
    ages = {"done": done, "cancelled": cancelled, "abandoned": abandoned}
    times = {name: None if age is None else clock.after(0, age, name) for name, age in ages.items()}
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or not 0 <= most <= MOST):
        raise ValueError(f"most must be a whole number from 0 to {MOST}, not {shown(most)}")
    store.set_retention(RetentionRecord(queue, **times, most=most), action)

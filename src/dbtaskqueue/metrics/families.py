"""From a census to metric families, within a limit on the number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Generic, TypeVar

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from .. import __version__
from .._formats.buckets import BOUNDS
from .._formats.function_names import OTHER
from .._store.contract import ScheduleRecord
from ..monitoring.snapshot import QueueSnapshot
from ..states import TaskState
from .census import OUTCOMES, WORKER_STATES, Census, Ended, Pair, Running, label

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_SAMPLES = 2000
_QUEUES, _SCHEDULES, _RUNNING = 50, 100, 50
"""The most queues, schedules, and functions with running tasks that have samples of their own."""
_WAITS_SHARE = 0.4
"""The most of the remaining samples that the waits of queues take; the rest is for functions."""
_POSITIONS = [index for index, bound in enumerate(BOUNDS) if bound >= 1 or index % 2 == 0]
"""The buckets with samples: powers of two from a second on, and powers of four below, where tasks are not long."""
_LE = [str(floatToGoString(bound)) for bound in BOUNDS]  # type: ignore[no-untyped-call]
_HISTOGRAM = len(_POSITIONS) + 3
"""The samples of a histogram: also those of ``le="+Inf"``, the count and the sum."""
_OF_FUNCTION = len(OUTCOMES) + _HISTOGRAM


class Chosen(Generic[K]):
    """Which names have samples of their own: the first that fit, and from then on as long as possible the same ones.

    If one of the others took a place later, the counters of all the others together would fall.
    """

    def __init__(self) -> None:
        self._names: list[K] = []

    def of(self, found: Mapping[K, V], most: int, rank: Callable[[V], float], other: K) -> dict[K, V]:
        """Return what belongs to the chosen names, and the sum of all the others under the name ``other``."""
        names = [name for name in self._names if name in found]
        names += sorted(found.keys() - {*names, other}, key=lambda name: (-rank(found[name]), name))
        self._names = names[: most if len(found) <= most else most - 1]
        rest = [found[name] for name in found.keys() - set(self._names)]
        return {name: found[name] for name in self._names} | ({other: reduce(add, rest)} if rest else {})


class Families:
    """Makes metric families of one census after another."""

    def __init__(self) -> None:
        self._waits = Chosen[str]()
        self._ended = Chosen[Pair]()
        self._used = 0

    def of(self, census: Census) -> list[Metric]:
        """Return the families of a census, with at most MOST_SAMPLES samples."""
        others = (OTHER, OTHER)
        found = [
            *_health(up=True),
            *_workers(census),
            *_queues(census.queues),
            *_schedules(census.schedules),
        ]
        running = Chosen[Pair]().of(census.running, _RUNNING, lambda each: each.tasks, others)
        rest = self._rest(found)
        waits = _by_queue(census.ended)
        waits = self._waits.of(waits, _places(rest * _WAITS_SHARE, _HISTOGRAM), lambda each: each.attempts, OTHER)
        most = _places(rest - len(waits) * _HISTOGRAM, _OF_FUNCTION)
        ended = self._ended.of(census.ended, most, lambda each: each.attempts, others)
        return [*found, *_running(running), *_ended(ended), _waits(waits)]

    def _rest(self, found: Iterable[Metric]) -> int:
        """Return how many samples are left for counters of functions, if all gauges of functions are there.

        It only falls, so that functions do not lose and regain their places.
        """
        self._used = max(self._used, sum(len(family.samples) for family in found))
        return MOST_SAMPLES - self._used - _RUNNING * len(Running._fields)


def unavailable() -> list[Metric]:
    """Return the families while the database is unavailable."""
    return list(_health(up=False))


def _places(samples: float, each: int) -> int:
    return max(1, int(samples // each))


def _health(*, up: bool) -> Iterator[Metric]:
    yield GaugeMetricFamily("dbtaskqueue_up", "Whether the database answered the last count.", value=up)
    yield InfoMetricFamily("dbtaskqueue_build", "The version of dbtaskqueue.", value={"version": __version__})


def _workers(census: Census) -> Iterator[Metric]:
    workers = _gauge("workers", "Workers. Lost ones are listed for a day.", "state")
    for state in WORKER_STATES:
        workers.add_metric([state], census.workers[state])
    yield workers
    yield CounterMetricFamily("dbtaskqueue_workers_lost", "Workers that were marked lost.", value=census.lost)


def _gauge(name: str, help: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dbtaskqueue_{name}", help, labels=labels)


# -- queues and schedules --------------------------------------------------------------------------


def _queues(queues: Iterable[QueueSnapshot]) -> Iterator[Metric]:
    tasks = _gauge("tasks", "Tasks of the queue in this state.", "queue", "state")
    oldest = _gauge("queue_oldest_due_age_seconds", "How long the longest-waiting due task has waited.", "queue")
    paused = _gauge("queue_paused", "1: the queue is paused.", "queue")
    blocked = _gauge("blocked_tasks", "Unfinished tasks that wait for parents; among dbtaskqueue_tasks.", "queue")
    for queue in _most_busy(queues):
        for state, number in queue.counts.items():
            tasks.add_metric([queue.name, state], number)
        oldest.add_metric([queue.name], queue.waited or 0)
        paused.add_metric([queue.name], queue.paused)
        blocked.add_metric([queue.name], queue.blocked)
    yield from (tasks, oldest, paused, blocked)


def _most_busy(queues: Iterable[QueueSnapshot]) -> list[QueueSnapshot]:
    ranked = sorted(queues, key=lambda queue: (-sum(queue.counts.values()), queue.name))
    if len(ranked) <= _QUEUES:
        return ranked
    rest = ranked[_QUEUES - 1 :]
    counts = {state: sum(queue.counts[state] for queue in rest) for state in TaskState}
    waited = max((queue.waited for queue in rest if queue.waited is not None), default=None)
    blocked = sum(queue.blocked for queue in rest)
    return [*ranked[: _QUEUES - 1], QueueSnapshot(OTHER, counts, waited, False, blocked)]


def _schedules(schedules: Sequence[ScheduleRecord]) -> Iterator[Metric]:
    labels = ("queue", "schedule")
    last = _gauge("schedule_last_tick_timestamp_seconds", "The last tick that ran, was skipped or was missed.", *labels)
    missed = CounterMetricFamily("dbtaskqueue_schedule_missed", "Ticks that were missed.", labels=labels)
    for schedule in schedules[:_SCHEDULES]:
        names = [label(schedule.queue), label(schedule.name)]
        if schedule.last_at is not None:
            last.add_metric(names, schedule.last_at / 1e6)
        missed.add_metric(names, schedule.missed)
    if rest := schedules[_SCHEDULES:]:
        missed.add_metric([OTHER, OTHER], sum(schedule.missed for schedule in rest))
    yield from (last, missed)


# -- functions -------------------------------------------------------------------------------------


def _running(running: Mapping[Pair, Running]) -> Iterator[Metric]:
    labels = ("queue", "function")
    tasks = _gauge("running_tasks", "Running tasks.", *labels)
    longest = _gauge("running_longest_seconds", "For how long the longest of them has run.", *labels)
    overdue = _gauge("overdue_tasks", "Running tasks that take much longer than usual for their function.", *labels)
    stalled = _gauge("stalled_tasks", "Running tasks whose progress has stopped.", *labels)
    for pair, found in running.items():
        tasks.add_metric(pair, found.tasks)
        longest.add_metric(pair, found.longest)
        overdue.add_metric(pair, found.overdue)
        stalled.add_metric(pair, found.stalled)
    yield from (tasks, longest, overdue, stalled)


def _ended(ended: Mapping[Pair, Ended]) -> Iterator[Metric]:
    labels = ("queue", "function")
    attempts = CounterMetricFamily("dbtaskqueue_attempts", "Attempts that have ended.", labels=(*labels, "outcome"))
    seconds = HistogramMetricFamily("dbtaskqueue_attempt_duration_seconds", "How long attempts ran.", labels=labels)
    for pair, found in ended.items():
        for outcome, number in zip(OUTCOMES, found.outcomes, strict=True):
            attempts.add_metric([*pair, outcome], number)
        seconds.add_metric(pair, _buckets(found.runs), found.microseconds / 1e6)
    yield from (attempts, seconds)


def _by_queue(ended: Mapping[Pair, Ended]) -> dict[str, Ended]:
    found: dict[str, Ended] = {}
    for (queue, _), each in ended.items():
        found[queue] = found[queue] + each if queue in found else each
    return found


def _waits(waits: Mapping[str, Ended]) -> Metric:
    help = "How long tasks waited from their due time to their start. The sum is estimated from the buckets."
    family = HistogramMetricFamily("dbtaskqueue_wait_seconds", help, labels=("queue",))
    for queue, found in waits.items():
        family.add_metric([queue], _buckets(found.waits), _estimated_sum(found.waits))
    return family


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return the cumulative counts of the buckets with samples. A bound is the bucket's upper one, inclusive."""
    cumulative = [(_LE[index], sum(counts[: index + 1])) for index in _POSITIONS]
    return [*cumulative, ("+Inf", sum(counts))]


def _estimated_sum(counts: Sequence[int]) -> float:
    return sum(number * bound / math.sqrt(2) for number, bound in zip(counts, BOUNDS, strict=True))

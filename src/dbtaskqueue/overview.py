"""What a store knows about its queues, workers and task functions, as public records.

``TaskQueue`` returns these records, and ``monitoring`` builds on the same functions. They only read.
"""

from __future__ import annotations

import json
import math
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from ._formats.function_names import CALLBACK as CALLBACK
from ._formats.function_names import COMMANDS as COMMANDS
from ._formats.function_names import name_of as name_of
from ._store.contract import EndedRecord, Store, WorkerRecord
from ._system import clock, place
from .checks import is_served
from .states import FINAL, TaskState

LATEST = 10_000
"""The number of ended attempts of a queue that are read, newest first."""

_FAILURES = frozenset({"failed", "abandoned", "lost"})

_FINAL_COUNTS_AGE = 10.0
_QUICK_COUNT = 0.02
"""Seconds. Final states that take longer to count are counted only every ``_FINAL_COUNTS_AGE`` seconds."""


# -- queues ----------------------------------------------------------------------------------------


class QueueStats(NamedTuple):
    """The number of tasks in each state, and the condition of a queue.

    ``oldest_due``: the longest wait of a due task in seconds, or None. A task waits from its due time on, or from when
    it was enqueued, released, failed or retried, if that was later. ``workers``: live ones of the whole database.
    Counts of final states may be up to 10 s old. ``blocked``: unfinished tasks that wait for parents. They count as
    pending or failed, too, and ``oldest_due`` leaves them out.
    """

    pending: int
    reserved: int
    running: int
    failed: int
    done: int
    cancelled: int
    abandoned: int
    oldest_due: float | None
    workers: int
    paused: bool
    blocked: int = 0


class QueueInfo(NamedTuple):
    """One queue of the database: its name, and the fields of QueueStats.

    ``workers``: the live workers that serve this queue. A program that calls ``fetch()`` does not report its queue, so
    it is not counted.
    """

    name: str
    pending: int
    reserved: int
    running: int
    failed: int
    done: int
    cancelled: int
    abandoned: int
    oldest_due: float | None
    workers: int
    paused: bool
    blocked: int = 0


class TaskCounts:
    """Counts the tasks of queues by state. Counts of final states are reused for 10 s if they take long."""

    def __init__(self) -> None:
        # by database and queue: in a test, another database may have the same queues
        self._final: weakref.WeakKeyDictionary[Store, dict[str, tuple[float, dict[TaskState, int]]]]
        self._final = weakref.WeakKeyDictionary()

    def of(self, store: Store, queue: str) -> dict[TaskState, int]:
        """Return the number of tasks in each state."""
        started = time.monotonic()
        known = self._final.setdefault(store, {})
        good_until, final = known.get(queue, (-math.inf, {}))
        if started < good_until:
            return store.count(queue, final=False) | final
        counts = store.count(queue, final=True)
        seconds = time.monotonic() - started
        if seconds > _QUICK_COUNT:
            known[queue] = started + _FINAL_COUNTS_AGE, {state: counts[state] for state in FINAL}
        return counts


def queue_stats(store: Store, queue: str, counts: TaskCounts) -> QueueStats:
    """Return the statistics of a queue."""
    by_state = counts.of(store, queue)
    waited = seconds_waited(store, queue)
    workers = len(live_workers(store))
    return QueueStats(
        **{state.value: by_state[state] for state in TaskState},
        oldest_due=waited,
        workers=workers,
        paused=store.is_paused(queue),
        blocked=store.count_blocked(queue),
    )


def queue_infos(store: Store, counts: TaskCounts) -> list[QueueInfo]:
    """Return all queues that have tasks or schedules or are paused, by name."""
    served = [names for worker in live_workers(store) if (names := queues_of(worker)) is not None]
    found = []
    for name in store.queues():
        by_state = counts.of(store, name)
        info = QueueInfo(
            name,
            **{state.value: by_state[state] for state in TaskState},
            oldest_due=seconds_waited(store, name),
            workers=sum(is_served(name, names) for names in served),
            paused=store.is_paused(name),
            blocked=store.count_blocked(name),
        )
        found.append(info)
    return found


def seconds_waited(store: Store, queue: str) -> float | None:
    """Return how long the longest-waiting due task of a queue has waited, or None."""
    now = clock.now()
    since = store.waiting_since(queue, now)
    return None if since is None else (now - since) / 1e6


# -- workers ---------------------------------------------------------------------------------------


class WorkerInfo(NamedTuple):
    """One worker: live, or lost within the last day.

    ``elsewhere``: it runs on another machine or in another container, where only its heartbeat shows that it is alive.
    Such a worker counts as alive until another worker marks it lost. ``holds``: the number of tasks that it holds.
    ``executor``: None for a program that calls ``fetch()``. ``queues``: names and patterns such as ``mail*``; None for
    such a program, too, and for a worker of version 0.1.0. ``lease`` in seconds. ``commands``: it also runs command
    lines.
    """

    id: int
    host: str
    pid: int
    state: Literal["alive", "lost"]
    elsewhere: bool
    holds: int
    executor: str | None
    queues: list[str] | None
    lease: float
    created_at: datetime
    lost_at: datetime | None
    commands: bool = False


def worker_infos(store: Store) -> list[WorkerInfo]:
    """Return all live workers, and those lost within the last day."""
    here = place.here()
    return [worker_info(store, worker, here) for worker in store.workers()]


def find_worker(store: Store, id: int) -> WorkerInfo | None:
    """Return the worker with this id if it is live or was lost within the last day, or None."""
    found = next((worker for worker in store.workers() if worker.id == id), None)
    return None if found is None else worker_info(store, found, place.here())


def worker_info(store: Store, worker: WorkerRecord, here: place.Place | None) -> WorkerInfo:
    """Return what is known about a worker, as a process in the place ``here`` sees it."""
    created_at = clock.to_datetime(worker.created_at)
    assert created_at is not None
    return WorkerInfo(
        worker.id,
        worker.host,
        worker.pid,
        "lost" if is_lost(worker, here) else "alive",
        place.is_elsewhere(worker, here),
        len(store.held(worker.id)),
        worker.executor,
        queues_of(worker),
        worker.lease,
        created_at,
        clock.to_datetime(worker.lost_at),
        bool(worker.commands),
    )


def live_workers(store: Store) -> list[WorkerRecord]:
    """Return the workers that are not lost."""
    here = place.here()
    return [worker for worker in store.workers() if not is_lost(worker, here)]


def is_lost(worker: WorkerRecord, here: place.Place | None) -> bool:
    """Return whether a worker was marked lost, or its process in the place ``here`` no longer exists."""
    return worker.lost_at is not None or place.is_gone(worker, here) is True


def queues_of(worker: WorkerRecord) -> list[str] | None:
    """Return the names and patterns of the queues that a worker serves, or None if it has not stored them."""
    return _names(worker.queues)


def serves(worker: WorkerRecord, queue: str) -> bool | None:
    """Return whether a worker serves this queue, by its name or by a pattern; None if it has not stored its queues."""
    names = queues_of(worker)
    return None if names is None else is_served(queue, names)


def functions_of(worker: WorkerRecord) -> list[str | None] | None:
    """Return the task functions that a worker has code for, with None for a callback; None if not stored."""
    return _names(worker.functions)


def _names(text: str | None) -> list[Any] | None:
    """Parse a JSON list; None if there is none, or the row is damaged."""
    try:
        found = json.loads(text or "null")
    except ValueError:
        return None
    return found if isinstance(found, list) else None


# -- task functions --------------------------------------------------------------------------------


class FunctionStats(NamedTuple):
    """Statistics of a task function over its latest ended attempts, without releases.

    ``failures``: how many ended failed, abandoned or lost. ``p50``, ``p95``: the run time in seconds that 50 % and 95 %
    of the attempts did not exceed. ``cpu_p50``: the same for CPU seconds. ``peak_memory`` in bytes. Values that no
    worker measured are None. ``function`` is "(commands)" for command lines and "(callback)" for tasks that a worker's
    callback runs.
    """

    function: str
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    failures: int
    p50: float | None
    p95: float | None
    cpu_p50: float | None
    peak_memory: int | None


def summarize(attempts: Iterable[EndedRecord]) -> list[FunctionStats]:
    """Return the statistics of each function, by name."""
    by_name: defaultdict[str, list[EndedRecord]] = defaultdict(list)
    for attempt in attempts:
        if attempt.outcome != "released":
            by_name[name_of(attempt.function, attempt.command)].append(attempt)
    return [_summary(name, by_name[name]) for name in sorted(by_name)]


def percentile(values: Sequence[float], of_hundred: int) -> float | None:
    """Return the nearest-rank percentile: the smallest value that ``of_hundred`` percent do not exceed."""
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

"""Running tasks that may need someone: overdue or stalled ones, suspended ones, and cancelled ones that still run.

This module only reads. What is usual for a function is remembered for a minute, so a look costs one query over the
running tasks.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from ._formats import buckets
from ._formats.function_names import name_of
from ._store.contract import RunningRecord, Store
from ._system import clock
from .overview import LATEST, summarize
from .reasons import time_span

Trouble = Literal["overdue", "stalled", "suspended", "ending"]

LEAST_OVERDUE = 60.0
"""Seconds that every attempt may take before it is overdue."""
FACTOR = 1.5
"""An attempt is overdue after this multiple of its function's 95th percentile."""
LEAST_KNOWN = 5
"""The number of ended attempts from which on it is known how long a function takes."""
LEAST_STALLED = 600.0
"""Seconds without progress that every task may have."""
GAPS = 5
"""A task is stalled after this many of its usual gaps between two reports of progress."""
MOST = 10_000
"""The most running tasks that are looked at."""
_SINCE = 30 * 86_400_000_000
"""Microseconds of history that are used for a function whose attempts are not among the newest."""
_KEPT, _UNKNOWN_KEPT = 60.0, 5.0
"""Seconds for which the figures of a queue's functions are remembered, and that a function is unknown."""
_MOST_KEPT = 200
"""The most queues whose figures are remembered."""


class Unusual(NamedTuple):
    """A running task, and why it may need someone.

    ``trouble``: "overdue", "stalled" (no progress), "suspended", or "ending": its cancellation was requested.
    ``seconds``: how long its attempt has run; for a stalled one, how long it has reported no progress. ``expected``:
    the seconds after which that is unusual; None for the other two. ``text``: the same in words.
    """

    id: int
    queue: str
    function: str
    attempt: int
    worker: int | None
    trouble: Trouble
    seconds: float
    expected: float | None
    text: str


def unusual(store: Store, queues: Collection[str] | None = None) -> list[Unusual]:
    """Return all of them: the overdue ones first, and of each kind first the one that takes longest.

    A task may be listed twice. ``queues``: only of these; None for all.
    """
    running, now = _running(store, queues), clock.now()
    return [
        *_overdue(store, running, now),
        *_stalled(running, now),
        *_of_kind(running, now, "suspended", lambda task: bool(task.suspended), "suspended, started {} ago"),
        *_of_kind(running, now, "ending", _is_ending, "cancellation requested, still running after {}"),
    ]


def overdue(store: Store, queues: Collection[str] | None = None) -> list[Unusual]:
    """Return the running tasks that take longer than usual.

    The limit is the larger of 60 s and 1.5 × the 95th percentile of the function's run times: that of the queue's
    newest attempts, or else of the history. At least five attempts must be known.
    """
    return _overdue(store, _running(store, queues), clock.now())


def overdue_ids(store: Store, queues: Collection[str] | None = None) -> list[int]:
    """Return the ids of overdue tasks, in ascending order. ``queues``: only of these; None for all."""
    return sorted(task.id for task in overdue(store, queues))


def stalled(store: Store, queues: Collection[str] | None = None) -> list[Unusual]:
    """Return the running tasks that report progress, but have not done so for long.

    That is 10 minutes, or 5 × the task's usual gap between two reports if that is longer.
    """
    return _stalled(_running(store, queues), clock.now())


def _running(store: Store, queues: Collection[str] | None) -> list[RunningRecord]:
    found = store.running(MOST)
    return found if queues is None else [task for task in found if task.queue in queues]


def _overdue(store: Store, running: Iterable[RunningRecord], now: int) -> list[Unusual]:
    usual = _usual_of(store)
    found = []
    for task in running:
        seconds = _seconds(task.started_at, now)
        if seconds <= LEAST_OVERDUE:
            continue
        p95 = usual.p95(task.queue, name_of(task.function, task.command))
        if p95 is None or seconds <= (expected := max(LEAST_OVERDUE, FACTOR * p95)):
            continue
        text = f"running for {_words(seconds)}; 95 % of its attempts take at most {_words(p95, up=True)}"
        found.append(_unusual(task, "overdue", seconds, expected, text))
    return _longest_first(found)


def _stalled(running: Iterable[RunningRecord], now: int) -> list[Unusual]:
    found = []
    for task in running:
        if task.progress_at is None or task.started_at is None or not task.changes or task.suspended:
            continue
        gap = max(0, task.progress_at - task.started_at) / task.changes / 1e6
        seconds, expected = _seconds(task.progress_at, now), max(LEAST_STALLED, GAPS * gap)
        if seconds > expected:
            text = f"no progress for {_words(seconds)}; usually a report every {_words(gap, up=True)}"
            found.append(_unusual(task, "stalled", seconds, expected, text))
    return _longest_first(found)


def _of_kind(
    running: Iterable[RunningRecord], now: int, trouble: Trouble, applies: Callable[[RunningRecord], bool], text: str
) -> list[Unusual]:
    found = []
    for task in running:
        if applies(task):
            seconds = _seconds(task.started_at, now)
            found.append(_unusual(task, trouble, seconds, None, text.format(_words(seconds))))
    return _longest_first(found)


def _is_ending(task: RunningRecord) -> bool:
    return bool(task.cancel_requested)


def _unusual(task: RunningRecord, trouble: Trouble, seconds: float, expected: float | None, text: str) -> Unusual:
    name = name_of(task.function, task.command)
    return Unusual(task.id, task.queue, name, task.attempt, task.worker, trouble, seconds, expected, text)


def _longest_first(found: list[Unusual]) -> list[Unusual]:
    return sorted(found, key=lambda task: (-task.seconds, task.id))


def _seconds(since: int | None, now: int) -> float:
    return 0.0 if since is None else max(0, now - since) / 1e6


def _words(seconds: float, *, up: bool = False) -> str:
    return time_span(round(seconds * 1e6), up=up)


# -- what is usual ---------------------------------------------------------------------------------


class _Usual:
    """How long functions usually take, by queue, as it was within the last minute."""

    def __init__(self, store: Store) -> None:
        self._store = weakref.ref(store)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, dict[str, float]]] = {}

    def p95(self, queue: str, function: str) -> float | None:
        """Return the 95th percentile of the run times of a function in seconds; None if too few are known."""
        with self._lock:
            read_at, found = self._known.get(queue, (-math.inf, {}))
            if time.monotonic() - read_at >= (_KEPT if function in found else _UNKNOWN_KEPT):
                found = self._read(queue)
                self._known.pop(queue, None)
                while len(self._known) >= _MOST_KEPT:
                    del self._known[next(iter(self._known))]
                self._known[queue] = time.monotonic(), found
        return found.get(function)

    def _read(self, queue: str) -> dict[str, float]:
        store = self._store()
        assert store is not None  # the caller has it
        found = _from_history(store, queue)
        for function in summarize(store.ended(queue, LATEST)):
            if function.count >= LEAST_KNOWN and function.p95 is not None:
                found[function.function] = function.p95
        return found


def _from_history(store: Store, queue: str) -> dict[str, float]:
    """Return the 95th percentiles of the last 30 days, for functions whose attempts are not among the newest."""
    counts: dict[str, list[int]] = {}
    for row in store.history(clock.now() - _SINCE, queue=queue):
        known = counts.get(row.function, [0] * buckets.SIZE)
        counts[row.function] = buckets.added(known, buckets.decode(row.run_times))
    return {function: _p95(some) for function, some in counts.items() if sum(some) >= LEAST_KNOWN}


def _p95(counts: Sequence[int]) -> float:
    found = buckets.percentile(counts, 95)
    assert found is not None
    return found


_usual: weakref.WeakKeyDictionary[Store, _Usual] = weakref.WeakKeyDictionary()
_finding = threading.Lock()


def _usual_of(store: Store) -> _Usual:
    with _finding:
        found = _usual.get(store)
        if found is None:
            found = _usual[store] = _Usual(store)
        return found

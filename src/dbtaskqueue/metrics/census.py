"""Counts everything that the metrics tell about a database. Only reads."""

from __future__ import annotations

import operator
from collections import Counter

from typing import NamedTuple

from .._store.contract import ScheduleRecord, Store
from .._formats.buckets import added
from ..checks import escaped
from ..monitoring.pacing import SHARE, Paced
from ..monitoring.snapshot import QueueSnapshot
from ..monitoring.workers import WorkerWatch
from ..overview import seconds_waited
from ..states import FINAL, TaskState

_LONGEST_NAME = 200
WORKER_STATES = ("alive", "silent", "lost")
OUTCOMES = ("done", "failed", "abandoned", "cancelled", "lost", "released")

Pair = tuple[str, str]
"""A queue and a function."""


class Running(NamedTuple):
    """The running tasks of a function in a queue. ``longest``: for how many seconds the first of them has run."""

    tasks: int = 0
    longest: float = 0.0
    overdue: int = 0
    stalled: int = 0

    def __add__(self, other: object) -> Running:  # type: ignore[override]
        """Return both together."""
        if not isinstance(other, Running):
            return NotImplemented
        return Running(
            self.tasks + other.tasks,
            max(self.longest, other.longest),
            self.overdue + other.overdue,
            self.stalled + other.stalled,
        )


class Ended(NamedTuple):
    """What the attempts of a function in a queue have ever done.

    ``outcomes``: their number, in the order of OUTCOMES. ``seconds``: how long they ran. ``runs`` and ``waits``: how
    many took, or waited for, how long: a count for each bucket of ``_formats.buckets``.
    """

    outcomes: tuple[int, ...]
    seconds: float
    runs: list[int]
    waits: list[int]

    @property
    def attempts(self) -> int:
        """The number of attempts."""
        return sum(self.outcomes)

    def __add__(self, other: object) -> Ended:  # type: ignore[override]
        """Return both together."""
        if not isinstance(other, Ended):
            return NotImplemented
        outcomes = tuple(map(operator.add, self.outcomes, other.outcomes))
        return Ended(
            outcomes, self.seconds + other.seconds, added(self.runs, other.runs), added(self.waits, other.waits)
        )


class Census(NamedTuple):
    """What was counted, by names that may stand in labels.

    ``workers``: their number by state. ``lost``: how many were ever marked lost.
    """

    queues: list[QueueSnapshot]
    running: dict[Pair, Running]
    ended: dict[Pair, Ended]
    workers: Counter[str]
    lost: int
    schedules: list[ScheduleRecord]


class Counting:
    """Counts a database again and again. Counts that take long are reused, so that they take a share of the time.

    The first count is exact.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._workers = WorkerWatch(store)
        self._final = Paced(self._count_final, SHARE / 4)
        self._ended = Paced(self._read_ended, SHARE / 4)

    @property
    def spent(self) -> float:
        """The seconds that were spent so far on the counts that are reused."""
        return self._final.spent + self._ended.spent

    def __call__(self) -> Census:
        """Count. Raises StoreUnavailable."""
        store, final = self._store, self._final()
        return Census(
            [self._read_queue(name, final.get(name, {})) for name in store.queues()],
            self._read_running(),
            self._ended(),
            Counter(worker.state for worker in self._workers.read()),
            store.workers_lost(),
            store.schedules(),
        )

    def _count_final(self) -> dict[str, dict[TaskState, int]]:
        return {name: self._store.count(name, final=True) for name in self._store.queues()}

    def _read_queue(self, name: str, final: dict[TaskState, int]) -> QueueSnapshot:
        store = self._store
        counts = {state: 0 for state in TaskState} | store.count(name, final=False)
        counts |= {state: final.get(state, 0) for state in FINAL}
        return QueueSnapshot(
            label(name), counts, seconds_waited(store, name), store.is_paused(name), store.count_blocked(name)
        )

    def _read_running(self) -> dict[Pair, Running]:
        return {}

    def _read_ended(self) -> dict[Pair, Ended]:
        return {}


def label(name: str) -> str:
    """Return a name as it may stand in a label: without control characters, and not too long.

    A control character could reach a terminal, and a NUL would end the whole text for Prometheus.
    """
    shown = escaped(name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"

"""Counts everything that the metrics tell about a database. Only reads."""

from __future__ import annotations

import operator
from collections import Counter
from typing import NamedTuple

from .._formats.buckets import added, decode
from .._formats.function_names import name_of
from .._store.contract import QueueCounts, ScheduleRecord, Store
from .._system import clock
from ..checks import escaped
from ..monitoring.pacing import SHARE, Paced
from ..monitoring.snapshot import QueueSnapshot
from ..monitoring.workers import WorkerWatch
from ..overdue import unusual
from ..overview import seconds_waited
from ..states import FINAL, TaskState

_LONGEST_NAME = 200
_MOST_RUNNING = 10_000
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

    def __add__(self, other: object) -> Running:
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

    ``outcomes``: their number, in the order of OUTCOMES. ``microseconds``: how long they ran, a whole number, since
    a sum of floats in another order may be smaller. ``runs`` and ``waits``: how many took, or waited for, how long: a
    count for each bucket of ``_formats.buckets``.
    """

    outcomes: tuple[int, ...]
    microseconds: int
    runs: list[int]
    waits: list[int]

    @property
    def attempts(self) -> int:
        """The number of attempts."""
        return sum(self.outcomes)

    def __add__(self, other: object) -> Ended:
        """Return both together."""
        if not isinstance(other, Ended):
            return NotImplemented
        outcomes = tuple(map(operator.add, self.outcomes, other.outcomes))
        return Ended(
            outcomes,
            self.microseconds + other.microseconds,
            added(self.runs, other.runs),
            added(self.waits, other.waits),
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
        store, final, unfinished = self._store, self._final(), self._store.queue_counts()
        return Census(
            [
                self._read_queue(name, unfinished.get(name, QueueCounts()), final.get(name, {}))
                for name in store.queues()
            ],
            self._read_running(),
            self._ended(),
            Counter(worker.state for worker in self._workers.read()),
            store.workers_lost(),
            store.schedules(),
        )

    def _count_final(self) -> dict[str, dict[TaskState, int]]:
        return {name: self._store.count(name, final=True) for name in self._store.queues()}

    def _read_queue(self, name: str, unfinished: QueueCounts, final: dict[TaskState, int]) -> QueueSnapshot:
        counts = {
            state: final.get(state, 0) if state in FINAL else int(getattr(unfinished, state)) for state in TaskState
        }
        waited, paused = seconds_waited(self._store, name), self._store.is_paused(name)
        return QueueSnapshot(label(name), counts, waited, paused, unfinished.blocked)

    def _read_running(self) -> dict[Pair, Running]:
        now, found = clock.now(), dict[Pair, Running]()
        for task in self._store.running(_MOST_RUNNING):
            pair = label(task.queue), label(name_of(task.function, task.command))
            seconds = max(0.0, (now - (task.started_at or now)) / 1e6)
            found[pair] = found.get(pair, Running()) + Running(1, seconds)
        for each in unusual(self._store):
            pair = label(each.queue), label(each.function)
            if pair in found:  # not if it has started since
                found[pair] += Running(overdue=each.trouble == "overdue", stalled=each.trouble == "stalled")
        return found

    def _read_ended(self) -> dict[Pair, Ended]:
        found: dict[Pair, Ended] = {}
        for row in self._store.history_totals():
            pair = label(row.queue), label(row.function)
            outcomes = tuple(int(getattr(row, outcome)) for outcome in OUTCOMES)
            ended = Ended(outcomes, row.seconds, decode(row.run_times), decode(row.wait_times))
            found[pair] = found[pair] + ended if pair in found else ended
        return found


def label(name: str) -> str:
    """Return a name as it may stand in a label: without control characters, and not too long.

    A control character could reach a terminal, and a NUL would end the whole text for Prometheus.
    """
    shown = escaped(name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"

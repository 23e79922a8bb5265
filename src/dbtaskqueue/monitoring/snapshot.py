"""Snapshots of what happens in a database. Their size is limited, however much is stored."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .._formats.progress import Progress, Usage, read_usage
from .._store.contract import ScheduleRecord, Store, TaskRecord
from .._system import clock
from ..overview import seconds_waited
from ..states import ABANDONED, FAILED, FINAL, RUNNING, TaskState
from ..task import Task
from .pacing import Paced
from .tasks import describe, error_line
from .workers import WorkerSnapshot as WorkerSnapshot
from .workers import WorkerWatch

MOST_RUNNING = 50
"""The most running tasks of a queue that are read."""
_MOST_FAILURES = 10
_MOST_ENDED = 50
_MOST_SCHEDULES = 20
_CPU_WINDOW = 5.0
"""Seconds over which CPU use is measured. A worker reports what its tasks use about once a second."""
_LONG_PAYLOAD = 5000
_TIMES = {"at", "created_at", "started_at", "due", "next_at", "last_at"}
"""Fields that are times, in microseconds."""


class QueueSnapshot(NamedTuple):
    """A queue.

    ``counts``: tasks in each state. ``waited``: seconds that the longest-waiting due task has waited. ``blocked``:
    unfinished tasks that wait for parents; ``counts`` has them, too.
    """

    name: str
    counts: dict[TaskState, int]
    waited: float | None
    paused: bool
    blocked: int = 0


class Running(NamedTuple):
    """A running task.

    ``what``: its function and payload, or its command line. ``cpu``: the share of one CPU that it uses. ``words``:
    "suspended", "cancellation requested".
    """

    id: int
    token: int
    queue: str
    what: str
    attempt: int
    max_attempts: int | None
    started_at: int | None
    worker: int | None
    progress: Progress | None
    usage: Usage | None
    cpu: float | None
    words: tuple[str, ...]


class Failure(NamedTuple):
    """A failed or abandoned task. ``at``: about when it failed."""

    id: int
    queue: str
    state: str
    attempt: int
    max_attempts: int | None
    at: int
    due: int
    error: str


class ScheduleSnapshot(NamedTuple):
    """A schedule. ``next_at``: its next tick, None if it is paused or never fires again.

    ``last_at``, ``outcome`` and ``task``: its last tick, see TickInfo; None if there is none.
    """

    name: str
    queue: str
    paused: bool
    next_at: int | None
    last_at: int | None
    outcome: str | None
    task: int | None


class Ended(NamedTuple):
    """A task that was running in the previous snapshot and no longer is."""

    id: int
    queue: str
    state: str
    attempt: int


class Snapshot(NamedTuple):
    """The database at a moment ``at`` (microseconds). ``more``: it does not contain all running tasks.

    ``schedules``: those that fire next, at most 20.
    """

    at: int
    queues: list[QueueSnapshot]
    workers: list[WorkerSnapshot]
    running: list[Running]
    more: bool
    failures: list[Failure]
    ended: list[Ended]
    schedules: Sequence[ScheduleSnapshot] = ()


def to_plain(value: object, name: str = "") -> object:
    """Return a snapshot, or its field ``name``, as JSON values and datetimes."""
    if isinstance(value, int) and name in _TIMES:
        return clock.to_datetime(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): to_plain(each, key) for key, each in value.items()}
    return [to_plain(each) for each in value] if isinstance(value, list | tuple) else value


def cpu_share(samples: Iterable[tuple[float, float]]) -> float | None:
    """Return the share of one CPU used from the first to the last sample; None if there is only one.

    A sample is the time in seconds and the CPU seconds used until then.
    """
    known = list(samples)
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    return max(0.0, (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0]))


class Monitor:
    """Takes snapshots of all queues, or of one.

    ``with_ended``: look up how tasks ended that were running in the previous snapshot.
    """

    def __init__(self, store: Store, queue: str | None = None, *, with_ended: bool = False) -> None:
        self._store = store
        self._queue = queue
        self._with_ended = with_ended
        self._workers = WorkerWatch(store)
        self._final = Paced(lambda: {name: store.count(name, final=True) for name in self._names()})
        self._unfinished = Paced(lambda: [self._read_queue(name) for name in self._names()])
        self._queues: list[QueueSnapshot] = []
        self._failures = Paced(self._read_failures)
        self._schedules = Paced(self._read_schedules)
        self._samples: dict[tuple[int, int], deque[tuple[float, float]]] = {}
        self._were_running: dict[int, Running] = {}

    def snapshot(self) -> Snapshot:
        """Take a snapshot. Raises StoreUnavailable."""
        at = clock.now()
        workers = self._workers.read()
        final = self._final()
        self._queues = [_with_final(queue, final.get(queue.name, {})) for queue in self._unfinished()]
        busy = [queue.name for queue in self._queues if queue.counts[RUNNING]]
        found = [self._store.tasks(name, RUNNING, MOST_RUNNING, None) for name in busy]
        running = self._read_running(record for records in found for record in records)
        more = any(len(records) == MOST_RUNNING for records in found)
        ended = self._read_ended(running) if self._with_ended else []
        return Snapshot(at, self._queues, workers, running, more, self._failures(), ended, self._schedules())

    def _names(self) -> list[str]:
        return self._store.queues() if self._queue is None else [self._queue]

    def _read_queue(self, name: str) -> QueueSnapshot:
        return QueueSnapshot(
            name,
            self._store.count(name, final=False),
            seconds_waited(self._store, name),
            self._store.is_paused(name),
            self._store.count_blocked(name),
        )

    def _read_running(self, records: Iterable[TaskRecord]) -> list[Running]:
        now, before, self._samples = time.monotonic(), self._samples, {}
        running = []
        for record in records:
            key, usage = (record.id, record.token), read_usage(record.usage)
            if usage is not None:
                samples = self._samples[key] = before.get(key, deque())
                samples.append((now, usage.cpu))
                while len(samples) > 2 and samples[1][0] <= now - _CPU_WINDOW:
                    samples.popleft()
            running.append(_running(Task(self._store, record), record, usage, cpu_share(self._samples.get(key, ()))))
        return sorted(running, key=lambda task: (task.started_at or 0, task.id))

    def _read_failures(self) -> list[Failure]:
        found = []
        for queue in self._queues:
            for state in (FAILED, ABANDONED):
                if queue.counts[state]:
                    found += self._store.tasks(queue.name, state, _MOST_FAILURES, None)
        failures = sorted(map(_failure, found), key=lambda failure: failure.at, reverse=True)
        return failures[:_MOST_FAILURES]

    def _read_schedules(self) -> tuple[ScheduleSnapshot, ...]:
        found = sorted(self._store.schedules(self._queue), key=lambda each: (each.paused, each.next_at or math.inf))
        return tuple(self._read_schedule(schedule) for schedule in found[:_MOST_SCHEDULES])

    def _read_schedule(self, schedule: ScheduleRecord) -> ScheduleSnapshot:
        queue, name = schedule.queue, schedule.name
        tick = next(iter(self._store.ticks(queue, name, 1)), None)
        last = (None, None, None) if tick is None else (tick.at, tick.outcome, tick.task)
        return ScheduleSnapshot(
            name, queue, bool(schedule.paused), None if schedule.paused else schedule.next_at, *last
        )

    def _read_ended(self, running: list[Running]) -> list[Ended]:
        before, self._were_running = self._were_running, {task.id: task for task in running}
        stopped = [before[id] for id in sorted(before.keys() - self._were_running.keys())][:_MOST_ENDED]
        found = [(task, self._store.get(task.id)) for task in stopped]
        return [Ended(task.id, task.queue, now.state if now else "deleted", task.attempt) for task, now in found]


def _with_final(queue: QueueSnapshot, final: dict[TaskState, int]) -> QueueSnapshot:
    counts = {state: final.get(state, 0) if state in FINAL else count for state, count in queue.counts.items()}
    return queue._replace(counts=counts)


def _running(task: Task, record: TaskRecord, usage: Usage | None, cpu: float | None) -> Running:
    words = [
        word
        for word, applies in (("suspended", task.suspended), ("cancellation requested", task.cancel_requested))
        if applies
    ]
    return Running(
        id=task.id,
        token=task.token,
        queue=task.queue,
        what=_label(task, record),
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        started_at=record.started_at,
        worker=task.worker,
        progress=task.progress,
        usage=usage,
        cpu=cpu,
        words=tuple(words),
    )


def _label(task: Task, record: TaskRecord) -> str:
    text = record.payload or ""
    if len(text) > _LONG_PAYLOAD:  # parsing it for every snapshot takes too long
        return " ".join(filter(None, (task.function, text[:_LONG_PAYLOAD])))
    return describe(task)


def _failure(record: TaskRecord) -> Failure:
    return Failure(
        record.id,
        record.queue,
        record.state,
        record.attempt,
        record.max_attempts,
        record.finished_at or record.started_at or record.created_at,
        record.due,
        error_line(record.error or ""),
    )

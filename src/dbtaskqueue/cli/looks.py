"""One look at everything that goes on in a database, for the command watch: bounded, however much is stored."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from .._formats.progress import Progress, Usage, read_usage
from .._store.contract import TaskRecord, WorkerRecord
from .._system import clock
from ..queue import TaskQueue
from ..states import ABANDONED, FAILED, FINAL, RUNNING, TaskState
from ..task import Task
from .looking import in_one_line, what

T = TypeVar("T")

MOST = 50
"""Running tasks of a queue that are looked at."""
_MOST_FAILURES = 10
_MOST_ENDS = 50
_SHARE = 0.05
"""What is counted takes at most this part of the time: where it takes long, it is counted less often."""
_WINDOW = 5.0
"""Seconds over which the share of a CPU is measured: a worker tells about once a second what its tasks use."""
_LONG_PAYLOAD = 5000
_MOMENTS = {"at", "created_at", "started_at", "due"}
"""What holds a time, in microseconds."""


class Lane(NamedTuple):
    """A queue: tasks in each state, the seconds that the longest waiting due task has waited, whether it is paused."""

    name: str
    counts: dict[TaskState, int]
    waited: float | None
    paused: bool


class Seen(NamedTuple):
    """A worker. ``state``: alive or lost; silent is one elsewhere of which no beat was seen for its lease."""

    id: int
    state: str
    executor: str | None
    host: str
    pid: int
    created_at: int


class Running(NamedTuple):
    """A running task. ``cpu``: the share of one CPU that it uses. ``words``: "suspended", "cancellation requested"."""

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
    """A task that stands failed or abandoned; ``at`` is about when."""

    id: int
    queue: str
    state: str
    attempt: int
    max_attempts: int | None
    at: int
    due: int
    error: str


class Ended(NamedTuple):
    """A task that ran at the look before and runs no more."""

    id: int
    queue: str
    state: str
    attempt: int


class Look(NamedTuple):
    """Everything that was seen at a moment (microseconds); ``more`` says that not all running tasks are in it."""

    at: int
    queues: list[Lane]
    workers: list[Seen]
    running: list[Running]
    more: bool
    failures: list[Failure]
    ended: list[Ended]


def plain(seen: object, name: str = "") -> object:
    """A look, or the part of it with that name, of nothing but what JSON knows and datetimes: for programs."""
    if isinstance(seen, int) and name in _MOMENTS:
        return clock.to_datetime(seen)
    if isinstance(seen, tuple) and hasattr(seen, "_asdict"):
        seen = seen._asdict()
    if isinstance(seen, dict):
        return {str(name): plain(value, name) for name, value in seen.items()}
    return [plain(each) for each in seen] if isinstance(seen, list | tuple) else seen


def share(samples: Iterable[tuple[float, float]]) -> float | None:
    """The part of one CPU that was taken between the first and the last of (seconds, CPU seconds); None of one."""
    known = list(samples)
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    return max(0.0, (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0]))


class _Paced(Generic[T]):
    """A value that is found anew as often as it may cost."""

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find
        self._known: list[T] = []
        self._again = 0.0

    def __call__(self) -> T:
        started = time.monotonic()
        if not self._known or started >= self._again:
            self._known = [self._find()]
            now = time.monotonic()
            self._again = now + (now - started) * (1 / _SHARE - 1)
        return self._known[0]


class Looker:
    """Looks again and again, at one queue or at all of them."""

    def __init__(self, lane: TaskQueue, queue: str | None = None, *, with_ends: bool = False) -> None:
        self._store = lane.store
        self._rescuer = lane._membership.rescuer
        self._queue = queue
        self._with_ends = with_ends
        self._final = _Paced(lambda: {name: self._store.count(name, final=True) for name in self._names()})
        self._unfinished = _Paced(lambda: [self._lane(name) for name in self._names()])
        self._lanes: list[Lane] = []
        self._failures = _Paced(self._find_failures)
        self._beats: dict[int, tuple[int, float]] = {}
        self._samples: dict[tuple[int, int], deque[tuple[float, float]]] = {}
        self._ran: dict[int, Running] = {}

    def look(self) -> Look:
        """Look once. Raises StoreUnavailable."""
        at = clock.now()
        workers = [self._worker(record) for record in self._store.workers()]
        self._beats = {worker.id: self._beats[worker.id] for worker in workers if worker.id in self._beats}
        final = self._final()
        self._lanes = [_with_final(lane, final.get(lane.name, {})) for lane in self._unfinished()]
        found = [self._store.tasks(lane.name, RUNNING, MOST, None) for lane in self._lanes if lane.counts[RUNNING]]
        running = self._watch(record for records in found for record in records)
        more = any(len(records) == MOST for records in found)
        ended = self._ends(running) if self._with_ends else []
        return Look(at, self._lanes, workers, running, more, self._failures(), ended)

    def _names(self) -> list[str]:
        return self._store.queues() if self._queue is None else [self._queue]

    def _lane(self, name: str) -> Lane:
        now = clock.now()
        since = self._store.waiting_since(name, now)
        waited = None if since is None else (now - since) / 1e6
        return Lane(name, self._store.count(name, final=False), waited, self._store.is_paused(name))

    def _worker(self, record: WorkerRecord) -> Seen:
        now = time.monotonic()
        beat, since = self._beats.get(record.id, (None, now))
        if beat != record.beat:
            since = now
        self._beats[record.id] = record.beat, since
        is_gone = self._rescuer.is_gone(record)
        state = "alive"
        if record.lost_at is not None or is_gone:
            state = "lost"
        elif is_gone is None and now - since >= record.lease:
            state = "silent"
        return Seen(record.id, state, record.executor, record.host, record.pid, record.created_at)

    def _watch(self, records: Iterable[TaskRecord]) -> list[Running]:
        now, before, self._samples = time.monotonic(), self._samples, {}
        running = []
        for record in records:
            key, usage = (record.id, record.token), read_usage(record.usage)
            if usage is not None:
                samples = self._samples[key] = before.get(key, deque())
                samples.append((now, usage.cpu))
                while len(samples) > 2 and samples[1][0] <= now - _WINDOW:
                    samples.popleft()
            running.append(_running(Task(self._store, record), record, usage, share(self._samples.get(key, ()))))
        return sorted(running, key=lambda task: (task.started_at or 0, task.id))

    def _find_failures(self) -> list[Failure]:
        found = []
        for lane in self._lanes:
            for state in (FAILED, ABANDONED):
                if lane.counts[state]:
                    found += self._store.tasks(lane.name, state, _MOST_FAILURES, None)
        failures = sorted(map(_failure, found), key=lambda failure: failure.at, reverse=True)
        return failures[:_MOST_FAILURES]

    def _ends(self, running: list[Running]) -> list[Ended]:
        before, self._ran = self._ran, {task.id: task for task in running}
        gone = [before[id] for id in sorted(before.keys() - self._ran.keys())][:_MOST_ENDS]
        found = [(task, self._store.get(task.id)) for task in gone]
        return [Ended(task.id, task.queue, now.state if now else "gone", task.attempt) for task, now in found]


def _with_final(lane: Lane, final: dict[TaskState, int]) -> Lane:
    counts = {state: final.get(state, 0) if state in FINAL else count for state, count in lane.counts.items()}
    return lane._replace(counts=counts)


def _running(task: Task, record: TaskRecord, usage: Usage | None, cpu: float | None) -> Running:
    words = [
        word
        for word, holds in (("suspended", task.suspended), ("cancellation requested", task.cancel_requested))
        if holds
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
    if len(text) > _LONG_PAYLOAD:  # once a second: no time to read it all
        return " ".join(filter(None, (task.function, text[:_LONG_PAYLOAD])))
    return what(task)


def _failure(record: TaskRecord) -> Failure:
    at = record.finished_at or record.started_at or record.created_at
    return Failure(
        record.id,
        record.queue,
        record.state,
        record.attempt,
        record.max_attempts,
        at,
        record.due,
        in_one_line(record.error or ""),
    )

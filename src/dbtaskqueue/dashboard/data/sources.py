"""What several pages show, each read once for all of them, and as often as its price allows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Set
from functools import partial
from typing import NamedTuple

from ..._formats import progress as progress_format
from ..._formats.progress import Progress, Usage, part_done, read_usage
from ..._store.contract import (
    FinalRecord,
    LongRunning,
    QueueCounts,
    ScheduleRecord,
    Store,
    TaskRecord,
    WorkerRecord,
)
from ..._system import clock
from ..._system.place import here, is_gone
from ...monitoring.snapshot import cpu_share
from ...overdue import Unusual, unusual
from ...overview import LATEST, FunctionStats, functions_of, queues_of, serves, summarize
from ...queue import TaskQueue
from ...states import ABANDONED, FAILED
from ..looks import Looks
from ..words import call_text, error_line, first

MOST_RUNNING = 50
MOST_FAILURES = 20
_MOST_PAYLOAD = 5000
_NAMES_EVERY = 5.0
_COUNTS_EVERY = 1.9
_SLOWLY = 10.0
_PER_QUEUE = 3.0
"""Seconds: what is read with statements for each queue is read the more rarely, the more queues there are."""
_FUNCTIONS_EVERY = 60.0
_CPU_WINDOW = 5.0
_UNUSUAL_EVERY = 5.0


class Running(NamedTuple):
    """A running task. ``part``: how much is done, 0 to 1. ``cpu``: the share of one CPU. ``usual``: of its function."""

    id: int
    queue: str
    function: str | None
    what: str
    attempt: int
    max_attempts: int | None
    started_at: int | None
    worker: int | None
    suspended: bool
    cancel_requested: bool
    progress: Progress | None
    part: float | None
    usage: Usage | None
    cpu: float | None
    reported_at: int | None
    usual: FunctionStats | None = None


class Worker(NamedTuple):
    """A worker. ``state``: alive, lost, or silent: it has sent no heartbeat for its lease."""

    id: int
    state: str
    host: str
    pid: int
    executor: str | None
    queues: list[str] | None
    slots: int | None
    version: str | None
    created_at: int
    lost_at: int | None
    lease: float
    commands: bool
    holds: int = 0


class Queue(NamedTuple):
    """A queue. ``due_since``: since when the longest-waiting due task waits. Final counts are None until counted."""

    name: str
    paused: bool
    waiting: int
    blocked: int
    reserved: int
    running: int
    failed: int
    done: int | None = None
    cancelled: int | None = None
    abandoned: int | None = None
    due_since: int | None = None
    workers: int = 0
    unknown_workers: int = 0


class Failure(NamedTuple):
    """Failed or abandoned tasks with the same error. The other fields are those of the newest of them."""

    error: str
    number: int
    id: int
    queue: str
    function: str | None
    state: str
    attempt: int
    max_attempts: int | None
    at: int
    due: int


class Sources:
    """Reads what pages show, through the looks that they share."""

    def __init__(self, queue: TaskQueue, looks: Looks, hidden: Set[str] = frozenset()) -> None:
        self.hidden = hidden
        self.queue = queue
        self.looks = looks
        self._slow = TaskQueue(None, queue.name, create=False, open=False)
        self._samples: dict[tuple[int, int], deque[tuple[float, float]]] = {}
        self._beats: dict[int, tuple[int, float]] = {}

    def what(self, record: TaskRecord | LongRunning) -> str:
        """Return what a task does, unless payloads are hidden."""
        if "payload" in self.hidden:
            return ""
        return call_text(record.function, (record.payload or "")[:_MOST_PAYLOAD])

    @property
    def slow(self) -> Store:
        """The same database by connections of their own: what counts in the background must not hold up a page."""
        if not self._slow.is_open:
            self._slow.open(self.queue.store.url)
        return self._slow.store

    def close(self) -> None:
        """Close the connections for what is slow."""
        self._slow.close()

    # -- workers -----------------------------------------------------------------------------------

    def worker_records(self) -> list[WorkerRecord]:
        """Return the rows of all workers."""
        return self.looks.part("workers", self.queue.store.workers)

    def workers(self) -> list[Worker]:
        """Return the live workers, and those that were lost within the last day."""
        holds: dict[int | None, int] = {}
        for task in self.running_records():
            holds[task.worker] = holds.get(task.worker, 0) + 1
        found = [self._worker(record, holds.get(record.id, 0)) for record in self.worker_records()]
        ids = {worker.id for worker in found}
        self._beats = {id: beat for id, beat in list(self._beats.items()) if id in ids}
        return found

    def _worker(self, record: WorkerRecord, holds: int) -> Worker:
        return Worker(
            *(record.id, self._state(record), record.host, record.pid, record.executor, queues_of(record)),
            *(record.slots, record.version, record.created_at, record.lost_at, record.lease, bool(record.commands)),
            holds,
        )

    def _state(self, record: WorkerRecord) -> str:
        now, gone = time.monotonic(), is_gone(record, here())
        beat, since = self._beats.get(record.id, (None, now))
        since = now if beat != record.beat else since
        self._beats[record.id] = record.beat, since
        if record.lost_at is not None or gone:
            return "lost"
        return "silent" if gone is None and now - since >= record.lease else "alive"

    # -- queues ------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of the queues."""
        return self.looks.part("names", self.queue.store.queues, _NAMES_EVERY)

    def queues(self) -> list[Queue] | None:
        """Return the queues with their counts; None if they are not counted yet."""
        store = self.queue.store
        counts = self.looks.counted("counts", lambda: self.slow.queue_counts(), _COUNTS_EVERY, wait=0.5)
        finals = self.looks.counted("finals", lambda: self.slow.final_counts(self.names()), _SLOWLY)
        if counts is None:
            return None
        names = sorted({*self.names(), *counts})
        paused = self.looks.part("paused", store.paused_queues, 3.0)
        due = self._due_since([name for name, count in counts.items() if count.pending + count.failed > count.blocked])
        final = {record.name: record for record in finals or ()}
        alive = [record for record in self.worker_records() if self._state(record) != "lost"]
        nothing = QueueCounts(0, 0, 0, 0, 0)
        return [
            _queue(name, name in paused, counts.get(name, nothing), final.get(name), due.get(name), alive)
            for name in names
        ]

    def _due_since(self, waiting: list[str]) -> dict[str, int | None]:
        def read() -> dict[str, int | None]:
            return {name: self.slow.waiting_since(name, clock.now()) for name in waiting}

        return (self.looks.counted("due", read, max(_SLOWLY, _PER_QUEUE * len(waiting))) if waiting else None) or {}

    # -- running tasks -----------------------------------------------------------------------------

    def running_records(self) -> list[LongRunning]:
        """Return the tasks that run longest."""
        return self.looks.part("running", lambda: self.queue.store.longest_running(MOST_RUNNING + 1))

    def running(self) -> list[Running]:
        """Return the tasks that run longest, with their CPU use."""
        return self.looks.part("running tasks", self._read_running)

    def _read_running(self) -> list[Running]:
        before, self._samples = self._samples, {}
        found = []
        for record in self.running_records():
            key, usage = (record.id, record.token), read_usage(record.usage)
            if key in before:
                self._samples[key] = before[key]
            found.append(_running(record, self.what(record), usage, self.cpu(record.id, record.token, usage)))
        return [each._replace(usual=self.usual(each.queue, each.function)) for each in found]

    def cpu(self, id: int, token: int, usage: Usage | None) -> float | None:
        """Return the share of one CPU that an attempt uses, from what has been seen of it; None if that is little."""
        if usage is None:
            return None
        now, samples = time.monotonic(), self._samples.setdefault((id, token), deque())
        if not samples or samples[-1][1] != usage.cpu or now - samples[-1][0] > 2:
            samples.append((now, usage.cpu))
        while len(samples) > 2 and samples[1][0] <= now - _CPU_WINDOW:
            samples.popleft()
        return cpu_share(samples)

    # -- functions ---------------------------------------------------------------------------------

    def functions(self, queue: str) -> list[FunctionStats] | None:
        """Return the statistics of a queue's functions over its latest attempts; None if not known yet."""

        def read() -> list[FunctionStats]:
            return summarize(self.slow.ended(queue, LATEST))

        return self.looks.counted(("functions", queue), read, _FUNCTIONS_EVERY)

    def usual(self, queue: str, function: str | None) -> FunctionStats | None:
        """Return what attempts of a function usually take; None if fewer than five are known."""
        for each in self.functions(queue) or ():
            if each.function == function and each.count >= 5:
                return each
        return None

    def unusual(self) -> list[Unusual]:
        """Return the tasks that are overdue, stalled, suspended, or still running after a request to cancel."""
        return self.looks.counted("unusual", lambda: unusual(self.slow), _UNUSUAL_EVERY) or []

    # -- failures and schedules --------------------------------------------------------------------

    def failures(self, queues: list[Queue]) -> list[Failure]:
        """Return the latest failures, grouped by error."""
        wanted = [(each.name, state) for each in queues for state in _failing(each)]
        if not wanted:
            return []
        return (
            self.looks.counted("failures", lambda: self._read_failures(wanted), max(_SLOWLY, _PER_QUEUE * len(wanted)))
            or []
        )

    def _read_failures(self, wanted: list[tuple[str, str]]) -> list[Failure]:
        found: list[TaskRecord] = []
        for name, state in wanted:
            found += self.slow.tasks(name, FAILED if state == FAILED else ABANDONED, MOST_FAILURES, None)
        return grouped(sorted(found, key=failed_at, reverse=True)[: 3 * MOST_FAILURES])

    def failures_of(self, queue: str) -> list[Failure]:
        """Return the latest failures of a queue, grouped by error."""
        read = partial(self._read_failures, [(queue, FAILED), (queue, ABANDONED)])
        return self.looks.counted(("failures", queue), read, _SLOWLY) or []

    def functions_of(self, worker: int) -> list[str]:
        """Return the names of the functions that a worker has code for."""
        found = next((each for each in self.worker_records() if each.id == worker), None)
        names = None if found is None else functions_of(found)
        return [name for name in names or () if isinstance(name, str)]

    def schedules(self) -> list[ScheduleRecord]:
        """Return all schedules, those that fire next first."""
        found = self.looks.part("schedules", self.queue.store.schedules, 3.0)
        return sorted(found, key=lambda each: (each.paused, each.next_at is None, each.next_at or 0, each.name))


def _failing(queue: Queue) -> list[str]:
    return [*([FAILED] if queue.failed else []), *([ABANDONED] if queue.abandoned else [])]


def grouped(records: list[TaskRecord]) -> list[Failure]:
    """Return tasks, newest first, grouped by function and the kind of error."""
    groups: dict[tuple[str, str | None, str], Failure] = {}
    for record in records:
        error = error_line(record.error)
        key = record.queue, record.function, _kind(error)
        if known := groups.get(key):
            groups[key] = known._replace(number=known.number + 1)
        else:
            groups[key] = Failure(
                *(error, 1, record.id, record.queue, record.function, record.state, record.attempt),
                *(record.max_attempts, failed_at(record), record.due),
            )
    return list(groups.values())[:10]


def _kind(error: str) -> str:
    """Return an error without what differs from task to task: its numbers and what comes after them."""
    head = error.split(":", 1)[0] if ":" in error else error
    return "".join(letter for letter in head if not letter.isdigit())[:80]


def failed_at(record: TaskRecord) -> int:
    """Return about when a task failed."""
    return record.finished_at or record.started_at or record.created_at


def _queue(
    name: str,
    paused: bool,
    counts: QueueCounts,
    final: FinalRecord | None,
    due: int | None,
    alive: list[WorkerRecord],
) -> Queue:
    known = [serves(worker, name) for worker in alive]
    return Queue(
        name=name,
        paused=paused,
        waiting=max(0, counts.pending + counts.failed - counts.blocked),
        blocked=counts.blocked,
        reserved=counts.reserved,
        running=counts.running,
        failed=counts.failed,
        done=final and final.done,
        cancelled=final and final.cancelled,
        abandoned=final and final.abandoned,
        due_since=due,
        workers=sum(each is True for each in known),
        unknown_workers=sum(each is None for each in known),
    )


def _running(record: LongRunning, what: str, usage: Usage | None, cpu: float | None) -> Running:
    progress = progress_format.read(record.progress)
    if progress is not None and progress.message is not None:
        progress = progress._replace(message=first(str(progress.message), 500))
    return Running(
        id=record.id,
        queue=record.queue,
        function=record.function,
        what=what,
        attempt=record.attempt,
        max_attempts=record.max_attempts,
        started_at=record.started_at,
        worker=record.worker,
        suspended=bool(record.suspended),
        cancel_requested=bool(record.cancel_requested),
        progress=progress,
        part=part_done(progress),
        usage=usage,
        cpu=cpu,
        reported_at=record.reported_at,
    )

"""How many tasks a worker claims in one transaction: long ones one by one, short ones in batches.

A batch saves transactions, but stores its starts only together with its ends. So tasks are batched only after some have
proved to be short, and a batch takes less than a tenth of a second to run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence

from .._executors.task_run import TaskRun
from .._store.contract import Start, TaskRecord, Verdict
from .._system import clock
from ..checks import MOST, is_count, shown
from ..states import RUNNING

STORED_WITHIN = 0.1
"""Seconds after which the ends of short tasks, and the start of one that is not short, are stored."""
MAX_RESERVED = 1.0
"""Seconds that a claimed task may wait for a free slot before it is released."""
_SHORT = 0.01
"""Tasks that take longer than this on average (seconds) are long, and run one by one."""
_BATCH_SECONDS = 0.05
_LARGEST = 500
_PROVEN = 10
"""The number of short tasks in a row after which tasks are batched."""


class BatchSize:
    """Chooses the size of the next batch by how long the last tasks took."""

    def __init__(self, batch: int | str, concurrency: int) -> None:
        if batch != "auto" and (not is_count(batch) or batch > MOST):
            raise ValueError(f"batch must be 'auto' or a whole number of at least 1, not {shown(batch)}")
        self._fixed = batch if isinstance(batch, int) else None
        self._concurrency = concurrency
        self._average = 0.0
        self._seen = 0
        self._last = 1

    def learn(self, tasks: int, seconds: float, longest: float) -> None:
        """Note how long ``tasks`` tasks took together, and how long the longest took, in seconds."""
        if longest > _SHORT:
            self._seen, self._last = 0, 1
        self._seen += tasks
        mean = max(seconds / tasks, longest if longest > _SHORT else 0.0)
        self._average = mean if mean > self._average else 0.8 * self._average + 0.2 * mean

    def next(self) -> int:
        """Return how many tasks to claim as one batch; 1 means one by one."""
        if self._fixed is not None:
            return self._fixed
        if self._seen < _PROVEN or self._average > _SHORT:
            return 1
        fitting = int(_BATCH_SECONDS / max(self._average, 1e-6)) * self._concurrency
        self._last = max(1, min(fitting, self._last * 2, _LARGEST))
        return self._last


class Batch:
    """The tasks that were claimed together and whose starts are not stored one by one.

    If the worker dies, it is unknown which of them had started. So afterwards they are *isolated*: each waits here
    until it can run alone, with its start stored.
    """

    def __init__(self) -> None:
        self._isolated: deque[TaskRun] = deque()
        self._claimed_at = time.monotonic()
        self.is_open = False
        """Whether a batch is running. If so, ends are stored together instead of immediately."""

    def __len__(self) -> int:
        """Return the number of isolated tasks that wait."""
        return len(self._isolated)

    def ids(self) -> set[int]:
        """Return the ids of the isolated tasks that wait."""
        return {run.record.id for run in self._isolated}

    def note_claim(self) -> None:
        """Note that tasks were claimed now."""
        self._claimed_at = time.monotonic()

    def open(self, runs: Sequence[TaskRun]) -> list[TaskRun]:
        """Start a batch. Return the tasks that may run together; those that must run alone wait here."""
        self.is_open = True
        self._isolated.extend(run for run in runs if run.record.isolated)
        return [run for run in runs if not run.record.isolated]

    def close_if_stored(self, active: Collection[TaskRun]) -> None:
        """End the batch if the start of every running task is stored."""
        self.is_open = self.is_open and not all(run.start_stored for run in active)

    @property
    def has_waited_long(self) -> bool:
        """Return whether tasks of the last claim have waited so long for a slot that they should be released."""
        return time.monotonic() - self._claimed_at > MAX_RESERVED

    def take_isolated(self) -> list[TaskRun]:
        """Remove and return all isolated tasks that wait, so that they can be released."""
        waiting = list(self._isolated)
        self._isolated.clear()
        return waiting

    # -- starts that are stored by themselves ------------------------------------------------------

    def late_starts(self, active: Collection[TaskRun], *, may_isolate: bool) -> list[tuple[TaskRun, Start]]:
        """Return the starts to store now: of an isolated task, and of tasks that take longer than a short one."""
        starts = []
        if self._isolated and may_isolate and not active:
            run = self._isolated[0]
            starts.append((run, Start(run.record.id, run.record.token, clock.now())))
        for run in active:
            if not run.start_stored and run.started_at is not None and is_late(run.started_at):
                starts.append((run, Start(run.record.id, run.record.token, run.started_at)))
        return starts

    def on_starts(self, starts: Sequence[tuple[TaskRun, Start]], verdicts: Sequence[Verdict]) -> list[TaskRun]:
        """Handle the verdicts on these starts. Return the isolated task that may run now, if any."""
        ready = []
        for (run, _), verdict in zip(starts, verdicts, strict=True):
            if verdict.stored or (verdict.token == run.record.token and verdict.state == RUNNING):
                run.start_stored = True
                run.record = _started(run.record)
            else:
                run.cancel()
            if self._isolated and run is self._isolated[0]:
                self._isolated.popleft()
                if run.start_stored:
                    ready.append(run)
        return ready


def is_late(started_at: int) -> bool:
    """Return whether a task that started at ``started_at`` (microseconds) has run too long to be short."""
    return started_at <= clock.now() - int(STORED_WITHIN * 1e6)


def _started(record: TaskRecord) -> TaskRecord:
    return record._replace(attempt=record.attempt + 1)

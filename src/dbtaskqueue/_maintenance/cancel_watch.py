"""Reads requests about running tasks within a second: cancel one, suspend one, or stop one whose claim was lost.

Only here does a worker read such requests, with one query for all of its tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .._executors.task_run import TaskRun
from .._store.contract import Held


class CancelWatch:
    """A duty: compare the running tasks with those that this worker holds according to the database."""

    interval = 1.0

    def __init__(self, held: Callable[[], list[Held]], running: Callable[[], Iterable[TaskRun]]) -> None:
        self._held = held
        self._running = running

    def __call__(self) -> None:
        runs = {run for run in self._running() if run.start_stored and not run.cancelled}
        if not runs:
            return
        held = {(row.id, row.token): row for row in self._held()}
        for run in runs & set(self._running()):  # a task that has ended meanwhile is no longer held
            row = held.get((run.record.id, run.record.token))
            if row is None or row.cancel_requested:
                run.cancel()
            elif run.suspend is not None and bool(row.suspended) != run.is_suspended:
                run.suspend(bool(row.suspended))

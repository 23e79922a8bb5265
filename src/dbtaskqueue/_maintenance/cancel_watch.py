"""Reads within a second what the database wants of running tasks: cancel one, suspend one, or stop one that was lost.

This is the one place where a worker reads such requests, with one query for all of its tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .._executors.task_run import TaskRun
from .._store.contract import Held


class CancelWatch:
    """A duty: compare what runs here with what the database says that this worker holds."""

    interval = 1.0

    def __init__(self, held: Callable[[], list[Held]], running: Callable[[], Iterable[TaskRun]]) -> None:
        self._held = held
        self._running = running

    def __call__(self) -> None:
        runs = {run for run in self._running() if run.start_stored and not run.cancelled}
        if not runs:
            return
        held = {(row.id, row.token): row for row in self._held()}
        for run in runs & set(self._running()):  # a task that ended in the meantime is not held any more
            row = held.get((run.record.id, run.record.token))
            if row is None or row.cancel_requested:
                run.cancel()
            elif run.suspend is not None and bool(row.suspended) != run.is_suspended:
                run.suspend(bool(row.suspended))

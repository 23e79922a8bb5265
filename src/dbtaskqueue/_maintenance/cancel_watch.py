"""Hearing within a second that a running task is to be cancelled, to stand still, or is not ours any more."""

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
        works = {work for work in self._running() if work.start_stored and not work.cancelled}
        if not works:
            return
        held = {(row.id, row.token): row for row in self._held()}
        for work in works & set(self._running()):  # what ended meanwhile is not held, and no news
            row = held.get((work.record.id, work.record.token))
            if row is None or row.cancel_requested:
                work.cancel()
            elif work.suspend is not None and bool(row.suspended) != work.is_suspended:
                work.suspend(bool(row.suspended))

"""Stores the progress and the output of all running tasks once a second, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .._executors.task_run import TaskRun
from .._store.contract import Note


class ProgressReport:
    """A duty: store what running tasks have reported since the last time. The last report is stored with the end."""

    interval = 1.0

    def __init__(self, running: Callable[[], Iterable[TaskRun]], store: Callable[[Sequence[Note]], object]) -> None:
        self._running = running
        self._store = store

    def __call__(self) -> None:
        notes = [note for run in self._running() for note in run.notes()]
        if notes:
            self._store(notes)

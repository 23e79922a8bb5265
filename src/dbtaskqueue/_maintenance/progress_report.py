"""Telling the database once a second how far the running tasks have got, all of them in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .._executors.task_run import TaskRun
from .._store.contract import Note


class ProgressReport:
    """A duty: store what running tasks have told since the last time. The last words of a task come with its end."""

    interval = 1.0

    def __init__(self, running: Callable[[], Iterable[TaskRun]], store: Callable[[Sequence[Note]], object]) -> None:
        self._running = running
        self._store = store

    def __call__(self) -> None:
        notes = [note for work in self._running() for note in work.notes()]
        if notes:
            self._store(notes)

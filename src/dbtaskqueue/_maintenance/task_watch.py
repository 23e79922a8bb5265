"""The thread that watches running tasks: their limits and their usage. It does not use the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .._executors.task_run import TaskRun
from ..events import Events, Outage
from .limit_watch import LimitWatch
from .loop import MaintenanceLoop
from .usage_watch import UsageWatch


class TaskWatch:
    """Starts its thread when the first task needs it. ``measures``: tasks have processes whose usage is measured."""

    def __init__(self, running: Callable[[], Iterable[TaskRun]], events: Events, *, measures: bool) -> None:
        self._running = running
        self._measures = measures
        self._loop = MaintenanceLoop("limits", Outage("limits", events))
        self.is_started = False
        """Whether the thread runs."""

    def start_if_needed(self, has_limits: bool) -> None:
        """Start the thread if a task has limits, or if usage is measured."""
        if self.is_started or not (has_limits or self._measures):
            return
        self.is_started = True
        self._loop.add(LimitWatch(self._running))
        if self._measures:
            self._loop.add(UsageWatch(self._running))
        self._loop.start()

    def stop(self) -> None:
        """End the thread."""
        if self.is_started:
            self._loop.stop()

"""When a run of a worker ends by itself: see ``Worker.run``."""

from __future__ import annotations

import time


class RunLimits:
    """The limits of one run, and what is left of them.

    ``burst``: end when no task is due. ``max_tasks``: end after that many tasks. ``idle_timeout``: end after that many
    seconds without a task. ``Worker.run`` has checked them.
    """

    def __init__(self, *, burst: bool = False, max_tasks: int | None = None, idle_timeout: float | None = None) -> None:
        self.burst = burst
        self._max_tasks = max_tasks
        self._idle_timeout = idle_timeout
        self._started = 0
        self._last_task = time.monotonic()

    def count(self, tasks: int) -> None:
        """Count claimed tasks. A negative number counts tasks that were released without having started."""
        self._started += tasks
        if tasks > 0:
            self.note_activity()

    def note_activity(self) -> None:
        """Note that a task was claimed or has ended."""
        self._last_task = time.monotonic()

    @property
    def room(self) -> int | None:
        """Return how many more tasks may be claimed; None for any number."""
        return None if self._max_tasks is None else max(0, self._max_tasks - self._started)

    def idle_left(self) -> float | None:
        """Return the seconds until the run has been idle for too long; None for never."""
        return None if self._idle_timeout is None else self._last_task + self._idle_timeout - time.monotonic()

    @property
    def is_reached_when_idle(self) -> bool:
        """Return whether the run ends once nothing runs and nothing is due."""
        left = self.idle_left()
        return self.burst or (left is not None and left <= 0)

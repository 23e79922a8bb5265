"""Requests that a worker stops, and their confirmation in the log."""

from __future__ import annotations

import logging
import math
import queue

from .._system.log import event
from ..checks import counted


class StopSwitch:
    """Counts the requests to stop: the first drains the worker, a second one stops it immediately.

    ``bell`` wakes the worker's loop. ``exception`` is what ``Worker.run`` raises at its end, if anything.
    """

    def __init__(self, bell: queue.SimpleQueue[None], drain_timeout: float) -> None:
        self._bell = bell
        self._drain_timeout = drain_timeout
        self._requests = 0
        self._announced = ""
        self.exception: BaseException | None = None

    def request(self) -> None:
        """Request a stop. Safe in a signal handler and in any thread."""
        self._requests += 1
        self._bell.put(None)

    def stop_with(self, error: BaseException) -> None:
        """Request a stop after which ``run`` raises the error. The first error counts."""
        self.exception = self.exception or error
        if not self._requests:
            self.request()

    def start_draining(self) -> bool:
        """Behave as after the first request. Return whether there was one; if not, a limit of the run was reached."""
        was_asked = self._requests > 0
        self._requests = max(self._requests, 1)
        return was_asked

    @property
    def is_on(self) -> bool:
        """Whether the worker is stopping."""
        return self._requests > 0

    @property
    def is_immediate(self) -> bool:
        """Whether running tasks are not waited for."""
        return self._requests > 1

    def announce(self, running: int, *, typed: bool) -> None:
        """Log that the worker stops, and how long that may take. Never call it in a signal handler: see ``signals``.

        ``running``: how many tasks run. ``typed``: a person has pressed Ctrl-C, and should see the confirmation even
        if only warnings are shown.
        """
        tasks = counted(running)
        if not running:
            text = "stopping"
        elif self.is_immediate:
            text = f"stopping now: {tasks} stopped and released"
        else:
            may_run = "until they finish" if self._drain_timeout == math.inf else f"for {self._drain_timeout:g} s more"
            again = "press Ctrl-C" if typed else "send the signal"
            text = f"stopping: {tasks} may run {may_run}; {again} again to stop now"
        if text != self._announced:
            self._announced = text
            event(logging.WARNING if typed and running else logging.INFO, text)

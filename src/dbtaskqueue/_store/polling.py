"""Waiting for a database that sends no notifications: poll often while tasks arrive, and less often otherwise."""

from __future__ import annotations

import contextlib
import os
import queue
import time

from .contract import Wakeups

_SHORTEST, _LONGEST = 0.02, 2.0
"""Seconds between two polls: while tasks arrive, and when none has arrived for a long time."""
_BUSY_FOR = 3.0
"""Seconds after the last task until polls become rarer."""


class PollingWakeups(Wakeups):
    """Each wait ends after a pause that grows while nothing happens. Then the waiting thread polls."""

    def __init__(self) -> None:
        self._waiters: set[queue.SimpleQueue[None]] = set()
        self._pid = os.getpid()
        self._busy_until = time.monotonic() + _BUSY_FOR

    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """Return None: there is nothing to remember."""
        return None

    def give_up(self, ticket: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: there is no thread to end."""

    def wait(self, ticket: object, timeout: float) -> None:
        """See the base class. Interruptible by signals."""
        self.wait_on(queue.SimpleQueue(), ticket, timeout)

    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> bool:
        """See the base class."""
        self._after_fork()
        self._waiters.add(bell)
        try:
            with contextlib.suppress(queue.Empty):
                bell.get(timeout=max(0.0, min(timeout, self._pause())))
            return True  # to poll
        finally:
            self._waiters.discard(bell)

    def ring(self) -> None:
        """Wake every waiter of this process."""
        self._after_fork()
        self.poll_often()
        for bell in tuple(self._waiters):
            bell.put(None)

    def poll_often(self) -> None:
        """Poll often for a while: more tasks may follow."""
        self._busy_until = time.monotonic() + _BUSY_FOR

    def _pause(self) -> float:
        """Return a fortieth of the time without a task, within limits."""
        idle = max(0.0, time.monotonic() - self._busy_until)
        return min(_LONGEST, max(_SHORTEST, idle / 40))

    def _after_fork(self) -> None:
        if os.getpid() != self._pid:
            self._waiters, self._pid = set(), os.getpid()

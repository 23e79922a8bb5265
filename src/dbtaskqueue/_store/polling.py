"""Waiting for a database that tells nobody when it changes: look again soon after something happened, later else."""

from __future__ import annotations

import contextlib
import os
import queue
import time

from .contract import Wakeups

_SHORTEST, _LONGEST = 0.02, 2.0
"""Seconds between two looks: while tasks come, and when none has come for a long time."""
_PATIENCE = 3.0
"""Seconds without a task until looks become rarer."""


class PollingWakeups(Wakeups):
    """Each wait ends after a pause that grows while nothing happens; whoever waits looks then."""

    def __init__(self) -> None:
        self._waiters: set[queue.SimpleQueue[None]] = set()
        self._pid = os.getpid()
        self._busy_until = time.monotonic() + _PATIENCE

    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """Nothing to remember: the wait is short."""
        return None

    def give_up(self, ticket: object) -> None:
        """Nothing to undo."""

    def close(self) -> None:
        """No thread to end."""

    def wait(self, ticket: object, timeout: float) -> None:
        """See the base class. Interruptible by signals."""
        self.wait_on(queue.SimpleQueue(), ticket, timeout)

    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> None:
        """See the base class."""
        self._after_fork()
        self._waiters.add(bell)
        try:
            with contextlib.suppress(queue.Empty):
                bell.get(timeout=max(0.0, min(timeout, self._pause())))
        finally:
            self._waiters.discard(bell)

    def ring(self) -> None:
        """Wake every waiter of this process."""
        self._after_fork()
        self.stir()
        for bell in tuple(self._waiters):
            bell.put(None)

    def stir(self) -> None:
        """Something happened: more may follow soon."""
        self._busy_until = time.monotonic() + _PATIENCE

    def _pause(self) -> float:
        """A fortieth of the time that nothing has happened, within limits."""
        idle = max(0.0, time.monotonic() - self._busy_until)
        return min(_LONGEST, max(_SHORTEST, idle / 40))

    def _after_fork(self) -> None:
        if os.getpid() != self._pid:
            self._waiters, self._pid = set(), os.getpid()

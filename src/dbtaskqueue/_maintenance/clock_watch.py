"""Corrects due times after the clock was set back.

A task without a delay is due when it is enqueued, released or retried. If the clock is then set back by an hour, such a
task would wait for an hour. Due times that a user has set are left as they are.
"""

from __future__ import annotations

import logging
import time

from .._store.contract import Store
from .._system import clock
from .._system.log import event

_TOLERANCE = 1_000_000
_SELDOM = 15.0
"""Seconds after which the newest task is read if nobody has called ``see``, which the ticker does every 10 s.

A change of the clock while this process runs is noticed without the newest task.
"""


class ClockWatch:
    """A duty: notice that the clock was set back, by the monotonic clock or by the newest task's creation time."""

    interval = 1.0

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset = self._measure()
        self._fixed: int | None = None
        self._next_check = 0.0

    def __call__(self) -> int:
        """Check the clock, and at intervals the newest task. Return how many tasks were made due."""
        jumped = self._measure() <= self._offset - _TOLERANCE
        return self.check() if jumped or time.monotonic() >= self._next_check else 0

    def check(self) -> int:
        """Check the clock and the newest task now. Return how many tasks were made due."""
        return self.see(self._store.newest())

    def see(self, newest: tuple[int, int] | None) -> int:
        """Check the clock and the newest task (its id and time of creation). Return how many tasks were made due."""
        offset, self._offset = self._offset, self._measure()
        now = clock.now()
        self._next_check = time.monotonic() + _SELDOM
        ahead = newest is not None and newest[1] > now + _TOLERANCE and newest[0] != self._fixed
        if not ahead and self._offset > offset - _TOLERANCE:
            return 0
        count = self._store.fix_due_after_clock_change(now)
        self._fixed = newest[0] if newest else None
        if count:
            event(logging.WARNING, "the clock was set back, waiting tasks are due now", tasks=count)
        return count

    @staticmethod
    def _measure() -> int:
        return clock.now() - time.monotonic_ns() // 1000

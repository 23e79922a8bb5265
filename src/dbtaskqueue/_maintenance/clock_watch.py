"""Mending what a clock that was set back would do: tasks that were due at once must not wait for it.

A task without a delay is due at the moment when that was decided: enqueued, given back, retried. Set back by
an hour, the clock would let it wait for an hour. Delays and times that somebody asked for follow the clock.
"""

from __future__ import annotations

import logging
import time

from .._store.contract import Store
from .._system import clock
from .._system.log import event

_TOLERANCE = 1_000_000
_SELDOM = 10.0
"""Seconds between two looks at the newest task: a clock that goes back while this process lives is seen without."""


class ClockWatch:
    """A duty: see that the clock went back, by the monotonic one or by the newest task's time."""

    interval = 1.0

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset = self._measure()
        self._mended: int | None = None
        self._next_check = 0.0

    def __call__(self) -> int:
        """Look at the clock, and now and then at the newest task; how many tasks were made due."""
        jumped = self._measure() <= self._offset - _TOLERANCE
        return self.check() if jumped or time.monotonic() >= self._next_check else 0

    def check(self) -> int:
        """Look at both."""
        offset, self._offset = self._offset, self._measure()
        now = clock.now()
        newest = self._store.newest()
        self._next_check = time.monotonic() + _SELDOM
        ahead = newest is not None and newest[1] > now + _TOLERANCE and newest[0] != self._mended
        if not ahead and self._offset > offset - _TOLERANCE:
            return 0
        count = self._store.fix_due_after_clock_change(now)
        self._mended = newest[0] if newest else None
        if count:
            event(logging.WARNING, "the clock was set back, waiting tasks are due now", tasks=count)
        return count

    @staticmethod
    def _measure() -> int:
        return clock.now() - time.monotonic_ns() // 1000

"""Waiting for a change of a SQLite file: one watching thread for each process and file, while any thread waits.

``PRAGMA data_version`` shows whether another connection has committed; it takes no lock. A watch on the write-ahead log
shows when to read it. A write to the log comes before its commit, and no event follows the commit. So after an event,
the version is read again at growing intervals. Without a watch, the version is polled: the intervals grow less.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Callable

from ...errors import StoreUnavailable
from ..contract import Wakeups
from ..watching import WatchThread
from .inotify import Watch, open_watch

_SHORTEST = 0.0005
_LONGEST_WATCHED = 0.5
_LONGEST_POLLED = 0.02
_QUIET = 0.005
"""While the database changes all the time, waiters are woken at most this often (seconds)."""


class SqliteWakeups(Wakeups):
    """Wakes waiting threads when the file changes, or when this process rings."""

    sees_all_queues = True

    def __init__(self, version: Callable[[], object], log_path: str) -> None:
        self._version = version
        self._log_path = log_path
        self._reset()

    def _reset(self) -> None:
        self._watcher = WatchThread(self._watch_while_wanted, self._finish)
        self._seen: object = None
        self._watch: Watch | None = None
        self._pid = os.getpid()

    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """Return the file's data version; None if it cannot be read, which equals no version."""
        try:
            return self._version()
        except StoreUnavailable:
            return None

    def give_up(self, ticket: object) -> None:
        """Do nothing."""

    def wait(self, ticket: object, timeout: float) -> None:
        """See the base class. Interruptible by signals."""
        self.wait_on(queue.SimpleQueue(), ticket, timeout)

    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> bool:
        """See the base class."""
        if os.getpid() != self._pid:
            self._reset()
        self._watcher.add(bell)
        try:
            now = self.ticket()
            if now is not None and now != ticket:
                return True
            with contextlib.suppress(queue.Empty):
                bell.get(timeout=max(timeout, 0))
                return True
            return False
        finally:
            self._watcher.waiters.discard(bell)

    def ring(self) -> None:
        """Wake every waiter of this process."""
        if self._watcher.waiters and os.getpid() != self._pid:
            self._reset()
        self._watcher.ring()

    def close(self) -> None:
        """See the base class."""
        if os.getpid() == self._pid:
            self._watcher.close()

    # -- in the watching thread --------------------------------------------------------------------

    def _watch_while_wanted(self) -> None:
        pause = _SHORTEST
        while self._watcher.waiters:
            if self._has_changed():
                self._watcher.ring()
                time.sleep(_QUIET)
                pause = _SHORTEST
            elif self._sleep(pause):
                pause = _SHORTEST
            else:
                pause = min(pause * 2, _LONGEST_WATCHED if self._watch else _LONGEST_POLLED)

    def _has_changed(self) -> bool:
        try:
            version = self._version()
        except StoreUnavailable:
            return False
        self._seen, before = version, self._seen
        return version != before

    def _sleep(self, seconds: float) -> bool:
        """Sleep; True as soon as the log was written to."""
        if self._watch is not None and seconds > _LONGEST_POLLED and self._watch.is_stale():
            self._close_watch()
        if self._watch is None:
            self._watch = open_watch(self._log_path)
        if self._watch is not None:
            return self._watch.wait(seconds)
        time.sleep(seconds)
        return False

    def _finish(self) -> None:
        self._seen = None
        self._close_watch()

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

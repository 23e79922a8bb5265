"""Waiting for a change of a SQLite file: one watching thread for each process and file, while any thread waits.

``PRAGMA data_version`` shows whether another connection has committed; it takes no lock. A watch on the write-ahead log
shows when to read it. A write to the log comes before its commit, and no event follows the commit. So after an event,
the version is read again at growing intervals. Without a watch, the version is polled: the intervals grow less.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable

from ...errors import StoreUnavailable
from ..contract import Wakeups
from .inotify import Watch, open_watch

_SHORTEST = 0.0005
_LONGEST_WATCHED = 0.5
_LONGEST_POLLED = 0.02
_QUIET = 0.005
"""While the database changes all the time, waiters are woken at most this often (seconds)."""
_IDLE_FOR = 10.0
"""Seconds for which the watching thread outlives the last waiting thread."""


class SqliteWakeups(Wakeups):
    """Wakes waiting threads when the file changes, or when this process rings."""

    def __init__(self, version: Callable[[], object], log_path: str) -> None:
        self._version = version
        self._log_path = log_path
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[queue.SimpleQueue[None]] = set()
        self._watcher: _Watcher | None = None
        self._is_closed = False
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

    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> None:
        """See the base class."""
        if os.getpid() != self._pid:
            self._reset()
        with self._lock:
            self._waiters.add(bell)
            if self._watcher is None:
                self._watcher = _Watcher(self._version, self._log_path, self._waiters, self._idle_for, self._retire)
                self._watcher.start()
            self._watcher.wanted.put(None)
        try:
            now = self.ticket()
            if now is not None and now != ticket:
                return
            with contextlib.suppress(queue.Empty):
                bell.get(timeout=max(timeout, 0))
        finally:
            self._waiters.discard(bell)

    def ring(self) -> None:
        """Wake every waiter of this process."""
        if self._waiters and os.getpid() != self._pid:
            self._reset()
        for bell in tuple(self._waiters):
            bell.put(None)

    def close(self) -> None:
        """See the base class."""
        self._is_closed = True
        if self._watcher is not None and os.getpid() == self._pid:
            self._watcher.wanted.put(None)

    def _idle_for(self) -> float:
        """Return the seconds for which the watcher outlives the last waiter."""
        return 0.0 if self._is_closed else _IDLE_FOR

    def _retire(self) -> bool:
        """Return whether the watcher should end. It asks when no thread has waited for a while."""
        with self._lock:
            if not self._waiters:
                self._watcher = None
            return self._watcher is None


class _Watcher(threading.Thread):
    """The thread that reads the data version when the log was written to."""

    def __init__(
        self,
        version: Callable[[], object],
        log_path: str,
        waiters: set[queue.SimpleQueue[None]],
        idle_for: Callable[[], float],
        retire: Callable[[], bool],
    ) -> None:
        super().__init__(name="dbtaskqueue-wakeups", daemon=True)
        self.wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._version = version
        self._log_path = log_path
        self._waiters = waiters
        self._idle_for = idle_for
        self._retire = retire
        self._seen: object = None
        self._watch: Watch | None = None

    def run(self) -> None:
        try:
            while self._is_wanted():
                self._watch_while_wanted()
        finally:
            self._close_watch()

    def _is_wanted(self) -> bool:
        """Sleep until a thread waits; False after a close, and when none has waited for a long time."""
        while not self._waiters:
            try:
                self.wanted.get(timeout=self._idle_for())
            except queue.Empty:
                if self._retire():
                    return False
        return True

    def _watch_while_wanted(self) -> None:
        pause = _SHORTEST
        while self._waiters:
            if self._has_changed():
                for bell in tuple(self._waiters):
                    bell.put(None)
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

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

"""A thread that watches a database for changes while any thread of this process waits for one."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

Bell = queue.SimpleQueue[None]
IDLE_FOR = 10.0
"""Seconds for which the thread outlives the last waiting thread."""


class WatchThread:
    """Starts with the first waiter and ends when none has waited for a while, or soon after ``close``.

    ``watch`` is called repeatedly while there are waiters. It calls ``ring`` when the database has changed, and returns
    after a while. ``finish`` is called in the thread at its end.
    """

    def __init__(self, watch: Callable[[], None], finish: Callable[[], None] = lambda: None) -> None:
        self.waiters: set[Bell] = set()
        self._watch = watch
        self._finish = finish
        self._lock = threading.RLock()  # reentrant, since a signal handler may call close()
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, bell: Bell) -> None:
        """Wake this waiter at each change until it is removed from ``waiters``."""
        with self._lock:
            self.waiters.add(bell)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dbtaskqueue-wakeups", daemon=True)
                self._thread.start()
            self._wanted.put(None)

    def ring(self) -> None:
        """Wake all waiters."""
        for bell in tuple(self.waiters):
            bell.put(None)

    def close(self) -> None:
        """Stop the thread once no thread waits. A later waiter starts another one."""
        self._is_closed = True
        self._wanted.put(None)

    def sleep(self, seconds: float) -> bool:
        """Sleep in the thread, but return True as soon as a thread starts to wait."""
        with contextlib.suppress(queue.Empty):
            self._wanted.get(timeout=seconds)
            return True
        return False

    def _run(self) -> None:
        try:
            while self._is_wanted():
                self._watch()
        except BaseException:
            self._finish()
            raise

    def _is_wanted(self) -> bool:
        """Sleep until a thread waits; False after a close, and when none has waited for a long time."""
        while not self.waiters:
            if self._is_closed or not self.sleep(IDLE_FOR):
                with self._lock:
                    if not self.waiters:
                        self._finish()  # before another thread can start, which would share what this ends
                        self._thread = None
                        return False
        return True

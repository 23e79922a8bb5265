"""Who waits on PostgreSQL: LISTEN and NOTIFY, with a poll behind it.

Every NOTIFY takes a lock of the whole cluster at its commit, so nobody notifies for nothing: whoever is
about to sleep says so in a table, commits, looks again, and sleeps; whoever enqueues takes one such row
for each task, and notifies that one sleeper. Through a pooler LISTEN is not to be had: there it is a poll.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import select
import threading

from ...errors import StoreUnavailable
from ..polling import PollingWakeups
from .connections import PostgresqlConnections, PostgresqlLink

_GOOD_FOR = 7.0
"""Seconds that a sleeper's word is good; it sleeps for at most five at a time."""
_LOOK = 1.0
_PATIENCE = 10.0


class PostgresqlWakeups(PollingWakeups):
    """Wakes waiting threads when somebody notifies this process, or when this process rings."""

    def __init__(self, connections: PostgresqlConnections) -> None:
        super().__init__()
        self._connections = connections
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._channel = f"dbtaskqueue_{secrets.token_hex(8)}"
        self._is_registered = False
        self._listener: threading.Thread | None = None
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()

    def _after_fork(self) -> None:
        if os.getpid() != self._pid:
            self._begin_anew()
        super()._after_fork()

    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """Say that somebody is about to sleep until a task of ``queues`` is due; None: it can only poll."""
        self._after_fork()
        if not queues or self._connections.is_pooled:
            return None

        def register(link: PostgresqlLink) -> bool:
            if self._connections.is_pooled:
                return False
            link.listen(self._channel, self._heard)
            link.change("wait", {"queues": list(queues), "channel": self._channel, "seconds": _GOOD_FOR})
            return True

        with contextlib.suppress(StoreUnavailable):
            self._is_registered = self._connections.ask(register)
        return self._channel if self._is_registered else None

    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> None:
        """See the base class."""
        if ticket is None:
            super().wait_on(bell, ticket, timeout)
            return
        with self._lock:
            self._waiters.add(bell)
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="dbtaskqueue-wakeups", daemon=True)
                self._listener.start()
            self._wanted.put(None)
        try:
            with contextlib.suppress(queue.Empty):
                bell.get(timeout=max(timeout, 0))
        finally:
            self._waiters.discard(bell)

    def withdraw(self) -> None:
        """Somebody here has got something to do: let others be woken for what comes."""
        if self._is_registered:
            self._is_registered = False
            with contextlib.suppress(StoreUnavailable):
                self._connections.ask(lambda link: link.change("forget_waiters", {"channel": self._channel}))

    def _heard(self) -> None:
        self._is_registered = False
        for bell in tuple(self._waiters):
            bell.put(None)

    # -- in the listening thread -------------------------------------------------------------------

    def _listen(self) -> None:
        while self._is_wanted():
            fd = self._connections.reader_fd()
            if fd is None or not _has_news(fd):
                if fd is None:
                    self._wanted_soon()
                continue
            if not self._connections.hear():
                self._heard()  # the connection is gone: whoever waits finds out

    def _wanted_soon(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._wanted.get(timeout=_LOOK)

    def _is_wanted(self) -> bool:
        """Sleep until somebody waits; False when nobody has for a long time."""
        while not self._waiters:
            try:
                self._wanted.get(timeout=_PATIENCE)
            except queue.Empty:
                with self._lock:
                    if not self._waiters:
                        self._listener = None
                        return False
        return True


def _has_news(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        return bool(poll.poll(_LOOK * 1000))
    except OSError:
        return False

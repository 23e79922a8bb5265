"""Waking idle workers on PostgreSQL: LISTEN and NOTIFY, with polling as a fallback.

Every NOTIFY takes a lock of the whole cluster at its commit, so it is sent only to a process that waits. A waiter
registers in a table, commits, checks for due tasks again, and sleeps. An enqueue deletes one row for each task and
notifies its owner. A waiter that stops waiting deletes its row. The row of a dead process does not count: the listening
session holds an advisory lock, which ends with it. LISTEN is not available through a pooler; there, waiters poll.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from typing import NamedTuple

from ...errors import StoreUnavailable
from ..polling import PollingWakeups
from ..watching import WatchThread
from .connections import PostgresqlConnections, PostgresqlLink

_GOOD_FOR = 7.0
"""Seconds for which a waiter's row is valid; it sleeps for at most five at a time."""
_CHECK_INTERVAL = 1.0

_CHECK_FIRST = object()
"""The ticket of a waiter that has just woken: it checks for due tasks before it registers again."""


class _Ticket(NamedTuple):
    """The state when a waiter registered: its queues, and how often ``ring`` had been called in this process."""

    queues: tuple[str, ...]
    rings: int


class PostgresqlWakeups(PollingWakeups):
    """Wakes waiting threads when this process is notified, or when it rings."""

    def __init__(self, connections: PostgresqlConnections) -> None:
        super().__init__()
        self._connections = connections
        self._start_without_waiters()

    def _start_without_waiters(self) -> None:
        self._lock = threading.RLock()  # reentrant, since a signal handler may call close()
        self._rings = 0
        self._tickets = 0  # registered tickets that are in use
        self._was_awake = False
        self._channel: str | None = None
        self._rows: dict[str, str] = {}  # our rows by queue, as notifications name them; guarded by the reader's lock
        self._listener = WatchThread(self._listen)

    def _after_fork(self) -> None:
        if os.getpid() != self._pid:
            self._start_without_waiters()
        super()._after_fork()

    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """Register as a waiter for ``queues``; None: it can only poll."""
        self._after_fork()
        if not queues or self._connections.is_pooled:
            return None
        if self._was_awake:  # it may be about to run a task, and must not take a notification from another waiter
            self._was_awake = False
            return _CHECK_FIRST

        def register(link: PostgresqlLink) -> bool:
            if self._connections.is_pooled:
                return False
            self._channel = link.listen(self._heard)
            values = {"queues": list(queues), "channel": self._channel, "seconds": _GOOD_FOR}
            self._rows.update((row[0], row[1]) for row in link.rows("wait", values))
            return True

        ticket = _Ticket(queues, self._rings)
        self._count(1)  # before registering, so that another thread that stops waiting does not delete the rows
        with contextlib.suppress(StoreUnavailable):
            if self._connections.ask(register):
                return ticket
        self._count(-1)
        return None

    def give_up(self, ticket: object) -> None:
        """Remove this process's rows when none of its threads waits any more."""
        if isinstance(ticket, _Ticket) and self._count(-1) == 0 and self._rows:
            self._connections.on_open_reader(self._unregister)

    def _unregister(self, link: PostgresqlLink) -> None:
        if self._tickets == 0 and self._rows and link.channel == self._channel:
            link.change("stop_waiting", {"channel": self._channel, "queues": list(self._rows)})
            self._rows.clear()

    def _count(self, change: int) -> int:
        with self._lock:
            self._tickets = max(0, self._tickets + change)
            return self._tickets

    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> bool:
        """See the base class."""
        if ticket is _CHECK_FIRST:
            return True
        if not isinstance(ticket, _Ticket):
            return super().wait_on(bell, ticket, timeout)
        self._listener.add(bell)
        try:
            if ticket.rings == self._rings and all(name in self._rows for name in ticket.queues):  # else it was woken
                try:
                    bell.get(timeout=max(timeout, 0))
                except queue.Empty:
                    return False
            return True
        finally:
            self._listener.waiters.discard(bell)
            self._was_awake = True

    def ring(self) -> None:
        """Wake every waiter of this process, including one that has its ticket but does not wait yet."""
        self._rings += 1
        super().ring()
        self._listener.ring()

    def close(self) -> None:
        """See the base class."""
        self._listener.close()
        with self._lock:
            self._tickets = 0
        if self._rows:
            self._connections.on_open_reader(self._unregister)

    def _heard(self, row: str) -> None:
        """Handle a notification: the sender has deleted this row of ours."""
        name, _, stamp = row.partition(" ")
        if self._rows.get(name) == stamp:
            del self._rows[name]
        self._listener.ring()

    # -- in the listening thread -------------------------------------------------------------------

    def _listen(self) -> None:
        fd = self._connections.reader_fd()
        if fd is not None:
            _await_notification(fd)
        if self._rows and not self._connections.hears(self._channel):
            self._listener.ring()  # the listening connection is closed: waiters register on another
            self._listener.sleep(_CHECK_INTERVAL)
        elif fd is None:
            self._listener.sleep(_CHECK_INTERVAL)


def _await_notification(fd: int) -> None:
    poll = select.poll()
    with contextlib.suppress(OSError):
        poll.register(fd, select.POLLIN)
        poll.poll(_CHECK_INTERVAL * 1000)

"""Django's connections in a worker: opened, checked and closed around each task as around a request."""

from __future__ import annotations

import threading

from django.db import close_old_connections, connections, reset_queries


def renew_connections() -> None:
    """Do what Django does when a request starts, in the thread that uses the connections."""
    reset_queries()
    close_old_connections()


class Share:
    """The share of a coroutine in Django's connections. All coroutines of a process use those of one thread.

    So their age counts only while no other coroutine runs: it may read from a cursor. Call both methods in that thread.
    """

    _running = threading.local()

    def __init__(self) -> None:
        self._has_started = False

    def start(self) -> None:
        """Do what Django does when a request starts."""
        others = self._count()
        self._has_started, self._running.number = True, others + 1
        _close_broken() if others else renew_connections()

    def end(self) -> None:
        """Do what Django does when a request ends, if ``start`` was called."""
        if self._has_started:
            self._running.number = others = self._count() - 1
            _close_broken() if others else close_old_connections()

    def _count(self) -> int:
        return getattr(self._running, "number", 0)


def _close_broken() -> None:
    """Close connections that have had an error and do not work any more: the next query opens others."""
    for connection in connections.all(initialized_only=True):
        has_failed = connection.connection is not None and connection.errors_occurred
        if has_failed and not connection.in_atomic_block and not connection.is_usable():
            connection.close()

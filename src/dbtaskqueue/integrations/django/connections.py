"""Django's connections in a worker: opened, checked and closed around each task as around a request."""

from __future__ import annotations

import threading
import weakref

from django.db import close_old_connections, connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper

_idle: weakref.WeakSet[BaseDatabaseWrapper] = weakref.WeakSet()
"""Connections of any thread that are open, by CONN_MAX_AGE, and that no task uses."""
_lock = threading.Lock()


def use_connections() -> None:
    """Do what Django does when a request starts, in the thread that uses the connections."""
    with _lock:
        _idle.difference_update(connections.all(initialized_only=True))
    reset_queries()
    close_old_connections()


def leave_connections() -> None:
    """Do what Django does when a request ends, in the thread that has used the connections."""
    close_old_connections()
    with _lock:
        _idle.update(each for each in connections.all(initialized_only=True) if each.connection is not None)


def close_idle_connections() -> None:
    """Close what the threads of a worker leave open. A test database could not be dropped otherwise."""
    with _lock:
        for connection in list(_idle):
            connection.inc_thread_sharing()
            try:
                if not connection.in_atomic_block:
                    connection.close()
            finally:
                connection.dec_thread_sharing()
        _idle.clear()


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
        _close_broken() if others else use_connections()

    def end(self) -> None:
        """Do what Django does when a request ends, if ``start`` was called."""
        if self._has_started:
            self._running.number = others = self._count() - 1
            _close_broken() if others else leave_connections()

    def _count(self) -> int:
        return getattr(self._running, "number", 0)


def _close_broken() -> None:
    """Close connections that have had an error and do not work any more: the next query opens others."""
    for connection in connections.all(initialized_only=True):
        has_failed = connection.connection is not None and connection.errors_occurred
        if has_failed and not connection.in_atomic_block and not connection.is_usable():
            connection.close()

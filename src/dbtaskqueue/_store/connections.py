"""What the connections of all engines have in common: reading and writing, group commits, forks.

A process has one connection that writes and one that reads, opened when they are needed. Threads that want to write at
the same moment share a commit (``group_commit.py``). A connection never crosses a fork.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, TypeVarTuple

from ..errors import StoreUnavailable
from .counting import counted
from .group_commit import GroupCommit, Request
from .queries import Conditions

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Row = tuple[Any, ...]
Values = Mapping[str, object]
NOTHING: Values = {}


_around_writes: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext


def surround_writes(around: Callable[[], AbstractContextManager[object]]) -> None:
    """From now on, run each writing transaction of this process inside the context manager that ``around`` returns."""
    global _around_writes
    _around_writes = around


def around_writes() -> AbstractContextManager[object]:
    """Return the context manager for a transaction that writes."""
    return _around_writes()


class Conflict(Exception):
    """A unique index refused the transaction; nothing was stored."""


class Transaction(abc.ABC):
    """The engine's named queries, on one connection."""

    @abc.abstractmethod
    def rows(self, name: str, values: Values = NOTHING) -> list[Row]:
        """Return all rows of the query ``name``."""

    @abc.abstractmethod
    def rows_where(self, name: str, conditions: Conditions, values: Values) -> list[Row]:
        """Return all rows of the query ``name`` with these conditions: see ``queries.composed``."""

    @abc.abstractmethod
    def change(self, name: str, values: Values = NOTHING) -> int:
        """Run the statement ``name``; return the number of rows that it inserted, changed or deleted."""

    @abc.abstractmethod
    def change_each(self, name: str, values: Sequence[Values]) -> None:
        """Run the statement ``name`` once for each element."""

    @abc.abstractmethod
    def array(self, ids: Sequence[int]) -> object:
        """Return numbers, at least one, in the form that the engine's queries take."""

    connection: Any
    """The driver's own connection."""

    @property
    @abc.abstractmethod
    def is_open(self) -> bool:
        """Return whether a transaction has started and not ended."""

    def row(self, name: str, values: Values = NOTHING) -> Row | None:
        """Return the first row of the query ``name``, or None."""
        rows = self.rows(name, values)
        return rows[0] if rows else None


class Connections(abc.ABC):
    """The connections of one process to one database. Safe to share between threads."""

    def __init__(self) -> None:
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._write_lock = threading.RLock()
        self._read_lock = threading.RLock()
        self._commits = GroupCommit(self._commit)
        self._asking: set[int] = set()  # threads in the middle of a call
        self._later: Callable[[], None] | None = None  # what a signal handler has requested for the end of such a call

    def write(self, work: Callable[[Any], T], *, alone: bool = False) -> T:
        """Run ``work`` in a write transaction, together with what other threads want written now.

        ``work`` may run twice, and must raise only database errors. ``alone``: it is one statement, which needs no
        BEGIN and COMMIT around it. Raises StoreUnavailable in a signal handler that has interrupted another call of
        the same thread, because it would wait for that call forever.
        """
        if threading.get_ident() in self._asking:
            raise StoreUnavailable("called by a signal handler during another call of its thread")
        result: T = self.converse(self._commits.ask, counted(work), alone)
        return result

    def converse(self, ask: Callable[[*Ts], T], *values: *Ts) -> T:
        """Call ``ask``, which uses the database. A ``close`` by a signal handler meanwhile takes effect after it."""
        thread = threading.get_ident()
        if thread in self._asking:
            return ask(*values)
        try:
            self._asking.add(thread)
            return ask(*values)
        finally:
            self._asking.discard(thread)
            if self._later is not None:
                later, self._later = self._later, None
                later()

    @abc.abstractmethod
    def read(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` on one snapshot of the database, without a lock that a writer needs."""

    @abc.abstractmethod
    def query(self, name: str, values: Values = NOTHING) -> list[Row]:
        """Return all rows of one reading query."""

    @abc.abstractmethod
    def own_transaction(self) -> AbstractContextManager[Transaction]:
        """Open a write transaction on a connection of its own. It is committed at the end of the block."""

    @abc.abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """Turn the driver's errors into StoreUnavailable, for statements of a transaction of our own."""

    @abc.abstractmethod
    def translated_for_user(self) -> AbstractContextManager[None]:
        """Turn errors of any driver into StoreUnavailable, for statements on a user's connection."""

    def prepare_to_borrow(self) -> None:  # noqa: B027
        """Read what is needed to check a user's connection, in a thread that may wait for it."""

    @abc.abstractmethod
    def _write_all(self, batch: list[Request]) -> None:
        """Run the requests in one transaction; called under the write lock."""

    @abc.abstractmethod
    def _disconnect(self) -> None:
        """Close the connections; called under both locks."""

    @abc.abstractmethod
    def _disown(self) -> None:
        """In a forked child: forget the parent's connections without telling the server."""

    def _commit(self, batch: list[Request]) -> None:
        try:
            with around_writes(), self._write_lock:
                self._write_all(batch)
        except Exception as error:
            if len(batch) > 1 and not getattr(error, "maybe_done", False):
                for request in batch:  # one of them failed, so run each by itself
                    self._commit([request])
                return
            for request in batch:
                request.error, request.done = error, True

    def disconnect(self) -> None:
        """Close both connections until they are needed again."""
        self._between_calls(self._disconnect_all)

    def close(self) -> None:
        """Close both connections for good."""
        self._between_calls(self._close)

    def _between_calls(self, act: Callable[[], None]) -> None:
        if threading.get_ident() in self._asking:
            self._later = act
        else:
            act()

    def _disconnect_all(self) -> None:
        with self._write_lock, self._read_lock:
            self._disconnect()

    def _close(self) -> None:
        self._disconnect_all()

    # -- forks and the end of the process ----------------------------------------------------------

    def close_if_free(self) -> None:
        """Close both connections unless another thread is using one of them."""
        with contextlib.ExitStack() as stack:
            for lock in (self._write_lock, self._read_lock):
                if not lock.acquire(blocking=False):
                    return
                stack.callback(lock.release)
            self._disconnect()

    def before_fork(self) -> None:
        """Wait until no thread uses a connection, and block threads until the fork is over."""
        self._write_lock.acquire()
        self._read_lock.acquire()

    def after_fork(self) -> None:
        """In the parent: let threads use the connections again."""
        self._read_lock.release()
        self._write_lock.release()

    def after_fork_in_child(self) -> None:
        """In the child: start without connections. The parent serves the requests of other threads."""
        self._disown()
        self._reset()


def mark_done(batch: list[Request]) -> None:
    """Mark the requests as committed."""
    for request in batch:
        request.done = True


_all: weakref.WeakSet[Connections] = weakref.WeakSet()
_forking: list[Connections] = []


def _before_fork() -> None:
    for connections in list(_all):
        connections.before_fork()
        _forking.append(connections)


def _after_fork(in_child: bool) -> None:
    while _forking:
        connections = _forking.pop()
        if in_child:
            connections.after_fork_in_child()
        else:
            connections.after_fork()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)


@atexit.register
def close_free() -> None:
    """Close the connections of a process that ends without closing its queues."""
    for connections in list(_all):
        connections.close_if_free()

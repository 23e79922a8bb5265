"""What the engines that are servers have in common: lost connections, and transactions that are retried.

A lost connection is opened again when it is next needed. If the answer to a write was lost, the error says that it may
have been stored (``StoreUnavailable.maybe_done``).
"""

from __future__ import annotations

import abc
import contextlib
import enum
import itertools
import select
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .._formats.url import Target
from .._system.backoff import doubling, jittered
from ..errors import StoreUnavailable
from .borrowed import ForeignError
from .connections import NOTHING, Conflict, Connections, Row, Transaction, Values, mark_done
from .counting import counted
from .group_commit import Request

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds after which a statement is abandoned, and a silent server is presumed dead."""
_TRIES = 20
_PAUSE = 0.01, 0.5


class ErrorKind(enum.Enum):
    """What an error of a driver means for the caller."""

    RETRY = "a deadlock or similar: rolled back, can be run again"
    CONFLICT = "refused by a unique index"
    LOST = "the connection is lost, and the answer with it"
    RECONNECT = "refused by a server that takes no writes now: connect again"
    FATAL = "refused by the server"


class Link(Transaction):
    """One connection to a server. Its methods raise the driver's errors. Each statement commits by itself."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start a transaction in which each statement sees what was committed before it."""

    @abc.abstractmethod
    def start_reading(self) -> None:
        """Start a transaction that sees one snapshot."""

    @abc.abstractmethod
    def commit(self) -> None:
        """Commit the transaction."""

    @abc.abstractmethod
    def roll_back(self) -> None:
        """Roll the transaction back, if there is one."""

    @abc.abstractmethod
    def has_hung_up(self) -> bool:
        """Return whether the server has closed the idle connection; sends nothing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abc.abstractmethod
    def disown(self) -> None:
        """In a forked child: forget the parent's connection without telling the server."""


class ServerConnections(Connections):
    """The connections of one process to one server: one that writes and one that reads."""

    def __init__(self, target: Target, driver_error: type[Exception] | tuple[type[Exception], ...]) -> None:
        self._target = target
        self._driver_error = driver_error
        self._writer: Link | None = None
        self._reader: Link | None = None
        self._identity: list[Row] = []
        super().__init__()

    @abc.abstractmethod
    def _connect(self, *, reads: bool) -> Link:
        """Open a connection. Raises the driver's errors, and ConfigurationError for an unsuitable server."""

    @abc.abstractmethod
    def _trouble(self, error: Exception) -> ErrorKind:
        """Return what an error of the driver means."""

    @abc.abstractmethod
    def is_forbidden(self, error: BaseException | None) -> bool:
        """Return whether an error of the driver means that this account lacks a right."""

    def explain(self, error: Exception) -> str:
        """Return an error of the driver in one line."""
        return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__

    # -- writing -----------------------------------------------------------------------------------

    def _write_all(self, batch: list[Request]) -> None:
        deadline = time.monotonic() + TIMEOUT
        for tries in itertools.count(1):
            link = self._writer = self._live(self._writer, reads=False)
            committing = alone = len(batch) == 1 and batch[0].alone
            try:
                if not alone:
                    link.start()
                for request in batch:
                    request.result = request.work(link)
                committing = True
                if not alone:
                    link.commit()
                mark_done(batch)
                return
            except self._driver_error as error:
                again = self._may_try_again(link, error, committing)
                if not again or tries == _TRIES or time.monotonic() > deadline:
                    raise self._unavailable(error) from error
            except BaseException:
                self._interrupted(batch if committing else [])
                raise
            _back_off(tries)

    def _may_try_again(self, link: Link, error: Exception, committing: bool) -> bool:
        """Clean up after an error; return whether the transaction may be run again, or raise the caller's error."""
        trouble = self._trouble(error)
        if trouble in (ErrorKind.LOST, ErrorKind.RECONNECT):
            self._hang_up_writer()
            raise self._unavailable(error, maybe_done=committing and trouble is ErrorKind.LOST) from error
        try:
            link.roll_back()
        except self._driver_error:
            self._hang_up_writer()
        if trouble is ErrorKind.CONFLICT:
            raise Conflict(self.explain(error)) from error
        return trouble is ErrorKind.RETRY

    def _interrupted(self, batch: list[Request]) -> None:
        """Give up a commit that was interrupted: it may have been stored, or not."""
        self._hang_up_writer()
        for request in batch:
            request.error = StoreUnavailable(f"{self._target.text}: interrupted at its commit", maybe_done=True)
            request.done = True

    # -- reading -----------------------------------------------------------------------------------

    def read(self, work: Callable[[Any], T]) -> T:
        """See the base class."""

        def run(link: Link) -> T:
            link.start_reading()
            try:
                result = work(link)
            except self._driver_error:
                with contextlib.suppress(Exception):
                    link.roll_back()
                raise
            link.roll_back()  # not after an interrupt: its connection is closed, since an answer may still arrive
            return result

        return self.ask(run)

    def query(self, name: str, values: Values = NOTHING) -> list[Row]:
        """See the base class."""
        return self.ask(lambda link: link.rows(name, values))

    def ask(self, act: Callable[[Any], T]) -> T:
        """Run ``act`` on the reading connection, a second time if the connection was lost."""
        return self.converse(self._ask, counted(act))

    def _ask(self, act: Callable[[Any], T]) -> T:
        with self._read_lock:
            for tries in itertools.count(1):
                link = self._reader = self._live(self._reader, reads=True)
                try:
                    return act(link)
                except self._driver_error as error:
                    trouble = self._trouble(error)
                    if trouble is not ErrorKind.RETRY:
                        self._hang_up_reader()
                    if trouble not in (ErrorKind.RETRY, ErrorKind.LOST) or tries == 2:
                        raise self._unavailable(error) from error
                except BaseException:
                    self._hang_up_reader()
                    raise
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def own_transaction(self) -> Iterator[Link]:
        """See the base class."""
        link = self._live(None, reads=False)
        try:
            with self.translated():
                link.start()
            yield link
            try:
                link.commit()
            except self._driver_error as error:
                raise self._unavailable(error, maybe_done=self._trouble(error) is ErrorKind.LOST) from error
        finally:
            _close(link)  # this rolls back what is not committed

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """See the base class."""
        try:
            yield
        except self._driver_error as error:
            raise self._unavailable(error) from error

    @contextlib.contextmanager
    def translated_for_user(self) -> Iterator[None]:
        """See the base class."""
        with self.translated():
            try:
                yield
            except ForeignError as error:
                raise self._unavailable(error) from error.original

    def prepare_to_borrow(self) -> None:
        """See the base class."""
        if not self._identity:
            self._identity = self.query("identity")

    def is_identity(self, identity: list[Row]) -> bool:
        """Return whether this is the identity of this database, which the process reads once.

        It reads it again before it says no: the tables may have been made anew.
        """
        if identity and identity != self._identity:
            self._identity = self.query("identity")
        return bool(identity) and identity == self._identity

    # -- connections -------------------------------------------------------------------------------

    def _live(self, link: Link | None, *, reads: bool) -> Link:
        """Return the connection, or a new one if the server has closed it meanwhile."""
        if link is not None and not link.has_hung_up():
            return link
        _close(link)
        try:
            return self._connect(reads=reads)
        except self._driver_error as error:
            raise self._unavailable(error) from error

    def _hang_up_writer(self) -> None:
        _close(self._writer)
        self._writer = None

    def _hang_up_reader(self) -> None:
        _close(self._reader)
        self._reader = None

    def _disconnect(self) -> None:
        self._hang_up_writer()
        self._hang_up_reader()

    def _disown(self) -> None:
        for link in (self._writer, self._reader):
            if link is not None:
                link.disown()
        self._writer = self._reader = None

    def _unavailable(self, error: Exception, *, maybe_done: bool = False) -> StoreUnavailable:
        return StoreUnavailable(f"{self._target.text}: {self.explain(error)}", maybe_done=maybe_done)


def is_readable(fd: int) -> bool:
    """Return whether data can be read: on an idle connection, a notification or its end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _close(link: Link | None) -> None:
    if link is not None:
        with contextlib.suppress(Exception):  # it may be broken in any way
            link.close()


def _back_off(tries: int) -> None:
    time.sleep(jittered(doubling(tries, *_PAUSE), least=0.2))  # far apart: it may be a deadlock

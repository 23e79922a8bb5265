"""What the engines that are servers have in common: connections that break, and transactions that are tried again.

A lost connection is opened again when it is next needed. Whether a write whose answer was lost has been
done is not guessed: the error says that it may have been (``StoreUnavailable.maybe_done``).
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
from .connections import NOTHING, Conflict, Connections, Row, Transaction, Values, mark_done
from .group_commit import Request

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds after which a statement is given up, and a silent server taken for gone."""
_TRIES = 20
_PAUSE = 0.01, 0.5


class ErrorKind(enum.Enum):
    """What an error of a driver means for who waits for the answer."""

    RETRY = "a deadlock or the like: rolled back, run it again"
    CONFLICT = "a unique index refused it"
    LOST = "the connection is gone, and with it the answer"
    RECONNECT = "refused, for this server does not take writes now: connect anew"
    FATAL = "the server said no"


class Link(Transaction):
    """One connection to a server; its methods raise the driver's errors. Each statement commits by itself."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start a transaction in which each statement sees what is committed by then."""

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
        """Whether the server has closed the connection while nobody used it; asks nobody."""

    @abc.abstractmethod
    def close(self) -> None:
        """Say goodbye."""

    @abc.abstractmethod
    def disown(self) -> None:
        """In a forked child: let go of the parent's connection without a word."""


class ServerConnections(Connections):
    """The connections of one process to one server: one that writes and one that reads."""

    def __init__(self, target: Target, driver_error: type[Exception] | tuple[type[Exception], ...]) -> None:
        self._target = target
        self._driver_error = driver_error
        self._writer: Link | None = None
        self._reader: Link | None = None
        super().__init__()

    @abc.abstractmethod
    def _connect(self, *, reads: bool) -> Link:
        """A new connection. Raises the driver's errors, and ConfigurationError for a server that cannot serve."""

    @abc.abstractmethod
    def _trouble(self, error: Exception) -> ErrorKind:
        """What an error of the driver means."""

    @abc.abstractmethod
    def is_forbidden(self, error: BaseException | None) -> bool:
        """Whether an error of the driver means that this account lacks a right."""

    def explain(self, error: Exception) -> str:
        """An error of the driver in one line."""
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
            _pause(tries)

    def _may_try_again(self, link: Link, error: Exception, committing: bool) -> bool:
        """Tidy up after an error; whether the transaction may be run again. Raises what else is to be said."""
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
        """Nobody can tell what the server made of a commit that was interrupted here."""
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
            link.roll_back()  # not after an interrupt: its connection is closed, for an answer may be on its way
            return result

        return self.ask(run)

    def query(self, name: str, values: Values = NOTHING) -> list[Row]:
        """See the base class."""
        return self.ask(lambda link: link.rows(name, values))

    def ask(self, act: Callable[[Any], T]) -> T:
        """Run ``act`` on the connection that reads; once more if the connection was lost, so it must bear that."""
        return self.converse(lambda: self._ask(act))

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
            _close(link)  # what is not committed is rolled back by that

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """See the base class."""
        try:
            yield
        except self._driver_error as error:
            raise self._unavailable(error) from error

    # -- connections -------------------------------------------------------------------------------

    def _live(self, link: Link | None, *, reads: bool) -> Link:
        """The connection, or another one if the server has closed it meanwhile: nothing was asked of it yet."""
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
    """Whether something waits to be read: on a connection that nobody uses, news or its end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _close(link: Link | None) -> None:
    if link is not None:
        with contextlib.suppress(Exception):  # it may be broken in any way
            link.close()


def _pause(tries: int) -> None:
    time.sleep(jittered(doubling(tries, *_PAUSE), least=0.2))  # far apart: it may be a deadlock

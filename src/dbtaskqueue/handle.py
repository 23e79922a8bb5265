"""The database that a ``TaskQueue`` and its lanes share. It is opened once, at the latest by its first use.

A handle also has what else the lanes share: the task functions, the extensions, the coders, and this program's worker
row.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from ._executors.lookup import Functions
from ._formats.url import DEFAULT_URL, mask, same_database
from ._store import open_store
from ._store.contract import Store
from ._system import clock
from ._worker.held import FetchMembership
from .checks import is_served
from .coding import Coder, check_coders
from .errors import StoreUnavailable, TaskQueueError
from .events import AttemptLost, Events
from .extension import Extension, for_all_queues, notify_ended, overriding
from .functions import Registry
from .schedules import Declaration, is_redeclared, log_changes, settle
from .task import EndedTask, Task

_POLL = 0.01
"""Seconds between two checks whether workers have stopped."""


class Handle:
    """One database, perhaps not open yet.

    ``url`` None: ``$DBTASKQUEUE_URL`` at the moment when it is opened, or else the default. ``lease`` in seconds.
    ``create``: create a missing schema.
    """

    def __init__(
        self,
        url: str | None,
        *,
        lease: float,
        create: bool,
        extensions: Iterable[Extension],
        coders: Iterable[Coder] = (),
    ) -> None:
        self.lease = lease
        self.coders = check_coders(coders)
        self.functions: Functions = Registry()
        self.events = Events()
        self.declarations: dict[tuple[str, str], Declaration] = {}
        """The schedules that ``periodic`` has declared, by queue and name."""
        self.extensions: list[Extension] = []
        for extension in (*for_all_queues, *extensions):
            self.use(extension)
        self.is_closed = False
        self._visit = object()
        self.on_enqueued: Callable[[list[Task]], object] | None = None
        """Called with the tasks of each ``enqueue`` after they are stored; not with those of a user's transaction."""
        self._url = url
        self._create = create
        self._queues: Mapping[str, str] = {}
        self._stops: list[Callable[[], object]] = []
        self._store: Store | None = None
        self._membership: FetchMembership | None = None
        self._renew_lock()
        _handles.add(self)

    def elsewhere(
        self,
        url: str,
        *,
        lease: float,
        extensions: Iterable[Extension],
        queues: Mapping[str, str],
    ) -> Handle:
        """Return a handle of another database, which is not open yet.

        It shares the functions, the coders, the listeners and the declared schedules. ``extensions``: all that it has.
        ``queues``: the queues of these schedules there, by their names here, if they differ.
        """
        other = Handle(url, lease=lease, create=self._create, extensions=(), coders=self.coders)
        other.extensions = [*extensions]
        other.functions, other.events, other.declarations = self.functions, self.events, self.declarations
        other._queues = queues
        return other

    def _renew_lock(self) -> None:
        self._opening = threading.RLock()  # reentrant, since a signal handler may interrupt it

    @property
    def url(self) -> str:
        """The database's URL; before it is open, the URL that would be used now."""
        return self._url if self._url is not None else os.environ.get("DBTASKQUEUE_URL") or DEFAULT_URL

    @property
    def is_open(self) -> bool:
        """Whether the database has been opened."""
        return self._store is not None

    @property
    def store(self) -> Store:
        """The database. The first use opens it, which may raise what ``open`` raises."""
        if self._store is None:
            self.open()
        assert self._store is not None
        return self._store

    @property
    def membership(self) -> FetchMembership:
        """The worker row of a plain ``fetch()`` user, and its claims. The first use opens the database."""
        if self._membership is None:
            with self._opening:
                if self._membership is None:
                    events = Events(self.events)
                    events.listen(AttemptLost, partial(notify_lost, self.extensions, self.store))
                    membership = FetchMembership(self.store, self.lease, events)
                    membership.on_left = self._close_if_unused
                    self._membership = membership
        return self._membership

    def use(self, extension: Extension) -> None:
        """Add an extension. Raises TypeError if it is not an ``Extension``."""
        if not isinstance(extension, Extension):
            raise TypeError(f"an extension must be an Extension, not {type(extension).__name__}")
        self.extensions.append(extension)

    def declare(self, declaration: Declaration) -> None:
        """Record a schedule for the next worker to store.

        Raises ValueError if another schedule of its queue has the same name.
        """
        place = declaration.queue, declaration.name
        known = self.declarations.get(place)
        if known is not None and not is_redeclared(known, declaration):
            what = f"another schedule of queue {declaration.queue} is called {declaration.name!r}"
            raise ValueError(f"{what}; give one of them a name=")
        self.declarations[place] = declaration

    def store_declarations(self, queues: Iterable[str] | None = None) -> list[str]:
        """Store the declared schedules of these queues or patterns, or all of them; return their names."""
        served = None if queues is None else list(queues)
        declared = [
            each._replace(queue=self._queues.get(each.queue, each.queue)) for each in self.declarations.values()
        ]
        wanted = [each for each in declared if served is None or is_served(each.queue, served)]
        if wanted:
            records = [each.record(self.store.max_payload) for each in wanted]
            log_changes(records, self.store.declare(records, clock.now(), settle))
        return [each.name for each in wanted]

    def open(self, url: str | None = None) -> None:
        """Open the database unless it is open.

        Raises ConfigurationError, SchemaError, StoreUnavailable, and TaskQueueError if it is closed, or already open
        with another URL.
        """
        with self._opening:
            self.require_open()
            if self._store is not None:
                if url is not None and not same_database(url, self.url):
                    raise TaskQueueError(f"this TaskQueue is already open, with another database: {mask(self.url)}")
                return
            chosen = self.url if url is None else url
            store = open_store(chosen)
            try:
                store.prepare(create=self._create)
            except BaseException:
                store.close()
                raise
            if self._store is not None:  # a signal's handler has used it meanwhile
                store.close()
                self.open(url)
                return
            self._url, self._store = chosen, store
            if self.is_closed:  # in another thread meanwhile, which may have found nothing to close
                store.close()
                self.require_open()

    @contextlib.contextmanager
    def redirected(self, url: str) -> Iterator[None]:
        """Use another database during the block, created if it is missing; then close it and use the former again.

        At the end, workers that run on it are stopped, and calls of ``fetch`` that wait return. Raises TaskQueueError
        while a worker runs at the start.
        """
        if self._stops:
            raise TaskQueueError("a worker runs on this TaskQueue: stop it before you use another database")
        before = self._url, self._create, self._store, self._membership, self.is_closed
        self._url, self._create, self._store, self._membership, self.is_closed = url, True, None, None, False
        self._visit = object()
        try:
            yield
        finally:
            self.close()
            while self._stops:  # it closes the database when it has stopped
                time.sleep(_POLL)
            self._visit = object()
            self._url, self._create, self._store, self._membership, self.is_closed = before

    def closing(self) -> Callable[[], bool]:
        """Return a function that returns whether the database is closed that is used now.

        It then stays closed for the caller, also after ``redirected``: what consumes the tasks of a test must not
        continue with those of the former database.
        """
        visit = self._visit
        return lambda: self.is_closed or self._visit is not visit

    def store_history(self) -> None:
        """Store what a ``fetch()`` user of this handle has counted, so that its own history is up to date.

        If the database is unavailable or read-only, that is done later.
        """
        if self._membership is not None:
            with contextlib.suppress(StoreUnavailable):
                self._membership.history()

    def require_open(self) -> None:
        """Raise TaskQueueError if it is closed."""
        if self.is_closed:
            raise TaskQueueError("this TaskQueue is closed")

    def close(self) -> None:
        """Stop the workers that run on it, release reserved tasks, and close the database once nothing uses it."""
        if self.is_closed:
            return
        self.is_closed = True
        for stop in tuple(self._stops):
            stop()
        if self._store is None:
            return
        self._store.wakeups.ring()
        if self._membership is not None:
            self._membership.leave()
        self._close_if_unused()

    def disconnect(self) -> None:
        """Release reserved tasks and close the connections. The next use opens others."""
        if self.is_closed or self._store is None:
            return
        if self._membership is not None:
            self._membership.leave()
        self._store.wakeups.close()
        self._store.disconnect()

    @contextlib.contextmanager
    def serving(self, stop: Callable[[], object]) -> Iterator[None]:
        """Let ``close`` call ``stop`` during the block, and keep the database open until its end.

        Raises TaskQueueError if it is closed.
        """
        self._stops.append(stop)
        try:
            self.require_open()  # from here on, close() calls this stop
            yield
        finally:
            self._stops.remove(stop)
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        is_member = self._membership is not None and self._membership.id is not None
        if self.is_closed and self._store is not None and not self._stops and not is_member:
            self._store.close()


def notify_lost(extensions: Sequence[Extension], store: Store, fact: AttemptLost) -> None:
    """Call every extension's ``ended`` for an attempt whose worker was lost."""
    if listening := overriding(extensions, "ended"):
        notify_ended(listening, EndedTask(store, fact.record, None), "lost", None)


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle._renew_lock()  # a thread that was opening the database exists only in the parent


os.register_at_fork(after_in_child=_after_fork_in_child)

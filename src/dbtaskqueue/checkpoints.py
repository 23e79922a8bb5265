"""What a running task itself stores: its checkpoint, its steps, and a transaction that ends it.

If the database is unavailable, the task waits: one that has run for hours must not fail because a server restarts. It
does not wait if its claim was lost, if its cancellation was requested, or if its worker drains.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from . import outcomes
from ._store import close_free, open_store, surround_writes
from ._store.contract import End, ParentState, Store, TaskRecord, Verdict
from ._system import clock
from ._system.backoff import doubling, jittered
from .errors import LeaseLost, StoreUnavailable, TaskNotFound
from .states import TaskState

T = TypeVar("T")

CHECKPOINT = "checkpoint"
STEP = "step:"
_RETRY_PAUSE = 0.05, 2.0
"""Seconds between tries while the database is unavailable: the first time, and at most."""


class Checkpoints(Protocol):
    """Where a running task stores its checkpoint and its steps, as JSON texts."""

    has_ended: bool
    """Whether a transaction has ended the task."""
    used_at: float
    """When it last read or stored something, in monotonic time; 0.0 for never."""

    def saved(self) -> dict[str, str]:
        """Return what this and earlier attempts have stored, by name."""

    def save(self, name: str, value: str) -> None:
        """Store a value durably. Raises LeaseLost if the claim was lost."""

    def transaction(self, result: str | None) -> contextlib.AbstractContextManager[Any]:
        """Return a block with a DB-API connection, whose commit also ends the task with this result."""

    def parents(self) -> list[ParentState]:
        """Return the task's parents, in their order."""

    def result_of(self, parent: int) -> str | None:
        """Return the result of a parent as JSON, or None if it has none. Raises TaskNotFound if it was pruned."""


class StoredCheckpoints:
    """Checkpoints in the database, fenced by one claim.

    ``started_at`` returns when the attempt started while the database does not know it yet, else None. ``is_over``
    returns whether waiting for an unavailable database has become pointless.
    """

    def __init__(
        self, store: Store, record: TaskRecord, started_at: Callable[[], int | None], is_over: Callable[[], bool]
    ) -> None:
        self._store = store
        self._record = record
        self._started_at = started_at
        self._is_over = is_over
        self.has_ended = False
        self.used_at = 0.0

    def saved(self) -> dict[str, str]:
        """See Checkpoints."""
        return self._patiently(lambda: self._store.saved(self._record.id))

    def parents(self) -> list[ParentState]:
        """See Checkpoints."""
        return self._patiently(lambda: self._store.parent_states(self._record.id))

    def result_of(self, parent: int) -> str | None:
        """See Checkpoints."""
        record = self._patiently(lambda: self._store.get(parent))
        if record is None:
            raise TaskNotFound(f"task {parent}, whose result this task needs, was pruned")
        return record.result

    def save(self, name: str, value: str) -> None:
        """See Checkpoints."""
        if not self._patiently(lambda: self._store.save(self._record.id, self._record.token, name, value)):
            raise LeaseLost(f"the claim on task {self._record.id} was lost; nothing was stored")

    @contextlib.contextmanager
    def transaction(self, result: str | None) -> Iterator[Any]:
        """See Checkpoints."""
        ends: list[End] = []  # the last one is what is stored

        def end() -> End:
            ends.append(outcomes.finish(self._record, result, clock.now(), self._started_at()))
            return ends[-1]

        try:
            with _Unawaited(self._store.transaction(self._record.worker or 0, end)) as connection:
                yield connection
        except StoreUnavailable as error:
            if not error.maybe_done or not self._patiently(lambda: self._is_stored(ends[-1])):
                raise
        self.has_ended = True

    def _is_stored(self, end: End) -> bool:
        """Return whether a commit was carried out although its answer was lost."""
        now = self._store.get(end.id)
        found = Verdict(False, None, None) if now is None else Verdict(False, TaskState(now.state), now.token)
        return outcomes.settled(self._store, end, found).stored

    def _patiently(self, ask: Callable[[], T]) -> T:
        for tries in itertools.count():
            try:
                answer = ask()
                self.used_at = time.monotonic()
                return answer
            except StoreUnavailable:
                if self._is_over():
                    raise
            time.sleep(jittered(doubling(tries, *_RETRY_PAUSE)))
        raise AssertionError("unreachable")


class ChildStore:
    """The database in a child process, which connects when its first task stores something.

    It is made in the fork server, so that an engine's driver is loaded there, once.
    """

    def __init__(self, url: str) -> None:
        self._store = open_store(url)

    def checkpoints(
        self, record: TaskRecord, started_at: Callable[[], int | None], is_over: Callable[[], bool]
    ) -> StoredCheckpoints:
        """Return where the task of this record stores its checkpoints. See StoredCheckpoints."""
        return StoredCheckpoints(self._store, record, started_at, is_over)

    def disconnect(self) -> None:
        """Close the connection until it is needed again."""
        self._store.disconnect()

    def surround_writes(self, around: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        """Enter a context manager that ``around`` makes around each writing transaction of this process."""
        surround_writes(around)

    def disconnect_if_free(self) -> None:
        """Close all connections of this process that no thread uses. May be called in any thread; does not wait."""
        close_free()


class _Unawaited:
    """A transaction in which a coroutine must not await.

    Other coroutines of its event loop would run meanwhile. On SQLite, the first of them that writes would wait for a
    lock that cannot be released while it waits. So the transaction is rolled back as soon as the event loop runs.
    """

    def __init__(self, block: contextlib.AbstractContextManager[Any]) -> None:
        self._block = block
        self._turn: Any = None
        self._broken: RuntimeError | None = None

    def __enter__(self) -> Any:
        connection = self._block.__enter__()
        if (asyncio := sys.modules.get("asyncio")) is not None:  # otherwise there is no loop
            with contextlib.suppress(RuntimeError):  # none runs in this thread
                self._turn = asyncio.get_running_loop().call_soon(self._roll_back)
        return connection

    def _roll_back(self) -> None:
        self._broken = RuntimeError(
            "something was awaited inside transaction(), so it was rolled back; await nothing in it,"
            " or run the whole block with asyncio.to_thread"
        )
        self._block.__exit__(RuntimeError, self._broken, None)

    def __exit__(self, *raised: Any) -> bool | None:
        if self._turn is not None:
            self._turn.cancel()
        if self._broken is not None:
            raise self._broken
        return self._block.__exit__(*raised)

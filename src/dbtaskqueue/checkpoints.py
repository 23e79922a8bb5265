"""What a running task keeps in the database: its checkpoint, its steps, and a transaction that is its end.

A database that is away is waited for: a task of hours must not fail because of a restart. Only a claim
that is gone, or a task that was asked to end, is told at once.
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
from ._store.contract import End, Store, TaskRecord, Verdict
from ._system import clock
from ._system.backoff import doubling, jittered
from .errors import LeaseLost, StoreUnavailable
from .states import TaskState

T = TypeVar("T")

CHECKPOINT = "checkpoint"
STEP = "step:"
_RETRY_PAUSE = 0.05, 2.0


class Checkpoints(Protocol):
    """Where a running task keeps things. Values are JSON texts."""

    has_ended: bool
    """Whether a transaction was the task's end."""
    used_at: float
    """When something was last kept or asked for, in monotonic time; 0.0 if that was never."""

    def kept(self) -> dict[str, str]:
        """What this and earlier attempts have kept, by name."""

    def keep(self, name: str, value: str) -> None:
        """Store it durably under its name; LeaseLost if the claim is gone."""

    def transaction(self, result: str | None) -> contextlib.AbstractContextManager[Any]:
        """A DB-API connection whose commit is also the end of the task."""


class StoredCheckpoints:
    """Keeps things in the store, under the fence of one claim.

    ``is_over`` tells whether it is no use to wait for the database any longer.
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

    def kept(self) -> dict[str, str]:
        """See Checkpoints."""
        return self._patiently(lambda: self._store.saved(self._record.id))

    def keep(self, name: str, value: str) -> None:
        """See Checkpoints."""
        if not self._patiently(lambda: self._store.save(self._record.id, self._record.token, name, value)):
            raise LeaseLost(f"the claim on task {self._record.id} is gone; nothing was kept")

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
        """Whether a commit whose answer was lost has been carried out."""
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
    """How a child process reaches the database: connected when its first task keeps something.

    Made in the process that the children are forked from, so that an engine's driver is loaded there, once.
    """

    def __init__(self, url: str) -> None:
        self._store = open_store(url)

    def checkpoints(
        self, record: TaskRecord, started_at: Callable[[], int | None], is_over: Callable[[], bool]
    ) -> StoredCheckpoints:
        """Where the task of this record keeps things."""
        return StoredCheckpoints(self._store, record, started_at, is_over)

    def disconnect(self) -> None:
        """Close the connection until it is needed again."""
        self._store.disconnect()

    def surround_writes(self, around: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        """Enter what this makes before each transaction of this process that writes, and leave it after it."""
        surround_writes(around)

    def disconnect_if_free(self) -> None:
        """The same for all connections of this process that no thread is at; in any thread, without waiting."""
        close_free()


class _Unawaited:
    """A transaction in which a coroutine must not await.

    Others of its event loop would go on, and on SQLite the first of them that writes would wait for a lock that
    nobody can give back while it waits. So the transaction is rolled back as soon as the loop has its turn.
    """

    def __init__(self, block: contextlib.AbstractContextManager[Any]) -> None:
        self._block = block
        self._turn: Any = None
        self._broken: RuntimeError | None = None

    def __enter__(self) -> Any:
        connection = self._block.__enter__()
        if (asyncio := sys.modules.get("asyncio")) is not None:  # else there is no loop
            with contextlib.suppress(RuntimeError):  # none runs in this thread
                self._turn = asyncio.get_running_loop().call_soon(self._roll_back)
        return connection

    def _roll_back(self) -> None:
        self._broken = RuntimeError(
            "something was awaited inside of transaction(), so it was rolled back; do in it what needs no await,"
            " or give the whole block to asyncio.to_thread"
        )
        self._block.__exit__(RuntimeError, self._broken, None)

    def __exit__(self, *raised: Any) -> bool | None:
        if self._turn is not None:
            self._turn.cancel()
        if self._broken is not None:
            raise self._broken
        return self._block.__exit__(*raised)

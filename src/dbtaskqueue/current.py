"""Inside a task: ``current_task()`` and what it gives."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, ParamSpec, overload

from ._formats import payload
from ._formats.payload import JSON, MAX_BYTES
from ._formats.progress import ProgressTracker
from ._store.contract import TaskRecord
from .checkpoints import CHECKPOINT, STEP, Checkpoints
from .checks import is_async
from .errors import TaskCancelled

P = ParamSpec("P")

_LONGEST_STEP = 200


class RunningTask:
    """The task that the calling code runs in, as of its start.

    ``token`` is the fencing number of the claim; it may guard writes elsewhere, too.

    A coroutine calls all this directly: ``saved``, ``checkpoint``, ``step`` and ``transaction`` keep its event loop
    for the moment that the database takes. Where that may be long (a large transaction, a database that is
    away, which is waited for), let a thread do it: ``await asyncio.to_thread(current_task().checkpoint, value)``.
    """

    __slots__ = (
        *("_draining", "_is_cancelled", "_keeper", "_kept", "_kept_lock", "_limit", "_record", "_steps", "_tracker"),
        "attempt",
    )

    def __init__(
        self,
        record: TaskRecord,
        attempt: int,
        draining: Callable[[], bool],
        keeper: Checkpoints,
        tracker: ProgressTracker,
        *,
        max_payload: int = MAX_BYTES,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._record = record
        self._draining = draining
        self._keeper = keeper
        self._limit = max_payload
        self._kept: dict[str, str] | None = None
        self._kept_lock = threading.Lock()  # what one thread keeps while another reads must not be forgotten
        self._steps: set[str] = set()
        self._tracker = tracker
        self.attempt = attempt
        """The number of this attempt, from 1."""
        self._is_cancelled = is_cancelled

    @property
    def id(self) -> int:
        """The task's id."""
        return self._record.id

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._record.queue

    @property
    def payload(self) -> JSON:
        """What it works on; a fresh copy at each call."""
        return payload.decode(self._record.payload)  # type: ignore[arg-type]

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final; None: never."""
        return self._record.max_attempts

    @property
    def meta(self) -> dict[str, JSON]:
        """The JSON object that ``enqueue(meta=…)`` stored beside the payload; empty if none was given."""
        text = self._record.meta
        found: dict[str, JSON] = {} if text is None else payload.decode(text, name="meta")
        return found

    @property
    def token(self) -> int:
        """The fencing number of the claim."""
        return self._record.token

    @property
    def function(self) -> str | None:
        """The name of its task function, None where a callback runs it."""
        return self._record.function

    @property
    def cancelled(self) -> bool:
        """Whether the task was asked to end, or its claim is gone. Return or raise soon."""
        return self._is_cancelled()

    @property
    def should_stop(self) -> bool:
        """Whether the worker is draining: finish soon, or raise ReleaseTask to go on elsewhere."""
        return self._draining()

    # -- how far it got ----------------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far this attempt has got; anyone reads it as ``task.progress``.

        Cheap enough for an inner loop: stored about once a second, the last one always. Raises
        TaskCancelled when the task was asked to end, and ValueError for what is no number.
        """
        if self._is_cancelled():
            raise self._cancelled_error()
        self._tracker.update(done, total, message)

    @property
    def saved(self) -> JSON:
        """The last checkpoint, of this attempt or an earlier one; None at first."""
        text = self._all_kept().get(CHECKPOINT)
        return None if text is None else payload.decode(text, name="checkpoint")

    def checkpoint(self, value: JSON) -> None:
        """Store a JSON value that the next attempt finds in ``saved``; it is durable when this returns.

        Raises TaskCancelled when the task was asked to end, LeaseLost when its claim is gone, PayloadError
        for what is not JSON or too large. A database that is away is waited for.
        """
        self._keep(CHECKPOINT, payload.encode(value, limit=self._limit, name="checkpoint"))

    @overload
    def step(
        self, name: str, function: Callable[P, Coroutine[Any, Any, JSON]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, JSON]: ...

    @overload
    def step(self, name: str, function: Callable[P, JSON], /, *args: P.args, **kwargs: P.kwargs) -> JSON: ...

    def step(self, name: str, function: Callable[P, JSON], /, *args: P.args, **kwargs: P.kwargs) -> JSON:
        """Run ``function`` and store its result; a later attempt gets the stored result instead.

        Of an ``async def`` it is to be awaited: ``await current_task().step("fetch", fetch, url)``.
        A crash between running and storing runs it again. A name may be used once in an attempt: ValueError.
        Raises otherwise what ``function`` and ``checkpoint`` raise.
        """
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_STEP or not name.isprintable():
            raise ValueError(f"a step's name is 1 to {_LONGEST_STEP} printable characters, not {name!r}")
        if name in self._steps:
            raise ValueError(f"the step {name!r} was taken already in this attempt; give each a name of its own")
        if self.cancelled:
            raise self._cancelled_error()
        self._steps.add(name)
        stored = self._all_kept().get(STEP + name)
        if is_async(function):
            return self._awaited_step(name, stored, functools.partial(function, *args, **kwargs))
        return self._step_result(name, self._kept_step(name, function(*args, **kwargs)) if stored is None else stored)

    async def _awaited_step(self, name: str, stored: str | None, call: Callable[[], JSON]) -> JSON:
        return self._step_result(name, self._kept_step(name, await call()) if stored is None else stored)

    def _kept_step(self, name: str, result: JSON) -> str:
        stored = payload.encode(result, limit=self._limit, name=f"step {name}")
        self._keep(STEP + name, stored)
        return stored

    def _step_result(self, name: str, stored: str) -> JSON:
        return payload.decode(stored, name=f"step {name}")

    def transaction(self, result: JSON = None) -> AbstractContextManager[Any]:
        """``with current_task().transaction() as connection:`` your writes and "done" commit together, or neither.

        A DB-API connection to the queue's database, in a transaction that is committed at the end of the
        block, unless an exception leaves it. The task is done then: what the function does or returns
        afterwards changes nothing. LeaseLost when the claim is gone: nothing is written. On SQLite it has the
        write lock: keep it short. A coroutine may await nothing in it: RuntimeError, and nothing is written.
        """
        if self.cancelled:
            raise self._cancelled_error()
        text = None if result is None else payload.encode(result, limit=self._limit, name="result")
        return self._keeper.transaction(text)

    def _keep(self, name: str, text: str) -> None:
        if self.cancelled:
            raise self._cancelled_error()
        self._keeper.keep(name, text)
        with self._kept_lock:
            if self._kept is not None:
                self._kept[name] = text

    def _all_kept(self) -> dict[str, str]:
        with self._kept_lock:
            if self._kept is None:
                self._kept = self._keeper.kept()
            return self._kept

    def _cancelled_error(self) -> TaskCancelled:
        return TaskCancelled(f"task {self.id} was asked to end, or its claim is gone")


_current: ContextVar[Callable[[], RunningTask]] = ContextVar("dbtaskqueue_current_task")
enter, leave = _current.set, _current.reset
"""For the session: say how to get the current task of this thread, and that it is over."""


def current_task() -> RunningTask:
    """The task that is running here. RuntimeError outside of one."""
    try:
        return _current.get()()
    except LookupError:
        raise RuntimeError("current_task() is for code that runs inside a task") from None

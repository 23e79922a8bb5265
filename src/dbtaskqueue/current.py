"""Inside a task: ``current_task()`` and the RunningTask that it returns."""

from __future__ import annotations

import functools
import json
import operator
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, overload

from ._formats import payload
from ._formats.payload import JSON, MAX_BYTES
from ._formats.progress import ProgressTracker
from ._store.contract import HAS_PARENTS, ParentState, TaskRecord
from ._system import clock
from .checkpoints import CHECKPOINT, STEP, Checkpoints
from .checks import escaped, is_async
from .errors import PayloadError, TaskCancelled
from .extension import Extension, around_step, notify_progressed, overriding
from .schedules import Tick, tick_of
from .states import TaskState

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_LONGEST_STEP = 200
_NOTHING = nullcontext()
MOST_RESULTS = 64 * 1024 * 1024
"""The most characters of JSON that all results of parents that are arguments of a call may have together."""


class Parent:
    """A parent of the running task: its ``id``, the name of its ``function``, its ``state`` and its ``result``.

    ``result`` is read on first access. It is None unless the parent is done. ``function`` is None for a task that a
    callback runs. ``state`` is None if the parent was pruned.
    """

    __slots__ = ("_checkpoints", "_result", "function", "id", "state")

    def __init__(self, parent: ParentState, checkpoints: Checkpoints) -> None:
        self.id = parent.id
        self.function = parent.function
        self.state = None if parent.state is None else TaskState(parent.state)
        self._checkpoints = checkpoints
        self._result: tuple[JSON, ...] = ()

    @property
    def result(self) -> JSON:
        """The result, as JSON values. Raises TaskNotFound if the parent was pruned."""
        if not self._result:
            text = self._checkpoints.result_of(self.id)
            self._result = (None if text is None else payload.decode(text, name="result"),)
        return self._result[0]

    def __repr__(self) -> str:
        function = "" if self.function is None else f" {escaped(self.function)}"
        return f"<Parent {self.id}{function} {self.state or 'pruned'}>"


class RunningTask:
    """The task that the calling code runs in. Its attributes are as of the start of the attempt.

    A coroutine may call everything directly. ``saved``, ``checkpoint``, ``step`` and ``transaction`` block its event
    loop until the database has answered. If that may take long (a large transaction, or a database that is unavailable,
    for which they wait), use a thread: ``await asyncio.to_thread(current_task().checkpoint, value)``.
    """

    __slots__ = (
        *("_checkpoints", "_draining", "_encode_result", "_is_cancelled", "_limit", "_listening", "_record"),
        *("_saved", "_saved_lock", "_started_at", "_steps", "_surrounding", "_tracker", "attempt"),
    )

    def __init__(
        self,
        record: TaskRecord,
        attempt: int,
        draining: Callable[[], bool],
        checkpoints: Checkpoints,
        tracker: ProgressTracker,
        *,
        started_at: int,
        max_payload: int = MAX_BYTES,
        is_cancelled: Callable[[], bool],
        encode_result: Callable[[Any], str] | None = None,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._record = record
        self._encode_result = encode_result or functools.partial(payload.encode, limit=max_payload, name="result")
        self._draining = draining
        self._checkpoints = checkpoints
        self._limit = max_payload
        self._started_at = started_at
        self._saved: dict[str, str] | None = None
        self._saved_lock = threading.Lock()  # a read in one thread must not overwrite what another stores meanwhile
        self._steps: set[str] = set()
        self._tracker = tracker
        self.attempt = attempt
        """The number of this attempt, from 1."""
        self._is_cancelled = is_cancelled
        self._listening = overriding(extensions, "progressed")
        self._surrounding = overriding(extensions, "step")

    def __repr__(self) -> str:
        function = "" if self.function is None else f" {escaped(self.function)}"
        return f"<RunningTask {self.id} {self.queue}{function} attempt={self.attempt}>"

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
        """The task's payload; a new copy at each call."""
        return payload.decode(self._record.payload)  # type: ignore[arg-type]

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final; None for no limit."""
        return self._record.max_attempts

    @property
    def meta(self) -> dict[str, JSON]:
        """The JSON object that ``enqueue(meta=…)`` stored beside the payload; empty if none was given."""
        text = self._record.meta
        found: dict[str, JSON] = {} if text is None else payload.decode(text, name="meta")
        return found

    @property
    def token(self) -> int:
        """The fencing token of the claim. Use it to fence writes to other systems, too."""
        return self._record.token

    @property
    def function(self) -> str | None:
        """The name of its task function, None if a callback runs it."""
        return self._record.function

    @property
    def worker(self) -> int | None:
        """The id of the worker that runs it."""
        return self._record.worker

    @property
    def priority(self) -> int:
        """Tasks with a higher priority come first."""
        return -self._record.rank

    @property
    def key(self) -> str | None:
        """The key for deduplication, or None."""
        return self._record.key

    @property
    def created_at(self) -> datetime:
        """When it was enqueued. Like all times here, an aware datetime in UTC."""
        return clock.to_datetime(self._record.created_at)  # type: ignore[return-value]

    @property
    def start_at(self) -> datetime:
        """When it was due."""
        return clock.to_datetime(self._record.due)  # type: ignore[return-value]

    @property
    def started_at(self) -> datetime:
        """When this attempt started."""
        return clock.to_datetime(self._started_at)  # type: ignore[return-value]

    @property
    def tick(self) -> Tick | None:
        """The tick of the schedule that made this task; None if no schedule made it."""
        return tick_of(self._record.options)

    @property
    def parents(self) -> list[Parent]:
        """The tasks that this one has waited for, in the order of ``after``. Their results are read on first access."""
        if not self._record.flow & HAS_PARENTS:
            return []
        return [Parent(parent, self._checkpoints) for parent in self._checkpoints.parents()]

    @property
    def cancelled(self) -> bool:
        """Whether cancellation was requested, or the claim was lost. Return or raise soon."""
        return self._is_cancelled()

    @property
    def should_stop(self) -> bool:
        """Whether the worker is draining. Finish soon, or raise ReleaseTask so that another worker continues."""
        return self._draining()

    # -- progress, checkpoints and steps -----------------------------------------------------------

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, in units of your own. Any program can read it as ``task.progress``.

        It is fast enough for an inner loop: progress is stored about once a second, and the last call always. Raises
        TaskCancelled if cancellation was requested, and ValueError for something that is not a number.
        """
        if self._is_cancelled():
            raise self._cancelled_error()
        self._tracker.update(done, total, message)
        if self._listening:
            notify_progressed(self._listening, self, done, total, message)

    @property
    def saved(self) -> JSON:
        """The last checkpoint, of this attempt or an earlier one; None if there is none."""
        text = self._all_saved().get(CHECKPOINT)
        return None if text is None else payload.decode(text, name="checkpoint")

    def checkpoint(self, value: JSON) -> None:
        """Store a JSON value, which the next attempt finds in ``saved``. It is durable when this returns.

        Waits while the database is unavailable. Raises TaskCancelled if cancellation was requested, LeaseLost if the
        claim was lost, and PayloadError for a value that is not JSON or is too large.
        """
        self._save(CHECKPOINT, payload.encode(value, limit=self._limit, name="checkpoint"))

    @overload
    def step(
        self, name: str, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...

    @overload
    def step(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def step(self, name: str, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run ``function`` and store its result. A later attempt gets the stored result instead.

        Await the call if the function is an ``async def``: ``await current_task().step("fetch", fetch, url)``. After a
        crash between running and storing, the function runs again. Raises ValueError if this attempt has used the name
        before, and what ``function`` and ``checkpoint`` raise.
        """
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_STEP or not name.isprintable():
            raise ValueError(f"a step's name must be 1 to {_LONGEST_STEP} printable characters, not {name!r}")
        if name in self._steps:
            raise ValueError(f"this attempt has used the step {name!r} already; give each step a name of its own")
        if self.cancelled:
            raise self._cancelled_error()
        self._steps.add(name)
        stored = self._all_saved().get(STEP + name)
        if is_async(function):
            return self._awaited_step(name, stored, functools.partial(function, *args, **kwargs))
        if stored is None:
            with self._around_step(name):
                result = function(*args, **kwargs)
            stored = self._saved_step(name, result)
        return self._step_result(name, stored)

    async def _awaited_step(self, name: str, stored: str | None, call: Callable[[], Any]) -> JSON:
        if stored is None:
            with self._around_step(name):
                result = await call()
            stored = self._saved_step(name, result)
        return self._step_result(name, stored)

    def _around_step(self, name: str) -> AbstractContextManager[object]:
        return around_step(self._surrounding, self, name) if self._surrounding else _NOTHING

    def _saved_step(self, name: str, result: JSON) -> str:
        stored = payload.encode(result, limit=self._limit, name=f"step {name}")
        self._save(STEP + name, stored)
        return stored

    def _step_result(self, name: str, stored: str) -> JSON:
        return payload.decode(stored, name=f"step {name}")

    def transaction(self, result: JSON = None) -> AbstractContextManager[Any]:
        """Commit your own writes together with "done": ``with current_task().transaction() as connection:``.

        The block gets a DB-API connection to the queue's database, in a transaction. It is committed at the end of the
        block, unless the block raises. The task is done then, with ``result``: what its function does or returns
        afterwards changes nothing. On SQLite the block holds the write lock, so keep it short.

        Raises LeaseLost if the claim was lost, and RuntimeError if a coroutine awaits something in the block. In both
        cases nothing is written.
        """
        if self.cancelled:
            raise self._cancelled_error()
        text = None if result is None else self._encode_result(result)
        return self._checkpoints.transaction(text)

    def _save(self, name: str, text: str) -> None:
        if self.cancelled:
            raise self._cancelled_error()
        self._checkpoints.save(name, text)
        with self._saved_lock:
            if self._saved is not None:
                self._saved[name] = text

    def _all_saved(self) -> dict[str, str]:
        with self._saved_lock:
            if self._saved is None:
                self._saved = self._checkpoints.saved()
            return self._saved

    def _cancelled_error(self) -> TaskCancelled:
        return TaskCancelled(f"task {self.id}: cancellation was requested, or its claim was lost")


def results_for_arguments(task: RunningTask) -> dict[str, JSON]:
    """Return the results of parents that are arguments of the task's call, by their places in the payload.

    Raises PayloadError if they are too large together, and TaskNotFound if one of these parents was pruned.
    """
    found: dict[str, JSON] = {}
    size = 0
    for parent in task._checkpoints.parents() if task.function is not None else ():
        if parent.arguments is not None:
            text = task._checkpoints.result_of(parent.id)
            places = json.loads(parent.arguments)
            size += len(text or "") * len(places)
            if size > MOST_RESULTS:
                raise PayloadError(
                    f"the results of parents that are arguments take more than {MOST_RESULTS >> 20} MiB together;"
                    " pass the tasks in after= instead, and read one result at a time from current_task().parents"
                )
            found |= {place: None if text is None else payload.decode(text, name="result") for place in places}
    return found


_current: ContextVar[Callable[[], RunningTask]] = ContextVar("dbtaskqueue_current_task")
enter, leave = _current.set, _current.reset
"""For the Runner: set and reset the function that ``current_task()`` calls in this context."""


def current_task() -> RunningTask:
    """Return the task that the calling code runs in. Raises RuntimeError outside of a task."""
    try:
        return _current.get()()
    except LookupError:
        raise RuntimeError("current_task() is for code that runs inside a task") from None


def track(iterable: Iterable[T], total: float | None = None, message: str | None = None) -> Iterator[T]:
    """Yield the elements of ``iterable``, and report how many are done as the progress of the running task.

    An element counts as done when the next one is requested. ``total``: how many there are, by default the length of
    ``iterable`` or its estimate, if it has one. ``message``: as in ``progress``. Outside of a task, it only yields.
    Raises TaskCancelled between two elements if cancellation was requested.
    """
    if total is None:
        total = operator.length_hint(iterable, -1)
    running = _current.get(None)
    if running is None:
        yield from iterable
        return
    report, total = running().progress, None if total < 0 else total
    report(0, total, message)
    for done, element in enumerate(iterable, 1):
        yield element
        report(done, total, message)

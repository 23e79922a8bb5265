"""``AsyncTask``, and the task functions and flows of an ``AsyncTaskQueue``: those of ``TaskQueue``, to be awaited."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, Unpack, overload

from .._formats.payload import JSON
from .._formats.progress import Progress
from .._store.borrowed import OnLoop
from .._store.contract import Link
from .._system import clock
from ..calls import TaskCall
from ..dependencies import Flow, FlowTask, Reference
from ..errors import TaskQueueError
from ..following import Following, Seen
from ..functions import TaskFunction
from ..options import Backoff, Options, UsingOptions
from ..states import FINAL, TaskState
from ..task import Attempt, Blocked, Task, result_of
from ..waiting import Waiting
from .threads import Threads

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # for type checkers; at run time, a default needs 3.13

    R = TypeVar("R", covariant=True, default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class _Same(Generic[T]):
    """An attribute that is the one of ``Task`` with the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = getattr(Task, name).__doc__

    @overload
    def __get__(self, task: None, owner: type) -> Self: ...

    @overload
    def __get__(self, task: AsyncTask[Any], owner: type) -> T: ...

    def __get__(self, task: AsyncTask[Any] | None, owner: type) -> Self | T:
        if task is None:
            return self
        value: T = getattr(task.sync, self._name)
        return value


class AsyncTask(Reference, Generic[R]):
    """A task of an ``AsyncTaskQueue``. Its attributes show what was last read, and its methods are awaited.

    They are those of ``Task``; only ``blocked`` is a method here, since it reads the database. ``sync`` is the
    ``Task``. A task that ``fetch`` returned is the holder: ``async with task:`` starts it, and stores its end.
    """

    id = _Same[int]()
    queue = _Same[str]()
    state = _Same[TaskState]()
    payload = _Same[JSON]()
    error = _Same["str | None"]()
    error_type = _Same["str | None"]()
    attempt = _Same[int]()
    max_attempts = _Same["int | None"]()
    priority = _Same[int]()
    key = _Same["str | None"]()
    deduplicated = _Same[bool]()
    meta = _Same[dict[str, JSON]]()
    created_at = _Same[datetime]()
    start_at = _Same[datetime]()
    started_at = _Same["datetime | None"]()
    finished_at = _Same["datetime | None"]()
    worker = _Same["int | None"]()
    function = _Same["str | None"]()
    token = _Same[int]()
    cancel_requested = _Same[bool]()
    suspended = _Same[bool]()
    is_command = _Same[bool]()
    time_limit = _Same["float | None"]()
    stall_limit = _Same["float | None"]()
    memory_limit = _Same["int | None"]()
    expires_at = _Same["datetime | None"]()
    progress = _Same["Progress | None"]()

    def __init__(self, sync: Task[R], threads: Threads) -> None:
        self.sync: Task[R] = sync
        self._threads = threads

    def __repr__(self) -> str:
        return f"<Async{repr(self.sync)[1:]}"

    def _repr_html_(self) -> str:
        """Show the task in a notebook, as a ``Task`` is shown."""
        return self.sync._repr_html_()

    def __eq__(self, other: object) -> bool:
        return self.sync == other.sync if isinstance(other, AsyncTask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.sync)

    def as_link(self, url: str) -> Link:
        """See Reference."""
        return self.sync.as_link(url)

    @property
    def result(self) -> R | None:
        """The result; None until the task is done. Set it in an ``async with`` block to store it."""
        return self.sync.result

    @result.setter
    def result(self, value: JSON) -> None:
        self.sync.result = value

    # -- for every program -------------------------------------------------------------------------

    async def refresh(self, *, connection: object = None) -> Self:
        """Read the task again and return it, as ``Task.refresh`` does."""
        if connection is None:
            await self._threads.call(self.sync.refresh)
        else:
            borrowed = Borrowed().connection(connection)
            await self._threads.settle(self.sync.refresh, connection=borrowed)
        return self

    async def blocked(self) -> Blocked | None:
        """Return what the task waits for besides its due time; None unless it is blocked."""
        return await self._threads.call(lambda: self.sync.blocked)

    async def parents(self) -> list[int]:
        """Return the ids of its parents, as ``Task.parents`` does."""
        return await self._threads.call(self.sync.parents)

    async def children(self) -> list[int]:
        """Return the ids of its children, as ``Task.children`` does."""
        return await self._threads.call(self.sync.children)

    async def attempts(
        self, *, limit: int | None = None, before: int | None = None, output: bool = False
    ) -> list[Attempt]:
        """Return every start of the task and how it ended, as ``Task.attempts`` does."""
        return await self._threads.call(self.sync.attempts, limit=limit, before=before, output=output)

    async def cancel(self, *, running: bool = True) -> bool:
        """Cancel the task, as ``Task.cancel`` does. Cancelling an ``await`` of the task does not cancel the task."""
        return await self._threads.call(self.sync.cancel, running=running)

    async def wait(self, timeout: float | timedelta | None = None) -> Self:
        """Wait until the task is done, abandoned or cancelled, and return it. This takes no additional thread.

        Raises TimeoutError after ``timeout`` (seconds or a timedelta), and TaskNotFound if the task is pruned.
        """
        deadline = clock.deadline_of(timeout)
        has_read = self.state in FINAL  # it may have been retried; otherwise it is read together with the others
        if has_read:
            await self.refresh()
        while not has_read or self.state not in FINAL:
            has_ended = await self._end(deadline)
            await self.refresh()
            has_read = True
            if not has_ended and self.state not in FINAL:
                seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
                raise TimeoutError(f"task {self.id} is still {self.state} after {seconds} s")
        return self

    async def get_result(self, timeout: float | timedelta | None = None) -> R:
        """Wait for the task as ``wait`` does, and return its result.

        Raises TaskFailed if the task was abandoned, and TaskCancelled if it was cancelled.
        """
        await self.wait(timeout)
        return result_of(self.sync)

    async def follow(self) -> AsyncGenerator[Progress | TaskState, None]:
        """Yield the state of the task, then each new state and each new progress. The final state is the last.

        Changes are noticed within half a second. However many tasks a program follows, they are read in one query.
        The attributes of the task are as up to date as what was yielded. Raises TaskNotFound if the task is pruned.
        """
        state: TaskState | None = None
        progress: Progress | None = None
        await self.refresh()
        while state not in FINAL:
            now = Seen(self.state, self.attempt, self.progress)
            is_final = self.state in FINAL
            if self.state != state and not is_final:
                yield self.state
            if now.progress is not None and now.progress != progress:
                yield now.progress
            if is_final:
                yield self.state
            state, progress = self.state, now.progress
            if not is_final:
                await self._change(now)
                await self.refresh()

    async def _end(self, deadline: float | None) -> bool:
        """Wait until the task may have ended. Return False if the deadline has passed before."""
        if clock.has_passed(deadline):
            return False
        waiting, future = Waiting.on(self.sync._store), asyncio.get_running_loop().create_future()
        notify = _notifying(future)
        waiting.add(self.id, notify)
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait([future], timeout=left)
            return bool(done)
        finally:
            waiting.discard(self.id, notify)

    async def _change(self, seen: Seen) -> None:
        """Wait until the task is no longer as it was seen."""
        following, future = Following.on(self.sync._store), asyncio.get_running_loop().create_future()
        notify = _notifying(future)
        following.add(self.id, seen, notify)
        try:
            await future
        finally:
            following.discard(self.id, notify)

    # -- for the holder ----------------------------------------------------------------------------

    async def start(self) -> bool:
        """Start an attempt, as ``Task.start`` does."""
        return await self._threads.settle(self.sync.start)

    async def finish(self, result: JSON = None) -> None:
        """End the task as done and store its result, as ``Task.finish`` does."""
        await self._threads.settle(self.sync.finish, result)

    async def fail(self, error: BaseException | str, *, retry: bool = True) -> None:
        """End the attempt as failed, as ``Task.fail`` does."""
        await self._threads.settle(self.sync.fail, error, retry=retry)

    async def release(self, delay: float | timedelta = 0) -> None:
        """Return the task to the queue without spending an attempt, as ``Task.release`` does."""
        await self._threads.settle(self.sync.release, delay)

    async def __aenter__(self) -> Self:
        try:
            await self._threads.settle(self.sync.__enter__)
        except asyncio.CancelledError:
            await self._return()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Store the end of the task. A block that is cancelled returns the task to the queue, as a signal does.

        If this itself is cancelled, the end is stored anyway: the work is done.
        """
        if isinstance(error, asyncio.CancelledError):
            await self._return()
            return False
        return await self._threads.complete(self.sync.__exit__, kind, error, traceback)

    async def _return(self) -> None:
        with contextlib.suppress(TaskQueueError):
            await self._threads.complete(self.sync.release)


def _notifying(future: asyncio.Future[None]) -> Callable[..., None]:
    """Return a function that resolves a future of this loop, and may be called in any thread."""
    loop = future.get_loop()

    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    def notify(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: no one waits
            loop.call_soon_threadsafe(resolve)

    return notify


# -- connections of users --------------------------------------------------------------------------


class Borrowed:
    """The connections of users in one call. Each may be used only by the loop that runs now."""

    def __init__(self) -> None:
        self._has_any = False

    def __bool__(self) -> bool:
        """Return whether there is any. If so, the caller must not continue before the call has ended."""
        return self._has_any

    def connection(self, connection: object) -> object:
        """Return a connection with its loop."""
        if connection is None or isinstance(connection, OnLoop):
            return connection
        self._has_any = True
        return OnLoop(connection, asyncio.get_running_loop())

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return options with the loop of their connection."""
        found = options.get("connection")
        return options if found is None else {**options, "connection": self.connection(found)}

    def target(self, target: Any) -> Any:
        """Return what ``enqueue`` takes, with the loop of the connection that a call has from ``using``."""
        if not isinstance(target, TaskCall) or target.using.get("connection") is None:
            return target
        using = {**target.using, "connection": self.connection(target.using["connection"])}
        return TaskCall[Any](target.function, target.args, target.kwargs, target.options, using)


# -- task functions --------------------------------------------------------------------------------


class AsyncTaskFunction(Generic[P, R_co]):
    """A task function of an ``AsyncTaskQueue``: call it as before, or ``await`` its ``enqueue``.

    ``sync`` is the same task function of the ``TaskQueue``.
    """

    _payload_hint = TaskFunction._payload_hint
    _inner = "sync"

    def __init__(self, threads: Threads, sync: TaskFunction[P, R_co], connection: object = None) -> None:
        self.sync = sync
        self._threads = threads
        self._connection = connection
        function: Any = sync.__wrapped__  # type: ignore[attr-defined]
        functools.update_wrapper(self, function, updated=())
        for attribute, value in getattr(function, "__dict__", {}).items():
            if not hasattr(self, attribute):
                setattr(self, attribute, value)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.sync(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<AsyncTaskFunction {self.name}>"

    @property
    def name(self) -> str:
        """The name that its tasks have."""
        return self.sync.name

    @property
    def backoff(self) -> Backoff | None:
        """That of ``@queue.task``."""
        return self.sync.backoff

    @overload  # for an async def, R is what it returns when awaited
    async def enqueue(
        self: AsyncTaskFunction[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncTask[T]: ...

    @overload
    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncTask[R_co]: ...

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncTask[Any]:
        """Store a call of the function as a task, as ``TaskFunction.enqueue`` does."""
        threads = self._threads
        if self._connection is None:
            return AsyncTask(await threads.call(self.sync.enqueue, *args, **kwargs), threads)
        function = self.sync.using(connection=Borrowed().connection(self._connection))
        return AsyncTask(await threads.settle(function.enqueue, *args, **kwargs), threads)

    @overload
    def bind(
        self: AsyncTaskFunction[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskCall[T]: ...

    @overload
    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R_co]: ...

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[Any]:
        """Return a call of the function for ``enqueue`` and ``enqueue_many``. Do not await it."""
        return self.sync.bind(*args, **kwargs)

    @overload
    async def get(self: AsyncTaskFunction[P, Coroutine[Any, Any, T]], task: AsyncTask | Task | int) -> AsyncTask[T]: ...

    @overload
    async def get(self, task: AsyncTask | Task | int) -> AsyncTask[R_co]: ...

    async def get(self, task: AsyncTask | Task | int) -> AsyncTask[Any]:
        """Return a task of this function, as ``TaskFunction.get`` does."""
        id = task if isinstance(task, int) else task.id
        return AsyncTask(await self._threads.call(self.sync.get, id), self._threads)

    def using(self, **options: Unpack[UsingOptions]) -> AsyncTaskFunction[P, R_co]:
        """Return the same function with other options, as ``TaskFunction.using`` does."""
        connection = options.get("connection", self._connection)
        return AsyncTaskFunction(self._threads, self.sync.using(**options), connection)


# -- flows -----------------------------------------------------------------------------------------


class AsyncFlowTask(Reference, Generic[R]):
    """A task of an ``AsyncFlow``. In the same flow, it can be used wherever a task can."""

    def __init__(self, sync: FlowTask[R], threads: Threads) -> None:
        self._sync = sync
        self._threads = threads

    def as_link(self, url: str) -> Link:
        """See Reference."""
        return self._sync.as_link(url)

    @property
    def task(self) -> AsyncTask[R]:
        """The stored task. Raises TaskQueueError before the end of the block, or if it stored nothing."""
        return AsyncTask(self._sync.task, self._threads)

    def __repr__(self) -> str:
        return f"<Async{repr(self._sync)[1:]}"


class AsyncFlow:
    """Tasks that are stored together at the end of an ``async with`` block, or not at all: see ``TaskQueue.flow``."""

    def __init__(self, sync: Flow, threads: Threads) -> None:
        self._sync = sync
        self._threads = threads
        self._borrowed = Borrowed()

    def add(self, target: Any, **options: Unpack[Options]) -> AsyncFlowTask[Any]:
        """Add what ``enqueue`` takes, as ``Flow.add`` does. Do not await it."""
        given: dict[str, Any] = self._borrowed.options({**options})
        return AsyncFlowTask(self._sync.add(self._borrowed.target(target), **given), self._threads)

    async def __aenter__(self) -> AsyncFlow:
        self._sync.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._threads.settle(self._sync.__exit__, kind, error, trace)

"""``AsyncTaskQueue``: a ``TaskQueue`` for programs with an event loop.

There is one implementation, the ``TaskQueue``: its calls run in a few threads. What waits (``fetch``, ``wait``,
``follow``) takes no thread for each call: ``_aio/fetching.py``, ``waiting.py``, ``following.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

from . import retry
from ._aio.fetching import Fetches
from ._aio.tasks import AsyncFlow, AsyncTask, AsyncTaskFunction, Borrowed
from ._aio.threads import Threads, settle_apart
from ._executors.lookup import Functions
from ._formats.filters import SortName
from ._formats.payload import JSON
from ._formats.timetable import CatchUp
from ._system import clock
from ._system.log import event
from .audit import Action, Actor
from .bulk import Bulk, Progress
from .calls import Command, Target, TaskCall
from .checks import check_count, counted
from .coding import Coder
from .events import Events, WorkerJoined
from .extension import Extension
from .history import HistoryPoint, Retention
from .options import FunctionOptions, ManyOptions, Options, WorkerOptions
from .overview import FunctionStats, QueueInfo, QueueStats, WorkerInfo
from .queue import TaskQueue
from .reasons import Reason
from .retry import RetryPolicy
from .schedules import Overlap, Schedule
from .states import FINAL, StateName, TaskState
from .task import Task
from .worker import Worker

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

__all__ = ["AsyncFlow", "AsyncFound", "AsyncTask", "AsyncTaskFunction", "AsyncTaskQueue"]


class AsyncFound(NamedTuple):
    """The tasks that match, and how far the search has come. The fields are those of ``Found``."""

    tasks: list[AsyncTask[Any]]
    next: str | None
    scanned: int
    back_to: int | None
    complete: bool


class AsyncTaskQueue:
    """A ``TaskQueue`` whose methods are awaited, for programs with an event loop.

    The arguments are those of ``TaskQueue``, but ``await queue.open()``, ``async with`` or the first use opens the
    database. With ``open=True``, the constructor opens it, which blocks the event loop. ``threads``: the maximum number
    of threads in which this queue and its lanes call the database.

    ``sync`` is the ``TaskQueue``, for a ``Worker`` and for code without an event loop. The queue is not bound to an
    event loop: several may use it, in several threads, at the same time or one after the other. As a dependency of a
    web framework (``Depends(queue)``), it provides itself.
    """

    def __init__(
        self,
        url: str | None = None,
        queue: str = "default",
        *,
        retry: RetryPolicy = retry.DEFAULT,
        lease: float | timedelta = 30.0,
        create: bool = True,
        open: bool = False,
        extensions: Iterable[Extension] = (),
        coders: Iterable[Coder] = (),
        threads: int = 4,
    ) -> None:
        check_count(threads, "threads")
        sync = TaskQueue(
            url, queue, retry=retry, lease=lease, create=create, open=open, extensions=extensions, coders=coders
        )
        self._threads = Threads(threads)
        self._shared = _Shared()
        self._use(sync)

    def _use(self, sync: TaskQueue) -> None:
        self.sync = sync
        self._fetches = Fetches(sync, self._threads)
        self._shared.add(self._fetches)

    def __repr__(self) -> str:
        return f"<Async{repr(self.sync)[1:]}"

    def _repr_html_(self) -> str:
        """Show the queue in a notebook, as a ``TaskQueue`` is shown."""
        return self.sync._repr_html_()

    async def __call__(self) -> AsyncTaskQueue:
        """Return the queue, as a dependency that provides itself."""
        return self

    async def __aenter__(self) -> AsyncTaskQueue:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.call(function, *args, **kwargs)

    def _task(self, task: Task[R]) -> AsyncTask[R]:
        return AsyncTask(task, self._threads)

    def _tasks(self, tasks: Iterable[Task[R]]) -> list[AsyncTask[R]]:
        return [AsyncTask(task, self._threads) for task in tasks]

    async def open(self, url: str | None = None) -> AsyncTaskQueue:
        """Open the database unless it is open, and return the queue, as ``TaskQueue.open`` does."""
        await self._call(self.sync.open, url)
        return self

    async def close(self) -> None:
        """Close the queue and its lanes, as ``TaskQueue.close`` does. Calls of ``fetch`` that wait return no tasks."""
        try:
            await settle_apart(self._close)
        finally:
            self._threads.close()

    def _close(self) -> None:
        try:
            self.sync.close()
        finally:
            self._shared.stop_fetches()

    def lane(self, queue: str) -> AsyncTaskQueue:
        """Return the queue of another name in the same database, as ``TaskQueue.lane`` does. Do not await it."""
        lane = copy.copy(self)
        lane._use(self.sync.lane(queue))
        return lane

    def use(self, extension: Extension) -> None:
        """Add an extension to this queue and its lanes. Do not await it."""
        self.sync.use(extension)

    # -- attributes of the TaskQueue ---------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.sync.name

    @property
    def url(self) -> str:
        """The database's URL; of a queue that is not open, the URL that would be used now."""
        return self.sync.url

    @property
    def lease(self) -> float:
        """The time without a heartbeat, in seconds, after which workers on other machines take over."""
        return self.sync.lease

    @lease.setter
    def lease(self, lease: float | timedelta) -> None:
        self.sync.lease = lease

    @property
    def functions(self) -> Functions:
        """The task functions, as ``TaskQueue`` has them."""
        return self.sync.functions

    @functions.setter
    def functions(self, functions: Functions) -> None:
        self.sync.functions = functions

    @property
    def extensions(self) -> list[Extension]:
        """The extensions, in the order in which they are called."""
        return self.sync.extensions

    @property
    def coders(self) -> Sequence[Coder]:
        """The coders, in the order in which they are asked."""
        return self.sync.coders

    @property
    def events(self) -> Events:
        """Where facts about tasks and workers are emitted."""
        return self.sync.events

    @property
    def is_open(self) -> bool:
        """Whether the database has been opened."""
        return self.sync.is_open

    @property
    def is_closed(self) -> bool:
        """Whether the queue has been closed."""
        return self.sync.is_closed

    # -- producing ---------------------------------------------------------------------------------

    @overload
    async def enqueue(self, payload: TaskCall[R], **options: Unpack[Options]) -> AsyncTask[R]: ...

    @overload
    async def enqueue(self, payload: Command | JSON = None, **options: Unpack[Options]) -> AsyncTask[Any]: ...

    async def enqueue(self, payload: Target = None, **options: Unpack[Options]) -> AsyncTask[Any]:
        """Store a task in this queue, as ``TaskQueue.enqueue`` does; it is durable when this returns.

        ``connection`` may be a connection of this event loop, such as an ``AsyncSession``. If this is cancelled, the
        task may have been stored. With a ``key``, the same call again returns it.
        """
        borrowed = Borrowed()
        given: dict[str, Any] = borrowed.options({**options})
        store = partial(self.sync.enqueue, borrowed.target(payload), **given)
        return self._task(await (self._threads.settle(store) if borrowed else self._call(store)))

    @overload
    async def enqueue_many(
        self,
        payloads: Iterable[TaskCall[R]],
        *,
        keys: Iterable[str | None] | None = None,
        **options: Unpack[ManyOptions],
    ) -> list[AsyncTask[R]]: ...

    @overload
    async def enqueue_many(
        self, payloads: Iterable[Target], *, keys: Iterable[str | None] | None = None, **options: Unpack[ManyOptions]
    ) -> list[AsyncTask[Any]]: ...

    async def enqueue_many(
        self, payloads: Iterable[Target], *, keys: Iterable[str | None] | None = None, **options: Unpack[ManyOptions]
    ) -> list[AsyncTask[Any]]:
        """Store many tasks in one transaction, as ``TaskQueue.enqueue_many`` does."""
        borrowed = Borrowed()
        given: dict[str, Any] = borrowed.options({**options})
        targets = [borrowed.target(payload) for payload in payloads]
        store = partial(self.sync.enqueue_many, targets, keys=keys, **given)
        return self._tasks(await (self._threads.settle(store) if borrowed else self._call(store)))

    async def enqueue_command(
        self,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> AsyncTask[dict[str, int]]:
        """Store a command line as a task, as ``TaskQueue.enqueue_command`` does."""
        borrowed = Borrowed()
        given: dict[str, Any] = borrowed.options({**options})
        store = partial(self.sync.enqueue_command, argv, cwd=cwd, env=env, **given)
        return self._task(await (self._threads.settle(store) if borrowed else self._call(store)))

    def flow(self) -> AsyncFlow:
        """Return a flow, whose tasks are stored together at the end of its ``async with`` block, or not at all."""
        return AsyncFlow(self.sync.flow(), self._threads)

    # -- consuming ---------------------------------------------------------------------------------

    async def fetch(self, max_items: int = 1, *, timeout: float | timedelta | None = None) -> list[AsyncTask[Any]]:
        """Reserve up to ``max_items`` due tasks, in order, and wait until there is at least one.

        Returns ``[]`` only after ``timeout`` (seconds or a timedelta), or when the queue was closed. If this is
        cancelled, nothing stays reserved. Calls that wait are served in order, by one thread. Raises ValueError if
        ``max_items`` is below 1.
        """
        return self._tasks(await self._fetches.fetch(max_items, timeout))

    next = fetch

    async def __aiter__(self) -> AsyncIterator[AsyncTask[Any]]:
        """Yield reserved tasks one by one until the queue is closed."""
        is_closed = self._fetches.closing()
        while tasks := self._tasks(await self._fetches.fetch(1, None, is_closed)):
            yield tasks.pop()

    # -- inspecting and operating ------------------------------------------------------------------

    async def get(self, id: int, *, connection: object = None) -> AsyncTask[Any]:
        """Return the task with this id, of any queue in the database, as ``TaskQueue.get`` does."""
        if connection is None:
            return self._task(await self._call(self.sync.get, id))
        borrowed = Borrowed().connection(connection)
        return self._task(await self._threads.settle(self.sync.get, id, connection=borrowed))

    async def cancel(self, id: int, *, running: bool = True, actor: str | Actor | None = None) -> bool:
        """Cancel a task of any queue, as ``TaskQueue.cancel`` does."""
        return await self._call(self.sync.cancel, id, running=running, actor=actor)

    async def wait_all(
        self, tasks: Iterable[AsyncTask[R]], timeout: float | timedelta | None = None
    ) -> list[AsyncTask[R]]:
        """Wait until all these tasks are done, abandoned or cancelled, and return them in the same order.

        Raises TimeoutError after ``timeout`` (seconds or a timedelta), and TaskNotFound if one of the tasks is pruned.
        """
        deadline = clock.deadline_of(timeout)
        waited = list(tasks)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        waits = [asyncio.ensure_future(task.wait(left)) for task in {id(task): task for task in waited}.values()]
        try:
            await asyncio.gather(*waits)
        except TimeoutError:
            number = sum(task.state not in FINAL for task in waited)
            seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
            raise TimeoutError(f"{number} of {counted(len(waited), 'task')} unfinished after {seconds} s") from None
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return waited

    async def retry(self, id: int, *, actor: str | Actor | None = None) -> AsyncTask[Any]:
        """Run a task again that has failed or ended, as ``TaskQueue.retry`` does."""
        return self._task(await self._call(self.sync.retry, id, actor=actor))

    async def why(self, id: int) -> list[Reason]:
        """Return all reasons why a task of any queue does not run now, as ``TaskQueue.why`` does."""
        return await self._call(self.sync.why, id)

    async def suspend(self, id: int, *, actor: str | Actor | None = None) -> None:
        """Pause all processes of a running task, as ``TaskQueue.suspend`` does."""
        await self._call(self.sync.suspend, id, actor=actor)

    async def continue_(self, id: int, *, actor: str | Actor | None = None) -> None:
        """Resume a suspended task, as ``TaskQueue.continue_`` does."""
        await self._call(self.sync.continue_, id, actor=actor)

    async def reschedule(
        self,
        id: int,
        *,
        start_in: float | timedelta | None = None,
        start_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        actor: str | Actor | None = None,
    ) -> AsyncTask[Any]:
        """Change when a pending or failed task is due, its priority, or its queue, as ``TaskQueue.reschedule`` does."""
        change = partial(self.sync.reschedule, start_in=start_in, start_at=start_at, priority=priority, queue=queue)
        return self._task(await self._call(change, id, actor=actor))

    async def delete(self, id: int, *, actor: str | Actor | None = None) -> None:
        """Delete a task that has ended, as ``TaskQueue.delete`` does."""
        await self._call(self.sync.delete, id, actor=actor)

    async def cancel_many(
        self,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Cancel every task that matches, as ``TaskQueue.cancel_many`` does. ``progress`` is called in a thread."""
        act = partial(self.sync.cancel_many, dry_run=dry_run, progress=progress, actor=actor, all_queues=all_queues)
        return await self._call(act, **filters)

    async def retry_many(
        self,
        *,
        spread: float | timedelta = 0,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Retry every task that matches, as ``TaskQueue.retry_many`` does. ``progress`` is called in a thread."""
        act = partial(self.sync.retry_many, dry_run=dry_run, progress=progress, actor=actor, all_queues=all_queues)
        return await self._call(act, spread=spread, **filters)

    async def reschedule_many(
        self,
        *,
        start_in: float | timedelta | None = None,
        start_at: datetime | None = None,
        to_priority: int | None = None,
        to_queue: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Reschedule every task that matches, as ``TaskQueue.reschedule_many`` does.

        ``progress`` is called in a thread.
        """
        act = partial(self.sync.reschedule_many, dry_run=dry_run, progress=progress, actor=actor, all_queues=all_queues)
        change = {"start_in": start_in, "start_at": start_at, "to_priority": to_priority, "to_queue": to_queue}
        return await self._call(act, **change, **filters)

    async def delete_many(
        self,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Delete every final task that matches, as ``TaskQueue.delete_many`` does.

        ``progress`` is called in a thread.
        """
        act = partial(self.sync.delete_many, dry_run=dry_run, progress=progress, actor=actor, all_queues=all_queues)
        return await self._call(act, **filters)

    async def audit(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        who: str | None = None,
        verb: str | None = None,
        queue: str | None = None,
        task: int | None = None,
    ) -> list[Action]:
        """Return the latest actions of operators on the whole database, as ``TaskQueue.audit`` does."""
        read = partial(self.sync.audit, limit=limit, before=before, who=who, verb=verb, queue=queue, task=task)
        return await self._call(read)

    async def tasks(
        self, *, state: TaskState | StateName | None = None, limit: int = 100, before: int | None = None
    ) -> list[AsyncTask[Any]]:
        """Return this queue's tasks, newest first, as ``TaskQueue.tasks`` does."""
        return self._tasks(await self._call(self.sync.tasks, state=state, limit=limit, before=before))

    async def find(
        self,
        *,
        sort: SortName = "newest",
        limit: int = 100,
        cursor: str | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> AsyncFound:
        """Return tasks that match all filters, as ``TaskQueue.find`` does."""
        search = partial(self.sync.find, sort=sort, limit=limit, cursor=cursor, all_queues=all_queues)
        found = await self._call(search, **filters)
        return AsyncFound(self._tasks(found.tasks), found.next, found.scanned, found.back_to, found.complete)

    async def stats(self) -> QueueStats:
        """Count the tasks in each state, and more: see ``QueueStats``."""
        return await self._call(self.sync.stats)

    async def function_stats(self) -> list[FunctionStats]:
        """Return statistics of each task function, as ``TaskQueue.function_stats`` does."""
        return await self._call(self.sync.function_stats)

    async def history(
        self,
        function: str | None = None,
        *,
        since: float | timedelta | str = "24h",
        step: float | timedelta | str = "10m",
    ) -> list[HistoryPoint]:
        """Return what the attempts of this queue did over time, as ``TaskQueue.history`` does."""
        return await self._call(self.sync.history, function, since=since, step=step)

    async def retention(self) -> Retention:
        """Return what is pruned in this queue in the background. By default, everything is kept."""
        return await self._call(self.sync.retention)

    async def set_retention(
        self,
        *,
        done: float | timedelta | None = None,
        cancelled: float | timedelta | None = None,
        abandoned: float | timedelta | None = None,
        most: int | None = None,
        actor: str | Actor | None = None,
    ) -> None:
        """Store what is pruned in this queue in the background, as ``TaskQueue.set_retention`` does."""
        store = partial(self.sync.set_retention, done=done, cancelled=cancelled, abandoned=abandoned, most=most)
        await self._call(store, actor=actor)

    async def workers(self) -> list[WorkerInfo]:
        """Return the live workers of the whole database, and those lost within the last day."""
        return await self._call(self.sync.workers)

    async def queues(self) -> list[QueueInfo]:
        """Return all queues of the database that have tasks or schedules or are paused, by name."""
        return await self._call(self.sync.queues)

    async def pause(self, *, actor: str | Actor | None = None) -> None:
        """Stop handing out tasks of this queue. Reserved and running tasks continue."""
        await self._call(self.sync.pause, actor=actor)

    async def resume(self, *, actor: str | Actor | None = None) -> None:
        """Hand out tasks of this queue again."""
        await self._call(self.sync.resume, actor=actor)

    async def purge(self, *, actor: str | Actor | None = None) -> int:
        """Mark every unfinished task of this queue abandoned, including running ones, and return their number."""
        return await self._call(self.sync.purge, actor=actor)

    async def prune(
        self,
        older_than: float | timedelta,
        *,
        states: Iterable[TaskState | StateName] = ("done", "cancelled"),
        actor: str | Actor | None = None,
    ) -> int:
        """Delete this queue's tasks in these final states that ended longer ago, as ``TaskQueue.prune`` does."""
        return await self._call(self.sync.prune, older_than, states=states, actor=actor)

    # -- schedules ---------------------------------------------------------------------------------

    async def schedule(
        self,
        name: str,
        target: Target,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        timezone: str = "UTC",
        overlap: Overlap = "skip",
        catch_up: CatchUp = "latest",
        window: float | timedelta = 86400,
        jitter: float | timedelta = 0,
    ) -> Schedule:
        """Store a schedule, which enqueues ``target`` at each tick, as ``TaskQueue.schedule`` does."""
        times = partial(self.sync.schedule, cron=cron, every=every, timezone=timezone)
        options = {"window": window, "jitter": jitter}
        return await self._call(times, name, target, overlap=overlap, catch_up=catch_up, **options)

    async def unschedule(self, name: str, *, actor: str | Actor | None = None) -> None:
        """Remove a schedule of this queue. Its tasks stay. Raises LookupError if there is none with this name."""
        await self._call(self.sync.unschedule, name, actor=actor)

    async def schedules(self) -> list[Schedule]:
        """Return the schedules of this queue, by name."""
        return await self._call(self.sync.schedules)

    def periodic(
        self,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        timezone: str = "UTC",
        name: str | None = None,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "latest",
        window: float | timedelta = 86400,
        jitter: float | timedelta = 0,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Callable[[Callable[P, R]], AsyncTaskFunction[P, R]]:
        """Declare a schedule that calls a function, as ``TaskQueue.periodic`` does. Do not await it."""
        declare = self.sync.periodic(
            cron=cron,
            every=every,
            timezone=timezone,
            name=name,
            overlap=overlap,
            catch_up=catch_up,
            window=window,
            jitter=jitter,
            args=args,
            kwargs=kwargs,
        )
        return lambda function: AsyncTaskFunction(self._threads, declare(_sync(function)))

    # -- task functions ----------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /) -> AsyncTaskFunction[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[FunctionOptions]) -> Callable[[Callable[P, R]], AsyncTaskFunction[P, R]]: ...

    def task(self, function: Callable[P, R] | None = None, /, **options: Unpack[FunctionOptions]) -> Any:
        """Register a function as a task function, as ``TaskQueue.task`` does. Its ``enqueue`` is awaited."""
        if function is not None:
            return AsyncTaskFunction(self._threads, self.sync.task(_sync(function), **options))  # type: ignore[call-overload]
        register = self.sync.task(**options)
        return lambda function: AsyncTaskFunction(self._threads, register(_sync(function)))

    # -- web applications --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[dict[str, AsyncTaskQueue]]:
        """Open the queue while an ASGI application runs: ``FastAPI(lifespan=queue.lifespan)``.

        At its end, calls of ``fetch`` that wait return no tasks, and connections are closed. A later use opens others,
        so that an application can be started again, as tests do. In a lifespan of your own, write ``async with
        queue.lifespan(app):``.
        """
        await self.open()
        try:
            yield {"task_queue": self}
        finally:
            try:
                await settle_apart(self._disconnect)
            finally:
                self._threads.close()

    def _disconnect(self) -> None:
        self._shared.stop_fetches()
        self.sync.disconnect()

    def lifespan_with_worker(
        self,
        callback: Callable[[Any], JSON] | None = None,
        *,
        queues: list[str] | tuple[str, ...] | None = None,
        **options: Unpack[WorkerOptions],
    ) -> Callable[[object], AbstractAsyncContextManager[dict[str, AsyncTaskQueue]]]:
        """Return a lifespan that also runs a ``Worker`` in a thread of this process.

        ``queues`` and ``options`` are those of ``Worker``, and ``callback`` that of ``Worker.run``. The worker handles
        no signals. When the application shuts down, running tasks get ``drain_timeout`` to finish, and the rest returns
        to the queue. If the worker cannot run, the start of the application fails.
        """

        @contextlib.asynccontextmanager
        async def lifespan(app: object = None) -> AsyncIterator[dict[str, AsyncTaskQueue]]:
            async with self.lifespan(app) as state:
                worker = Worker(self.sync, queues=queues, **options)
                ended = await self._run(worker, callback)
                try:
                    yield state
                finally:
                    worker.stop()
                    await ended

        return lifespan

    async def _run(self, worker: Worker, callback: Callable[[Any], JSON] | None) -> asyncio.Future[None]:
        """Start a worker in a thread. Return a future for its end, once it has joined the others. Raises its error."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        joined = asyncio.Event()

        def run() -> None:
            failure: BaseException | None = None
            try:
                worker.run(callback)
            except BaseException as error:
                failure = error
                event(logging.ERROR, "the worker of the application failed", exc_info=error)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_end, ended, failure)

        forget = self._shared.on_joined(self.events, partial(loop.call_soon_threadsafe, joined.set))
        waiting: asyncio.Future[Any] = asyncio.ensure_future(joined.wait())
        try:
            # a daemon, so that a server that is made to exit does not wait for tasks
            threading.Thread(target=run, name="dbtaskqueue-worker", daemon=True).start()
            await asyncio.wait([ended, waiting], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            worker.stop()
            raise
        finally:
            waiting.cancel()
            forget()
        if ended.done():
            ended.result()
        return ended


class _Shared:
    """What a queue shares with its lanes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetches: weakref.WeakSet[Fetches] = weakref.WeakSet()
        self._on_joined: list[Callable[[], object]] | None = None

    def add(self, fetches: Fetches) -> None:
        """Add the calls of ``fetch`` of a queue."""
        with self._lock:
            self._fetches.add(fetches)

    def stop_fetches(self) -> None:
        """End the calls of ``fetch`` that wait."""
        with self._lock:
            found = list(self._fetches)
        for each in found:
            each.stop()

    def on_joined(self, events: Events, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` when a worker of this process joins. Return a function that forgets it."""
        if self._on_joined is None:
            callbacks = self._on_joined = []
            events.listen(WorkerJoined, lambda _: [call() for call in tuple(callbacks)])
        known = self._on_joined
        known.append(callback)
        return lambda: known.remove(callback)


def _end(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _sync(function: Callable[P, R]) -> Callable[P, R]:
    """Return the task function of the ``TaskQueue`` for that of an ``AsyncTaskQueue``; any other function as it is."""
    return function.sync if isinstance(function, AsyncTaskFunction) else function

"""TaskQueue: the producer's and the operator's handle, and with ``fetch`` a consumer's."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

from . import retry
from ._formats import payload
from ._formats.payload import JSON
from ._formats.url import DEFAULT_URL
from ._store import open_store
from ._store.contract import NewTask, TaskRecord, Verdict, fresh
from ._system import clock
from ._worker.due import wait_until_due
from ._worker.held import FetchMembership
from .calls import Command
from .checks import MOST, check_count, check_lease, check_queue, is_count, shown
from .errors import InvalidTransition, PayloadError, TaskQueueError
from .events import Events, TasksEnqueued
from .functions import Registry, TaskFunction
from .options import FunctionOptions, Options, refuse_unknown, to_columns
from .overview import LATEST, FunctionStats, summarize
from .retry import RetryPolicy, check_policy
from .states import FINAL, RUNNING, StateName, TaskState, sources
from .task import Task, after_a_change, cancel, look_up, wait_all

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_WAIT = 5.0
_FINAL_COUNTS_AGE = 10.0
_QUICK_COUNT = 0.02
"""Seconds that counting everything may take before the final states are counted only now and then."""


class QueueStats(NamedTuple):
    """How many tasks are in each state, and how the queue does.

    ``oldest_due``: the longest wait of a due task in seconds, or None. A task waits since its due time, or since it was
    enqueued, released, failed or retried if that was later. ``workers``: live ones of the whole database.
    Counts of final states may be up to 10 s old.
    """

    pending: int
    reserved: int
    running: int
    failed: int
    done: int
    cancelled: int
    abandoned: int
    oldest_due: float | None
    workers: int
    paused: bool


class TaskQueue:
    """A named lane of tasks in a database.

    ``url``: ``sqlite:///relative.sqlite``, ``sqlite:////absolute.sqlite``, ``sqlite:///:memory:`` (a
    temporary file, removed at close) or a DBI DSN such as ``dbi:SQLite:dbname=FILE``; by default
    ``$DBTASKQUEUE_URL``, else ``sqlite:///taskqueue.sqlite``. ``lease``: the time without a heartbeat, in seconds or a
    timedelta, after which other machines may take this handle's claims. ``create=False`` makes neither file nor schema.

    A context manager, safe to share between threads. After a fork the claims stay with the parent.
    Raises ConfigurationError, SchemaError, StoreUnavailable, and ValueError for a bad name.
    """

    def __init__(
        self,
        url: str | None = None,
        queue: str = "default",
        *,
        retry: RetryPolicy = retry.DEFAULT,
        lease: float | timedelta = 30.0,
        create: bool = True,
    ) -> None:
        self.url = url if url is not None else os.environ.get("DBTASKQUEUE_URL") or DEFAULT_URL
        self.name = check_queue(queue)
        self.lease = check_lease(lease)
        self.retry_policy = check_policy(retry)
        self.functions = Registry()
        self.events = Events()
        self._closed = False
        self._stops: list[Callable[[], object]] = []
        self._final_counts: tuple[float, dict[TaskState, int]] = (float("-inf"), {})
        self.store = open_store(self.url)
        try:
            self.store.prepare(create=create)
        except BaseException:
            self.store.close()
            raise
        self._membership = FetchMembership(self.store, self.lease, self.events)

    def __repr__(self) -> str:
        return f"<TaskQueue {self.name}>"

    def __enter__(self) -> TaskQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wake blocked fetches, release what is reserved and not started. Running tasks stay held.

        A ``Worker`` that runs on this handle stops as by its ``stop``: what it runs comes to its end first. In the
        handler of a signal that interrupted a call of this handle it returns at once, and the rest is done soon.
        """
        if self._closed:
            return
        self._closed = True
        for stop in tuple(self._stops):
            stop()
        self.store.wakeups.ring()
        self._membership.on_left = self._close_store_if_unused
        self._membership.leave()
        self._close_store_if_unused()

    @contextlib.contextmanager
    def serving(self, stop: Callable[[], object]) -> Iterator[None]:
        """For a worker: ``close`` calls ``stop``, and the database stays open to the block's end. TaskQueueError."""
        self._stops.append(stop)
        try:
            self._require_open()  # from here on a close finds the stop
            yield
        finally:
            self._stops.remove(stop)
            self._close_store_if_unused()

    def _close_store_if_unused(self) -> None:
        if self._closed and not self._stops and self._membership.id is None:
            self.store.close()

    # -- producing ---------------------------------------------------------------------------------

    def enqueue(
        self,
        payload: JSON = None,
        *,
        start_in: float | timedelta | None = None,
        start_at: datetime | None = None,
        priority: int = 0,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        key: str | None = None,
        connection: object = None,
        time_limit: float | timedelta | None = None,
        stall_limit: float | timedelta | None = None,
        memory_limit: int | None = None,
        meta: Mapping[str, JSON] | None = None,
    ) -> Task:
        """Store a task; it is durable when this returns.

        ``start_in`` in seconds or a timedelta, or ``start_at`` as an aware datetime: due then, else now.
        Higher ``priority`` first (−32768 … 32767, strictly), then due time, then id. ``max_attempts``
        overrides the number of the policy ``retry`` (by default this queue's). ``key``: if an unfinished
        task of this queue has it, that one is returned, unchanged. ``connection``: a DB-API connection of
        yours to the same database (sqlite3, psycopg, PyMySQL), in a transaction: the task is part of it, and
        exists if and only if you commit.

        Limits of each attempt, None for none: ``time_limit``, and ``stall_limit`` without ``progress``, in seconds or
        timedeltas; ``memory_limit`` in bytes of all its processes. An attempt that exceeds a limit fails. A process is
        always stopped; a thread must check ``should_stop``, a coroutine must await, and their memory has no limit.

        Raises PayloadError, ValueError, ConfigurationError for a connection of another kind, to another database, or
        in autocommit.
        """
        options: Options = {
            "start_in": start_in,
            "start_at": start_at,
            "priority": priority,
            "max_attempts": max_attempts,
            "retry": retry,
            "key": key,
            "connection": connection,
            "time_limit": time_limit,
            "stall_limit": stall_limit,
            "memory_limit": memory_limit,
            "meta": meta,
        }
        return self.submit([payload], options)[0]

    def enqueue_many(
        self,
        payloads: Iterable[JSON],
        *,
        start_in: float | timedelta | None = None,
        start_at: datetime | None = None,
        priority: int = 0,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        connection: object = None,
        time_limit: float | timedelta | None = None,
        stall_limit: float | timedelta | None = None,
        memory_limit: int | None = None,
        meta: Mapping[str, JSON] | None = None,
    ) -> list[Task]:
        """Store a task for each payload in one transaction: all or none, in order. Otherwise as ``enqueue``."""
        options = Options(
            start_in=start_in,
            start_at=start_at,
            priority=priority,
            max_attempts=max_attempts,
            retry=retry,
            connection=connection,
            time_limit=time_limit,
            stall_limit=stall_limit,
            memory_limit=memory_limit,
            meta=meta,
        )
        return self.submit(list(payloads), options)

    def enqueue_command(
        self,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> Task:
        """Store a command line as a task, for workers that allow commands. No shell reads it.

        ``argv``: the program and its arguments. ``cwd``: the directory in which it runs, by default the worker's.
        ``env`` is added to the worker's environment, all of which the command sees; it also finds
        ``DBTASKQUEUE_TASK_ID``, ``_ATTEMPT`` and ``_TOKEN`` there. ``options`` are those of ``enqueue``.

        Exit code 0 means done, with the result ``{"exit_code": 0}``, also when the command exits with it after it was
        asked to stop. Any other exit code fails the attempt. An output line ``::progress 3/10 some text`` reports
        progress. Anyone who can read the database can read ``argv`` and ``env``.

        Raises TypeError and ValueError for what cannot be run.
        """
        refuse_unknown(options, Options, "enqueue_command")
        return self.submit([Command(argv, cwd, env).payload], options, command=True)[0]

    def submit(
        self, payloads: list[JSON], options: Mapping[str, object], function: str | None = None, *, command: bool = False
    ) -> list[Task]:
        """Store payloads with the same options; those of a task function's calls with its name."""
        self._require_open()
        now = clock.now()
        columns = to_columns(options, self.name, self.retry_policy, now)
        limit, single = self.store.max_payload, len(payloads) == 1
        tasks = [
            NewTask(
                columns.queue,
                columns.rank,
                columns.due,
                columns.budget,
                now,
                columns.key,
                function,
                columns.options,
                payload.encode(value, limit=limit, name="payload" if single else f"payloads[{index}]"),
                columns.meta,
                int(command),
            )
            for index, value in enumerate(payloads)
        ]
        if not tasks:
            return []
        connection = options.get("connection")
        ids = self.store.enqueue(tasks, connection)
        self.store.wakeups.ring()
        if self.events.wants(TasksEnqueued):
            self.events.emit(TasksEnqueued(ids, tasks))
        if tasks[0].key is not None:
            with after_a_change():
                return [Task(self.store, look_up(self.store, ids[0], connection))]
        return [Task(self.store, record) for record in map(fresh, ids, tasks)]

    # -- consuming ---------------------------------------------------------------------------------

    def fetch(self, max_items: int = 1, *, timeout: float | timedelta | None = None) -> list[Task]:
        """Reserve up to ``max_items`` due tasks, in order; blocks until there is at least one.

        ``[]`` only when ``timeout`` (seconds or a timedelta) has passed or the queue was closed. Also rescues the tasks
        of dead workers. If interrupted, it leaves nothing reserved.
        """
        check_count(max_items, "max_items")
        deadline = clock.deadline_of(timeout)
        while not self._closed:
            tasks = self._membership.claim([self.name], max_items, self._hold)
            if self._closed:
                self._membership.leave()  # the close may have come before the claim
                break
            if tasks:
                return tasks
            if self._membership.maintain():
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._wait_until_due(left)
        return []

    def _hold(self, record: TaskRecord) -> Task:
        return Task(self.store, record, self._membership)

    def _wait_until_due(self, left: float | None) -> None:
        """Sleep until a task may be due: without the write lock, whatever else changes."""
        deadline = time.monotonic() + (_LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT))
        while not self._closed:
            left = deadline - time.monotonic()
            if wait_until_due(self.store, [self.name], left, commands=False) or left <= 0:  # commands are for workers
                return

    next = fetch

    def __iter__(self) -> Iterator[Task]:
        """Reserved tasks, one by one, until the queue is closed."""
        while tasks := self.fetch():
            yield tasks.pop()

    # -- looking and operating ---------------------------------------------------------------------

    def get(self, id: int) -> Task:
        """The task with this id, of any queue in the database; TaskNotFound."""
        self._require_open()
        return Task(self.store, look_up(self.store, id))

    def cancel(self, id: int, *, running: bool = True) -> bool:
        """Cancel a task of any queue, as ``Task.cancel`` does. Raises TaskNotFound and InvalidTransition."""
        self._require_open()
        return cancel(self.store, id, running=running)

    def wait_all(self, tasks: Iterable[Task[R]], timeout: float | timedelta | None = None) -> list[Task[R]]:
        """Wait until all these tasks are done, abandoned or cancelled, and return them in the same order.

        It takes one query for each change of the database, however many tasks there are. Raises TimeoutError after
        ``timeout`` (seconds or a timedelta), and TaskNotFound if one of the tasks is pruned.
        """
        self._require_open()
        return wait_all(tasks, timeout)

    def retry(self, id: int) -> Task:
        """Run a failed, abandoned, cancelled or done task again, due now, with its attempts renewed.

        Raises TaskNotFound, and InvalidTransition from another state or while another unfinished task
        has its key.
        """
        self._require_open()
        before = look_up(self.store, id)
        verdict = self.store.retry(id, clock.now())
        if not verdict.stored:
            if before.key is not None and verdict.state in sources("retry"):
                raise InvalidTransition(f"retry: another unfinished task has the key {before.key!r} of task {id}")
            raise InvalidTransition(f"retry: task {id} is {verdict.state or 'pruned'}")
        self.store.wakeups.ring()
        with after_a_change():
            return self.get(id)

    def suspend(self, id: int) -> None:
        """Let a running task stand still until ``continue_``, all its processes, within 2 s.

        It is not stopped in the middle of a transaction of ours. Meanwhile it is its worker's: nobody takes it, it
        keeps its memory and its slot, and its limits do not count. A cancel ends it. It is for this claim: when its
        worker stops or dies, whoever claims the task next runs it.

        Raises TaskNotFound, and InvalidTransition unless it runs in a process.
        """
        self._suspend(id, True)

    def continue_(self, id: int) -> None:
        """Let a suspended task go on, within 2 s; nothing happens to one that runs. Raises what ``suspend`` raises."""
        self._suspend(id, False)

    def _suspend(self, id: int, suspended: bool) -> None:
        self._require_open()
        before = look_up(self.store, id)
        verdict = self.store.suspend(id, suspended)
        if not verdict.stored:
            verb = "suspend" if suspended else "continue"
            raise InvalidTransition(f"{verb}: task {id} {self._why_not_suspended(verdict, before.worker)}")

    def _why_not_suspended(self, verdict: Verdict, holder: int | None) -> str:
        if verdict.state != RUNNING:
            return f"is {verdict.state or 'pruned'}; only a running task can be suspended"
        found = [worker for worker in self.store.workers() if worker.id == holder and worker.lost_at is None]
        if not found:
            return "is held by a worker that is lost"
        if found[0].executor is None:
            return "runs in a program that has fetched it; only a task in a worker's process can be suspended"
        ways = {"thread": "by threads", "asyncio": "by asyncio"}
        return (
            f"cannot be suspended: its worker runs tasks {ways.get(found[0].executor, found[0].executor)};"
            " only a task in a process can"
        )

    def tasks(
        self, *, state: TaskState | StateName | None = None, limit: int = 100, before: int | None = None
    ) -> list[Task]:
        """This queue's tasks, newest first: at most ``limit``, with ids below ``before`` (for paging)."""
        self._require_open()
        if not is_count(limit):
            raise ValueError(f"limit is a whole number of at least 1, not {shown(limit)}")
        if before is not None and (not isinstance(before, int) or isinstance(before, bool)):
            raise ValueError(f"before is a task's id, not {shown(before)}")
        wanted = None if state is None else check_state(state)
        bound = None if before is None else max(0, min(before, 2**63 - 1))
        records = self.store.tasks(self.name, wanted, min(limit, MOST), bound)
        return [Task(self.store, record) for record in records]

    def stats(self) -> QueueStats:
        """A count for each state, the longest wait of a due task, living workers, and whether it is paused."""
        self._require_open()
        counts = self._counts()
        now = clock.now()
        since = self.store.waiting_since(self.name, now)
        waited = None if since is None else (now - since) / 1e6
        rescuer = self._membership.rescuer
        living = [w for w in self.store.workers() if w.lost_at is None and not rescuer.is_gone(w)]
        paused = self.store.is_paused(self.name)
        return QueueStats(
            **{state.value: counts[state] for state in TaskState}, oldest_due=waited, workers=len(living), paused=paused
        )

    def function_stats(self) -> list[FunctionStats]:
        """How this queue's task functions did in its newest 10,000 ended attempts, by name."""
        self._require_open()
        return summarize(self.store.ended(self.name, LATEST))

    def _counts(self) -> dict[TaskState, int]:
        good_until, final = self._final_counts
        started = time.monotonic()
        if started < good_until:
            return self.store.count(self.name, final=False) | final
        counts = self.store.count(self.name, final=True)
        seconds = time.monotonic() - started
        if seconds > _QUICK_COUNT:
            self._final_counts = started + _FINAL_COUNTS_AGE, {state: counts[state] for state in FINAL}
        return counts

    def pause(self) -> None:
        """Let nobody fetch from this queue; what is reserved or running goes on."""
        self._require_open()
        self.store.set_paused(self.name, True)

    def resume(self) -> None:
        """Let this queue be fetched from again."""
        self._require_open()
        self.store.set_paused(self.name, False)
        self.store.wakeups.ring()

    def purge(self) -> int:
        """Mark every unfinished task of this queue abandoned, running ones too; how many."""
        return sum(self.purge_in_steps())

    def purge_in_steps(self) -> Iterator[int]:
        """As ``purge``, for whoever shows how far it is: how many each step abandoned."""
        self._require_open()
        return self.store.purge(self.name, clock.now())

    def prune(
        self, older_than: float | timedelta, *, states: Iterable[TaskState | StateName] = ("done", "cancelled")
    ) -> int:
        """Delete this queue's tasks in these final states that ended longer ago than that; how many.

        ``older_than`` in seconds or a timedelta. ValueError for a state that is not final.
        """
        return sum(self.prune_in_steps(older_than, states))

    def prune_in_steps(self, older_than: float | timedelta, states: Iterable[TaskState | str]) -> Iterator[int]:
        """As ``prune``, for whoever shows how far it is: how many each step deleted."""
        self._require_open()
        if isinstance(states, str):
            raise ValueError(f"states is a collection of states, not {shown(states)}")
        wanted = {check_state(state) for state in states}
        if not wanted <= FINAL:
            raise ValueError(f"only final tasks can be pruned, not {', '.join(sorted(wanted - FINAL))}")
        now = clock.now()
        age = clock.after(0, older_than, "older_than")
        return self.store.prune(self.name, now - age + (age == 0), wanted)

    # -- Dancer::Plugin::Queue -----------------------------------------------------------------------

    def add_msg(self, data: JSON) -> Task:
        """``enqueue``, as Dancer::Plugin::Queue spells it."""
        return self.enqueue(data)

    def get_msg(self, timeout: float | timedelta | None = 0) -> tuple[Task, JSON] | tuple[None, None]:
        """Reserve one task: it and its payload, or (None, None) when none is due within ``timeout``.

        Raises PayloadError for a payload that cannot be read; that attempt has failed then.
        """
        tasks = self.fetch(timeout=timeout)
        if not tasks:
            return None, None
        [task] = tasks
        try:
            return task, task.payload
        except PayloadError as error:
            if task.start():
                task.fail(error)  # or it would come again and again
            raise

    def remove_msg(self, task: Task) -> None:
        """Start and finish a task that ``get_msg`` returned."""
        with task:
            pass

    # -- task functions ----------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[FunctionOptions]) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...

    def task(self, function: Callable[P, R] | None = None, /, **options: Unpack[FunctionOptions]) -> Any:
        """Register a function as a task function of this queue: ``@queue.task`` or ``@queue.task(name=…)``.

        ``name`` is stored with each task, so choose one that survives a rename. The default is the module and the
        qualified name. In a script, the module is its file (``app.hello`` for ``python app.py``) or its own name
        (``pkg.app.hello`` for ``python -m pkg.app``). ``max_attempts``, ``priority``, ``retry`` and the limits become
        the defaults of its tasks.

        A function may be registered in several queues: ``@mail.task`` above ``@reports.task`` returns a task function
        that enqueues into ``mail``, with the options of ``@mail.task``. Workers of both queues know the function.
        """

        def register(function: Callable[P, R]) -> TaskFunction[P, R]:
            return self.functions.register(self, function, options)

        if function is not None and not callable(function):
            raise TypeError(f"@queue.task takes no argument without its name: write task(name={shown(function)})")
        return register if function is None else register(function)

    def _require_open(self) -> None:
        if self._closed:
            raise TaskQueueError("this TaskQueue is closed")


def check_state(state: TaskState | str) -> TaskState:
    """The TaskState of a word; ValueError that lists the known ones."""
    try:
        return TaskState(state)
    except ValueError:
        raise ValueError(f"{shown(state)} is no state; the states are {', '.join(TaskState)}") from None

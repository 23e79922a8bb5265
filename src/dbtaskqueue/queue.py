"""TaskQueue: enqueue tasks, operate a queue, and, with ``fetch``, consume tasks."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from . import retry
from ._executors.lookup import Functions
from ._formats import payload
from ._formats.filters import SortName, parse
from ._formats.payload import JSON
from ._formats.timetable import CatchUp
from ._formats.url import mask
from ._store.borrowed import identity_of
from ._store.contract import (
    BY_PARENTS,
    HAS_PARENTS,
    KEY_IS_TAKEN,
    MAX_PARENTS,
    NO_CHANGE,
    BulkVerb,
    Change,
    NewAction,
    NewTask,
    Refusal,
    Store,
    TaskRecord,
    Verdict,
    Waits,
    fresh,
    maker,
)
from ._system import clock
from ._worker.due import wait_until_due
from ._worker.held import FetchMembership
from ._worker.served import ServedQueues
from .audit import Action, Actor, actions, new_action
from .bulk import Bulk, Progress, carry_out, to_change, to_spread
from .calls import Batch, Command, Target, TaskCall, batches_of, batches_with_keys
from .checks import MOST, check_count, check_lease, check_queue, is_count, shown
from .coding import Coder, explained_calls
from .dependencies import AnyTask, Flow, When, to_waits
from .errors import InvalidTransition, PayloadError, TaskNotFound, after_a_change
from .events import Events, TasksEnqueued
from .extension import Extension, NewTasksView, NewTaskView, around_enqueue, notify_enqueuing, overriding
from .finding import Found, check_filters, find_tasks
from .functions import Registry, TaskFunction
from .handle import Handle
from .history import HistoryPoint, Retention, history, retention_of, store_retention
from .options import (
    Columns,
    FunctionOptions,
    ManyOptions,
    Options,
    check_options,
    checked_waits,
    encode_meta,
    refuse_unknown,
    to_columns,
)
from .overview import (
    LATEST,
    FunctionStats,
    QueueInfo,
    QueueStats,
    TaskCounts,
    WorkerInfo,
    queue_infos,
    queue_stats,
    summarize,
    worker_infos,
)
from .reasons import Reason, why
from .retry import RetryPolicy, check_policy
from .schedules import (
    Declaration,
    Overlap,
    Schedule,
    UnknownSchedule,
    as_schedule,
    check_name,
    check_times,
    store_schedule,
    to_record,
    to_target,
)
from .states import FINAL, RUNNING, StateName, TaskState
from .task import Task, cancel, check_id, enqueued_with, look_up, wait_all

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_WAIT = 5.0
"""Seconds after which a fetch that waits also checks for tasks of dead workers."""


class TaskQueue:
    """A named queue of tasks in a database.

    ``url``: ``sqlite:///relative.sqlite``, ``sqlite:////absolute.sqlite``, ``sqlite:///:memory:`` (a temporary file,
    removed at close), ``postgresql://…``, ``mariadb://…`` or a DBI DSN such as ``dbi:SQLite:dbname=FILE``; by default
    ``$DBTASKQUEUE_URL``, else ``sqlite:///taskqueue.sqlite``. ``retry``: the retry policy of tasks that do not set
    one. ``lease``: the time without a heartbeat, in seconds or a timedelta, after which workers on other machines take
    over the claims of this program. ``create=False`` creates neither a file nor a schema.

    ``open=False`` opens the database later, by ``open`` or by the first use, with the URL or ``$DBTASKQUEUE_URL`` of
    that moment. Until then nothing is read or written, and task functions can be registered and bound. ``extensions``:
    see ``use``. ``coders``: what converts arguments and results of other types to JSON and back, by the annotations of
    task functions, such as ``MsgspecCoder()`` and ``PydanticCoder()`` of ``dbtaskqueue.integrations``.

    A context manager, safe to share between threads. After a fork, the claims stay with the parent. Raises
    ConfigurationError, SchemaError, StoreUnavailable, and ValueError for an invalid name.
    """

    def __init__(
        self,
        url: str | None = None,
        queue: str = "default",
        *,
        retry: RetryPolicy = retry.DEFAULT,
        lease: float | timedelta = 30.0,
        create: bool = True,
        open: bool = True,
        extensions: Iterable[Extension] = (),
        coders: Iterable[Coder] = (),
    ) -> None:
        self.name = check_queue(queue)
        self.retry_policy = check_policy(retry)
        self._handle = Handle(url, lease=check_lease(lease), create=create, extensions=extensions, coders=coders)
        self._counts = TaskCounts()
        if open:
            self._handle.open()

    def __repr__(self) -> str:
        state = "" if self._handle.is_open else ", not open"
        return f"<TaskQueue {self.name} of {mask(self.url)}{state}>"

    def _repr_html_(self) -> str:
        """Show the queue in a notebook: its counts, read now unless it is not open."""
        from ._formats import notebook  # most programs are not notebooks

        is_readable = self.is_open and not self._handle.is_closed
        counts = self.stats()._asdict() if is_readable else {"open": False}
        shown = {name: value for name, value in counts.items() if name != "oldest_due"}
        return notebook.table(f"Queue {self.name} of {mask(self.url)}", shown.items())

    def __enter__(self) -> TaskQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, url: str | None = None) -> TaskQueue:
        """Open the database of a queue that was made with ``open=False``, and return the queue.

        ``url``: the database; by default the URL that the queue was made with, else ``$DBTASKQUEUE_URL``. A queue that
        is open already stays so. Raises ConfigurationError, SchemaError, StoreUnavailable, and TaskQueueError if the
        queue is closed or open with another database.
        """
        self._handle.open(url)
        return self

    def lane(self, queue: str) -> TaskQueue:
        """Return the queue of another name in the same database, on the same connections.

        It has the same task functions, extensions, coders, retry policy and claims. Closing either closes both. Raises
        ValueError for an invalid name.
        """
        lane = copy.copy(self)
        lane.name = check_queue(queue)
        return lane

    def use(self, extension: Extension) -> None:
        """Add an extension to this queue and its lanes. Raises TypeError if it is not an ``Extension``."""
        self._handle.use(extension)

    def close(self) -> None:
        """Wake blocked fetches, and release reserved tasks that have not started. Running tasks stay held.

        A ``Worker`` that runs on this queue stops as by its ``stop``: its running tasks may finish first. In a signal
        handler that has interrupted a call of this queue, this returns immediately, and the rest is done soon.
        """
        self._handle.close()

    def disconnect(self) -> None:
        """Release reserved tasks and close the connections, for a program that may use the queue again later."""
        self._handle.disconnect()

    # -- shared by all lanes -----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The database's URL; of a queue that is not open, the URL that would be used now."""
        return self._handle.url

    @property
    def lease(self) -> float:
        """The time without a heartbeat, in seconds, after which workers on other machines take over."""
        return self._handle.lease

    @lease.setter
    def lease(self, lease: float | timedelta) -> None:
        self._handle.lease = check_lease(lease)

    @property
    def functions(self) -> Functions:
        """The task functions. Set it to a provider of your own to find them in another way."""
        return self._handle.functions

    @functions.setter
    def functions(self, functions: Functions) -> None:
        self._handle.functions = functions

    @property
    def extensions(self) -> list[Extension]:
        """The extensions, in the order in which they are called."""
        return self._handle.extensions

    @property
    def coders(self) -> Sequence[Coder]:
        """The coders, in the order in which they are asked."""
        return self._handle.coders

    @property
    def events(self) -> Events:
        """Where facts about tasks and workers are emitted."""
        return self._handle.events

    @property
    def is_open(self) -> bool:
        """Whether the database has been opened."""
        return self._handle.is_open

    @property
    def is_closed(self) -> bool:
        """Whether the queue has been closed."""
        return self._handle.is_closed

    @property
    def store(self) -> Store:
        """The database, for the other parts of this package. The first use opens it."""
        return self._handle.store

    @property
    def _membership(self) -> FetchMembership:
        return self._handle.membership

    def serving(self, stop: Callable[[], object]) -> AbstractContextManager[None]:
        """For a worker: during the block, ``close`` calls ``stop`` and leaves the database open.

        Raises TaskQueueError if the queue is closed.
        """
        return self._handle.serving(stop)

    # -- producing ---------------------------------------------------------------------------------

    @overload
    def enqueue(self, payload: TaskCall[R], **options: Unpack[Options]) -> Task[R]: ...

    @overload
    def enqueue(self, payload: Command | JSON = None, **options: Unpack[Options]) -> Task[Any]: ...

    def enqueue(
        self,
        payload: Target = None,
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
        after: AnyTask | Sequence[AnyTask] | None = None,
        when: When = "done",
        before: AnyTask | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> Task:
        """Store a task in this queue; it is durable when this returns.

        ``payload``: JSON values, a call that ``bind`` of a task function returned, or a ``Command``. For a call, the
        options of ``using`` win over those given here, and these win over those of ``@queue.task``.

        ``start_in`` (seconds or a timedelta) or ``start_at`` (an aware datetime): when the task is due, else now.
        ``priority``: from −32768 to 32767. Tasks run strictly in the order of priority (higher first), due time and id.
        ``retry``: the retry policy, by default this queue's. ``max_attempts`` overrides its number. ``key``: if an
        unfinished task of this queue has the same key, that task is returned, unchanged, and ``deduplicated`` is true.
        ``connection``: your own connection or session to the same database, in a transaction: of SQLAlchemy with any
        driver, of Django, sqlite3, psycopg, psycopg2 or PyMySQL. The task is part of the transaction, and exists if and
        only if you commit.

        Limits of each attempt, by default none: ``time_limit``, and ``stall_limit`` for the time without ``progress``,
        in seconds or timedeltas; ``memory_limit`` in bytes of all its processes. An attempt that exceeds a limit fails.
        A process is always stopped; a thread must check ``should_stop``, a coroutine must await, and their memory has
        no limit. ``meta``: a JSON object of at most 8 KiB beside the payload, for programs around the task's code.

        ``after``: the task's parents: at most 10,000 tasks or ids, of any queue of the database. The task is blocked
        until they have ended. ``when``: how they must end. "done": all are done. "ended": all have ended, in any state.
        "failed": all have ended, and at least one was abandoned or cancelled. If that can no longer happen, the task is
        cancelled. ``start_in`` counts from the end of the last parent. ``before``: a task that is blocked by parents.
        It also waits for this one.

        ``expires_in`` (seconds or a timedelta) or ``expires_at`` (an aware datetime): the task is abandoned if no
        attempt has started by then, or if the next attempt would start later. A running attempt is not affected.

        Raises TaskNotFound for a parent that does not exist, InvalidTransition if the task of ``before`` is not
        blocked, PayloadError, ValueError, and ConfigurationError for a connection of another kind, to another database,
        or in autocommit.
        """
        options: Options = {
            "start_in": start_in,
            "start_at": start_at,
            "priority": priority,
            "max_attempts": max_attempts,
            "retry": retry,
            "time_limit": time_limit,
            "stall_limit": stall_limit,
            "memory_limit": memory_limit,
            "connection": connection,
            "meta": meta,
            "key": key,
        }
        if (
            after is not None
            or before is not None
            or expires_in is not None
            or expires_at is not None
            or when != "done"
        ):
            options |= {
                "after": after,
                "when": when,
                "before": before,
                "expires_in": expires_in,
                "expires_at": expires_at,
            }
        return self._submit(batches_of([payload], options))[0]

    @overload
    def enqueue_many(
        self,
        payloads: Iterable[TaskCall[R]],
        *,
        keys: Iterable[str | None] | None = None,
        **options: Unpack[ManyOptions],
    ) -> list[Task[R]]: ...

    @overload
    def enqueue_many(
        self, payloads: Iterable[Target], *, keys: Iterable[str | None] | None = None, **options: Unpack[ManyOptions]
    ) -> list[Task[Any]]: ...

    def enqueue_many(
        self,
        payloads: Iterable[Target],
        *,
        keys: Iterable[str | None] | None = None,
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
        after: AnyTask | Sequence[AnyTask] | None = None,
        when: When = "done",
        before: AnyTask | None = None,
        expires_in: float | timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> list[Task]:
        """Store a task for each payload, call or ``Command`` in one transaction: all or none, in order.

        The options are those of ``enqueue``, and apply to all of them. ``keys``: a list with a key or None for each
        payload. A ``key`` that a call has from ``using`` takes precedence. Also raises ValueError if ``keys`` has a
        different length.
        """
        options: ManyOptions = {
            "start_in": start_in,
            "start_at": start_at,
            "priority": priority,
            "max_attempts": max_attempts,
            "retry": retry,
            "time_limit": time_limit,
            "stall_limit": stall_limit,
            "memory_limit": memory_limit,
            "connection": connection,
            "meta": meta,
        }
        if (
            after is not None
            or before is not None
            or expires_in is not None
            or expires_at is not None
            or when != "done"
        ):
            options |= {
                "after": after,
                "when": when,
                "before": before,
                "expires_in": expires_in,
                "expires_at": expires_at,
            }
        targets = list(payloads)
        return self._submit(batches_of(targets, options) if keys is None else batches_with_keys(targets, keys, options))

    def flow(self) -> Flow:
        """Return a flow, whose tasks are stored together at the end of its ``with`` block, or not at all.

        ``flow.add(target, **options)`` takes what ``enqueue`` takes. In the flow, the task that it returns can be used
        wherever a ``Task`` can: as an argument of a later call, and in ``after``::

            with queue.flow() as flow:
                page = flow.add(fetch.bind(url))
                flow.add(index.bind(page))
            page.task.id
        """
        self._handle.require_open()
        return Flow(self._submit_flow, _check_flow_options)

    def _submit_flow(self, targets: list[tuple[Any, Mapping[str, object]]]) -> list[Task]:
        return self._submit([batch for target, options in targets for batch in batches_of([target], options)])

    def enqueue_all(self, calls: list[Any]) -> list[Task]:
        """Store calls, each with its own options: for task functions."""
        return self._submit(batches_of(calls, {}))

    def enqueue_command(
        self,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> Task[dict[str, int]]:
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
        """Store payloads with the same options. ``function``: the name of the task function that they call, or None."""
        return self._submit([Batch(payloads, options, function, command)])

    def enqueue_by(self, actor: str | Actor, target: Target, options: Options) -> Task:
        """Store a task for an operator, as ``enqueue`` does, with a row in the audit log."""
        name = target.function if isinstance(target, TaskCall) else None
        action = new_action(actor, "enqueue", queue=self.name, function=name, key=options.get("key"))
        return self._submit(batches_of([target], options), action)[0]

    def _submit(self, batches: list[Batch], action: NewAction | None = None) -> list[Task]:
        """Store all batches or none. Every task is enqueued here."""
        handle = self._handle
        handle.require_open()
        if handle.extensions and (extensions := overriding(handle.extensions, "enqueue")):
            tasks = self._store_inside(extensions, batches, action)
        else:
            tasks = self._store(batches, action)
        if handle.on_enqueued is not None and tasks and not tasks[0]._in_transaction:
            handle.on_enqueued(tasks)
        return tasks

    def _store_inside(
        self, extensions: Sequence[Extension], batches: list[Batch], action: NewAction | None
    ) -> list[Task]:
        """Store batches inside of the extensions' ``enqueue``."""
        filled = [batch for batch in batches if batch.payloads]
        if not filled:
            return self._store(batches, action)
        queue: Any = filled[0].options.get("queue") or self.name
        new = NewTasksView(queue)
        with around_enqueue(extensions, new):
            new.tasks = tasks = self._store(batches, action)
        return tasks

    def _store(self, batches: list[Batch], action: NewAction | None) -> list[Task]:
        handle = self._handle
        now = clock.now()
        if len(batches) == 1:
            [batch] = batches
            groups = self._new_tasks(batch, 0, now, is_alone=len(batch.payloads) == 1)
            waits = self._waits_of(batch, groups, now, 0) if batch.arguments or _may_wait(batch.options) else ()
            connection = batch.options.get("connection")
        else:
            groups, waits, first = [], [], 0
            for batch in batches:
                new = self._new_tasks(batch, first, now)
                waits += self._waits_of(batch, new, now, first)
                groups += new
                first += len(batch.payloads)
            connection = _connection_of(batches)
        if not any(waits):
            waits = []
        if not groups:
            return []
        store = handle.store
        ids, existing, blocked, ended, refusal = store.enqueue(groups, connection, waits, action)
        if refusal is not None:
            raise _refused(refusal)
        store.wakeups.ring()
        if handle.events.wants(TasksEnqueued):
            handle.events.emit(_enqueued(ids, existing, groups))
        tasks = groups[0] if len(groups) == 1 else itertools.chain.from_iterable(groups)
        found = [Task(store, record) for record in map(fresh, ids, tasks)]
        for index in existing:
            found[index] = self._existing(ids[index], connection)
        for index in blocked:
            found[index] = Task(store, found[index]._record._replace(blocked=BY_PARENTS, flow=HAS_PARENTS))
        for index in ended:
            found[index] = self._read_again(ids[index], connection)
        first = 0
        for batch in batches:
            last = first + len(batch.payloads)
            if batch.coding is not None and batch.function is not None:
                for task in found[first:last]:
                    task.read_with(batch.function, batch.coding)
            first = last
        return enqueued_with(connection, found)

    def _new_tasks(self, batch: Batch, first: int, now: int, *, is_alone: bool = False) -> list[list[NewTask]]:
        """Return the tasks of a batch, in groups that differ in their payloads only.

        ``first``: the position of its first payload among those of the call. ``is_alone``: there is no other payload.
        """
        handle = self._handle
        columns = to_columns(batch.options, self.name, self.retry_policy, now)
        shared, limit = (*columns, now, batch.function, int(batch.is_command)), handle.store.max_payload
        try:
            if is_alone:
                tasks = [_new_task((*shared, payload.encode(batch.payloads[0], limit=limit)))]
            else:
                like = _new_task((*shared, ""))
                before, after = like[:_PAYLOAD], like[_PAYLOAD + 1 :]
                tasks = [
                    _as_new_task((*before, payload.encode(value, limit=limit, name=f"payloads[{index}]"), *after))
                    for index, value in enumerate(batch.payloads, first)
                ]
        except PayloadError as error:
            raise self._explained(error, batch.function, batch.payloads) from None
        if handle.extensions and (extensions := overriding(handle.extensions, "enqueuing")):
            return self._extended(tasks, batch, extensions)
        return [tasks] if tasks else []

    def _explained(self, error: PayloadError, function: str | None, payloads: list[JSON]) -> PayloadError:
        """Return the error for payloads that cannot be stored. If an annotation needs a coder, it says so."""
        if function is None:
            return error
        return explained_calls(error, self.functions.find(function), function, bool(self._handle.coders), payloads)

    @contextlib.contextmanager
    def _explaining(self, target: Target) -> Iterator[None]:
        """Let the block raise the explained error for a target that cannot be stored."""
        try:
            yield
        except PayloadError as error:
            if isinstance(target, TaskCall):
                raise self._explained(error, target.function, [target.payload]) from None
            raise

    def _extended(self, tasks: list[NewTask], batch: Batch, extensions: Sequence[Extension]) -> list[list[NewTask]]:
        """Let extensions add to the ``meta`` of a batch's tasks."""
        extended = []
        for task, value in zip(tasks, batch.payloads, strict=True):
            meta: dict[str, JSON] = dict(batch.options.get("meta") or {})  # type: ignore[call-overload]
            new = NewTaskView(task.queue, task.function, value, meta)
            notify_enqueuing(extensions, new)
            extended.append(task._replace(meta=encode_meta(new.meta) if new.meta else None))
        return [list(group) for _, group in itertools.groupby(extended, key=attrgetter("meta"))]

    def _waits_of(self, batch: Batch, groups: Sequence[Sequence[NewTask]], now: int, first: int) -> list[Waits | None]:
        """Return what the tasks of each group of a batch wait for. ``first``: as in ``_new_tasks``."""
        if not groups or not (batch.arguments or _may_wait(batch.options)):
            return [None] * len(groups)
        options = checked_waits(batch.options)
        waits = to_waits(options, batch.arguments, self._handle.store.url, now, groups[0][0].due, first)
        return [waits] * len(groups)

    def _read_again(self, id: int, connection: object) -> Task:
        """Return a new task that has ended already."""
        with after_a_change():
            return Task(self.store, look_up(self.store, id, connection))

    def _existing(self, id: int, connection: object) -> Task:
        """Return the unfinished task that has the key of a new one."""
        with after_a_change():
            return Task(self.store, look_up(self.store, id, connection), deduplicated=True)

    # -- consuming ---------------------------------------------------------------------------------

    def fetch(self, max_items: int = 1, *, timeout: float | timedelta | None = None) -> list[Task]:
        """Reserve up to ``max_items`` due tasks, in order, and block until there is at least one.

        Returns ``[]`` only after ``timeout`` (seconds or a timedelta), or when the queue was closed. Also rescues the
        tasks of dead workers, and never claims command lines. If interrupted, it leaves nothing reserved. Raises
        ValueError if ``max_items`` is below 1.
        """
        check_count(max_items, "max_items")
        deadline = clock.deadline_of(timeout)
        return self._fetch(max_items, deadline, self._handle.closing())

    def _fetch(self, max_items: int, deadline: float | None, is_closed: Callable[[], bool]) -> list[Task]:
        """Fetch tasks until a time of the monotonic clock, or until the database is closed: see ``Handle.closing``."""
        while not is_closed():
            membership = self._membership
            tasks = membership.claim([self.name], max_items, partial(self._hold, membership))
            if is_closed():
                membership.leave()  # the queue may have been closed before the claim
                break
            if tasks:
                return tasks
            if membership.maintain():
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._wait_until_due(membership.store, left, is_closed)
        return []

    @staticmethod
    def _hold(membership: FetchMembership, record: TaskRecord) -> Task:
        return Task(membership.store, record, membership)

    def _wait_until_due(self, store: Store, left: float | None, is_closed: Callable[[], bool]) -> None:
        """Sleep until a task may be due. Takes no write lock, however often the database changes meanwhile."""
        deadline = time.monotonic() + (_LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT))
        queues = ServedQueues(store, [self.name])
        while not is_closed():
            left = deadline - time.monotonic()
            if wait_until_due(store, queues, left, commands=False) or left <= 0:  # commands are for workers
                return

    next = fetch

    def __iter__(self) -> Iterator[Task]:
        """Yield reserved tasks one by one until the queue is closed."""
        is_closed = self._handle.closing()
        while tasks := self._fetch(1, None, is_closed):
            yield tasks.pop()

    # -- inspecting and operating ------------------------------------------------------------------

    def get(self, id: int, *, connection: object = None) -> Task:
        """Return the task with this id, of any queue in the database. Raises TaskNotFound.

        ``connection``: as for ``enqueue``. Its transaction sees the tasks that it has enqueued itself.
        """
        self._handle.require_open()
        return Task(self.store, look_up(self.store, id, connection))

    def cancel(self, id: int, *, running: bool = True, actor: str | Actor | None = None) -> bool:
        """Cancel a task of any queue, as ``Task.cancel`` does. Raises TaskNotFound and InvalidTransition.

        ``actor``, here and in other methods: the name of who does this. It is stored in the audit log with what was
        done or refused, in the same transaction. Without it, nothing is added to the log.
        """
        self._handle.require_open()
        return cancel(self.store, id, running=running, action=new_action(actor, "cancel", task=id))

    def wait_all(self, tasks: Iterable[Task[R]], timeout: float | timedelta | None = None) -> list[Task[R]]:
        """Wait until all these tasks are done, abandoned or cancelled, and return them in the same order.

        It takes one query for each change of the database, however many tasks there are. Raises TimeoutError after
        ``timeout`` (seconds or a timedelta), and TaskNotFound if one of the tasks is pruned.
        """
        self._handle.require_open()
        return wait_all(tasks, timeout)

    def retry(self, id: int, *, actor: str | Actor | None = None) -> Task:
        """Run a failed, abandoned, cancelled or done task again: due now, with its original number of attempts.

        Raises TaskNotFound, and InvalidTransition from another state or while another unfinished task has its key.
        """
        self._handle.require_open()
        verdict = self.store.retry(check_id(id), clock.now(), new_action(actor, "retry", task=id))
        if not verdict.stored:
            if verdict.why == KEY_IS_TAKEN:
                key = look_up(self.store, id).key
                raise InvalidTransition(f"retry: another unfinished task has the key {key!r} of task {id}")
            raise _refused_verb("retry", self.store, id, verdict)
        self.store.wakeups.ring()
        with after_a_change():
            return self.get(id)

    def why(self, id: int) -> list[Reason]:
        """Return all reasons why a task of any queue does not run now. Raises TaskNotFound.

        The list is empty for a task that is reserved, is running or has ended, and for one that a worker can start now.
        This reads only a limited number of rows, and changes nothing.
        """
        self._handle.require_open()
        return why(self.store, look_up(self.store, id))

    def suspend(self, id: int, *, actor: str | Actor | None = None) -> None:
        """Pause all processes of a running task within 2 s, until ``continue_``.

        A task is not paused in the middle of a transaction of this library. The worker keeps the claim, and the task
        keeps its slot and its memory; limits do not count. Cancelling the task ends it. The suspension ends with the
        claim: if the worker stops or dies, the next worker runs the task.

        Raises TaskNotFound, and InvalidTransition unless the task runs in a child process.
        """
        self._suspend(id, True, actor)

    def continue_(self, id: int, *, actor: str | Actor | None = None) -> None:
        """Resume a suspended task within 2 s. Does nothing to a running one. Raises what ``suspend`` raises."""
        self._suspend(id, False, actor)

    def _suspend(self, id: int, suspended: bool, actor: str | Actor | None) -> None:
        self._handle.require_open()
        verb = "suspend" if suspended else "continue"
        verdict = self.store.suspend(check_id(id), suspended, new_action(actor, verb, task=id))
        if not verdict.stored:
            before = look_up(self.store, id)
            raise InvalidTransition(f"{verb}: task {id} {self._why_not_suspended(verdict, before.worker)}")

    def reschedule(
        self,
        id: int,
        *,
        start_in: float | timedelta | None = None,
        start_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        actor: str | Actor | None = None,
    ) -> Task:
        """Change when a pending or failed task of any queue is due, its priority, or its queue.

        ``start_in`` (seconds or a timedelta) or ``start_at`` (an aware datetime): a blocked task is due then, or once
        its parents have ended if that is later. A failed task stays failed until its next attempt. What is not given
        stays. Raises TaskNotFound, ValueError, and InvalidTransition from another state, or if another unfinished task
        of the new queue has its key.
        """
        self._handle.require_open()
        now = clock.now()
        change = to_change(start_in, start_at, priority, queue, now)
        action = new_action(
            actor, "reschedule", task=id, start_at=_iso(change.due), priority=priority, to_queue=change.queue
        )
        verdict = self.store.reschedule(check_id(id), change, now, action)
        if not verdict.stored:
            raise _refused_verb("reschedule", self.store, id, verdict)
        self.store.wakeups.ring()
        with after_a_change():
            return self.get(id)

    def delete(self, id: int, *, actor: str | Actor | None = None) -> None:
        """Delete a done, cancelled or abandoned task of any queue, with its attempts, output and result.

        Raises TaskNotFound, and InvalidTransition from another state, or while an unfinished task waits for it or may
        read its result.
        """
        self._handle.require_open()
        verdict = self.store.delete(check_id(id), new_action(actor, "delete", task=id))
        if not verdict.stored:
            raise _refused_verb("delete", self.store, id, verdict)

    # -- many tasks --------------------------------------------------------------------------------

    def cancel_many(
        self,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Cancel every task that matches the filters of ``find``; of a running one, request the cancellation.

        Each task is cancelled as by ``cancel``, in transactions of at most 500 tasks, so that a refused task does not
        stop the others. Tasks that are enqueued after the call are left alone, and times are relative to the call.
        While workers are alive, it rests between the steps. With the filter ``state``, a task that was pending and has
        started since it was found is not interrupted: it has left the states of the filter, and is refused.

        ``dry_run``: change nothing, and return what would be done. ``progress``: called after each step with the
        number of tasks that were tried and the number that match. ``actor``: as in ``cancel``; each step has a row in
        the audit log. ``all_queues``: tasks of all queues, not only of this one.

        Returns the number of changed tasks, and of refused ones by reason. Raises ValueError for invalid filters, and
        if there are none.
        """
        return self._bulk("cancel", filters, dry_run, progress, actor, all_queues)

    def retry_many(
        self,
        *,
        spread: float | timedelta = 0,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Retry every task that matches the filters, as ``cancel_many`` cancels them.

        ``spread``: seconds or a timedelta over which the tasks become due, so that they do not all start now.
        """
        return self._bulk("retry", filters, dry_run, progress, actor, all_queues, spread=to_spread(spread))

    def reschedule_many(
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
        """Reschedule every task that matches the filters, as ``cancel_many`` cancels them.

        ``start_in``, ``start_at``: as in ``reschedule``. ``to_priority`` and ``to_queue`` are the new ones, since
        ``priority`` and ``queue`` are filters.
        """
        change = to_change(start_in, start_at, to_priority, to_queue, clock.now())
        return self._bulk("reschedule", filters, dry_run, progress, actor, all_queues, change=change)

    def delete_many(
        self,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        actor: str | Actor | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Bulk:
        """Delete every final task that matches the filters, as ``cancel_many`` cancels them."""
        return self._bulk("delete", filters, dry_run, progress, actor, all_queues)

    def _bulk(
        self,
        verb: BulkVerb,
        given: Mapping[str, Any],
        dry_run: bool,
        progress: Progress | None,
        actor: str | Actor | None,
        all_queues: bool,
        *,
        change: Change = NO_CHANGE,
        spread: int = 0,
    ) -> Bulk:
        self._handle.require_open()
        if not parse(given, clock.now()):
            raise ValueError(f"{verb}_many needs at least one filter; without one it would mean every task")
        filters = check_filters(given, self.name, all_queues=all_queues)
        names = filters.texts("queue")
        action = new_action(actor, verb, queue=names[0] if len(names) == 1 else None, where=filters.where())
        return carry_out(
            self.store,
            verb,
            filters,
            change=change,
            spread=spread,
            action=action,
            dry_run=dry_run,
            progress=progress,
            arguments=self._arguments(),
        )

    def audit(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        who: str | None = None,
        verb: str | None = None,
        queue: str | None = None,
        task: int | None = None,
    ) -> list[Action]:
        """Return the latest actions of operators on the whole database, newest first.

        ``before``: return only actions with lower ids, for the next page. The others select actions by exact values.
        Raises ValueError.
        """
        self._handle.require_open()
        return actions(self.store, limit=limit, before=before, who=who, verb=verb, queue=queue, task=task)

    def _why_not_suspended(self, verdict: Verdict, holder: int | None) -> str:
        if verdict.state != RUNNING:
            return f"is {verdict.state or 'pruned'}; only a running task can be suspended"
        found = [worker for worker in self.store.workers() if worker.id == holder and worker.lost_at is None]
        if not found:
            return "is held by a lost worker"
        if found[0].executor is None:
            return "was fetched by a program; only a task in a child process of a worker can be suspended"
        ways = {"thread": "in threads", "asyncio": "with asyncio"}
        return (
            f"cannot be suspended: its worker runs tasks {ways.get(found[0].executor, found[0].executor)};"
            " only a task in a child process can"
        )

    def tasks(
        self, *, state: TaskState | StateName | None = None, limit: int = 100, before: int | None = None
    ) -> list[Task]:
        """Return this queue's tasks, newest first: at most ``limit``, all or those in one ``state``.

        ``before``: return only tasks with lower ids, for the next page. Raises ValueError.
        """
        self._handle.require_open()
        if not is_count(limit):
            raise ValueError(f"limit must be a whole number of at least 1, not {shown(limit)}")
        if before is not None and (not isinstance(before, int) or isinstance(before, bool)):
            raise ValueError(f"before must be a task's id, not {shown(before)}")
        wanted = None if state is None else check_state(state)
        bound = None if before is None else max(0, min(before, 2**63 - 1))
        records = self.store.tasks(self.name, wanted, min(limit, MOST), bound)
        return [Task(self.store, record) for record in records]

    def find(
        self,
        *,
        sort: SortName = "newest",
        limit: int = 100,
        cursor: str | None = None,
        all_queues: bool = False,
        **filters: Any,
    ) -> Found:
        """Return tasks of this queue, or with ``all_queues`` of any, that match all filters: at most ``limit``.

        The documentation lists the filters. A list is a choice: ``state=["failed", "abandoned"]``. ``sort``: newest,
        line (the order of a claim), longest (running tasks), due or ended. ``cursor``: the ``next`` of the page before,
        to continue it. Raises ValueError for an unknown filter and an invalid value.
        """
        self._handle.require_open()
        checked = check_filters(filters, self.name, all_queues=all_queues)
        return find_tasks(self.store, checked, sort=sort, limit=limit, cursor=cursor, arguments=self._arguments())

    def _arguments(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the positional arguments of the task functions that this program has registered."""
        return self.functions.arguments() if isinstance(self.functions, Registry) else {}

    def stats(self) -> QueueStats:
        """Count the tasks in each state, and more: see ``QueueStats``."""
        self._handle.require_open()
        return queue_stats(self.store, self.name, self._counts)

    def function_stats(self) -> list[FunctionStats]:
        """Return statistics of each task function, by name, over this queue's newest 10,000 ended attempts."""
        self._handle.require_open()
        return summarize(self.store.ended(self.name, LATEST))

    def history(
        self,
        function: str | None = None,
        *,
        since: float | timedelta | str = "24h",
        step: float | timedelta | str = "10m",
    ) -> list[HistoryPoint]:
        """Return what the attempts of this queue did, as a point for each ``step`` from ``since`` ago until now.

        ``function``: only of this task function, as ``function_stats`` names it. ``since`` and ``step``: seconds, a
        timedelta or text such as "10m". Points start at multiples of ``step`` since 1970 in UTC. An attempt counts in
        the step in which it has ended, within 10 s after that. Counts are by the minute for at least 6 hours, then by
        10 minutes for 7 days, by the hour for 30 days and by the day for 400 days.

        Raises ValueError for an invalid duration, and for more than 10,000 points.
        """
        self._handle.require_open()
        self._handle.store_history()
        return history(self.store, self.name, function, since, step)

    def retention(self) -> Retention:
        """Return what is pruned in this queue in the background. By default, everything is kept."""
        self._handle.require_open()
        return retention_of(self.store, self.name)

    def set_retention(
        self,
        *,
        done: float | timedelta | None = None,
        cancelled: float | timedelta | None = None,
        abandoned: float | timedelta | None = None,
        most: int | None = None,
        actor: str | Actor | None = None,
    ) -> None:
        """Store what is pruned in this queue in the background, each minute, by any worker of the database.

        ``done``, ``cancelled`` and ``abandoned``: seconds or a timedelta; tasks in that state are deleted when they
        ended longer ago. ``most``: the oldest final tasks are deleted if there are more. With None, the default, there
        is no such limit. Unfinished tasks are never deleted, nor those that unfinished children wait for. ``actor``: as
        in ``cancel``.

        Raises ValueError for an invalid limit.
        """
        self._handle.require_open()
        ages = {"done": done, "cancelled": cancelled, "abandoned": abandoned}
        detail: dict[str, Any] = {name: str(age) for name, age in ages.items() if age is not None}
        action = new_action(actor, "retention", queue=self.name, **detail, most=most)
        store_retention(self.store, self.name, **ages, most=most, action=action)

    def workers(self) -> list[WorkerInfo]:
        """Return the live workers of the whole database, and those lost within the last day."""
        self._handle.require_open()
        return worker_infos(self.store)

    def queues(self) -> list[QueueInfo]:
        """Return all queues of the database that have tasks or schedules or are paused, by name."""
        self._handle.require_open()
        return queue_infos(self.store, self._counts)

    def pause(self, *, actor: str | Actor | None = None) -> None:
        """Stop handing out tasks of this queue. Reserved and running tasks continue."""
        self._handle.require_open()
        self.store.set_paused(self.name, True, new_action(actor, "pause", queue=self.name))

    def resume(self, *, actor: str | Actor | None = None) -> None:
        """Hand out tasks of this queue again."""
        self._handle.require_open()
        self.store.set_paused(self.name, False, new_action(actor, "resume", queue=self.name))
        self.store.wakeups.ring()

    def purge(self, *, actor: str | Actor | None = None) -> int:
        """Mark every unfinished task of this queue abandoned, including running ones, and return their number."""
        return sum(self.purge_in_steps(actor=actor))

    def purge_in_steps(self, *, actor: str | Actor | None = None) -> Iterator[int]:
        """Purge the queue step by step, and yield how many tasks each step abandoned, to show progress."""
        self._handle.require_open()
        return self.store.purge(self.name, clock.now(), new_action(actor, "purge", queue=self.name))

    def prune(
        self,
        older_than: float | timedelta,
        *,
        states: Iterable[TaskState | StateName] = ("done", "cancelled"),
        actor: str | Actor | None = None,
    ) -> int:
        """Delete this queue's tasks in these final states that ended longer ago, and return their number.

        ``older_than``: seconds or a timedelta. Raises ValueError for a state that is not final.
        """
        return sum(self.prune_in_steps(older_than, states, actor=actor))

    def prune_in_steps(
        self, older_than: float | timedelta, states: Iterable[TaskState | str], *, actor: str | Actor | None = None
    ) -> Iterator[int]:
        """Prune the queue step by step, and yield how many tasks each step deleted, to show progress."""
        self._handle.require_open()
        if isinstance(states, str):
            raise ValueError(f"states must be a collection of states, not {shown(states)}")
        wanted = {check_state(state) for state in states}
        if not wanted <= FINAL:
            raise ValueError(f"only final tasks can be pruned, not {', '.join(sorted(wanted - FINAL))}")
        now = clock.now()
        age = clock.after(0, older_than, "older_than")
        action = new_action(actor, "prune", queue=self.name, older_than=age / 1e6, states=sorted(wanted))
        return self.store.prune(self.name, now - age + (age == 0), wanted, action)

    # -- schedules ---------------------------------------------------------------------------------

    def schedule(
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
        """Store a schedule, which enqueues ``target`` at each tick, or change the one with this name in this queue.

        ``target``: what ``enqueue`` takes. Each tick makes at most one task. Any worker of the database makes it,
        whichever queues it serves. ``cron``: five fields, six with seconds first, or a name such as ``@daily``, read in
        ``timezone``. ``every``: seconds or a timedelta, at least 1 s; ticks are multiples of it since 1970.

        - ``overlap``: what a tick does if the previous task is unfinished. "skip" makes no task, and "allow" makes one
          anyway. With "queue", the new task waits until the previous one has ended; a task that already waits takes the
          newer tick instead. "replace" cancels the previous task, and the new one waits until it has ended.
        - ``catch_up``: which ticks are made after an outage. "latest": the newest. "all": the newest 1,000 that are not
          older than ``window`` (seconds or a timedelta). "none": the newest, and only if it is at most 60 s old. The
          others count as missed. ``overlap`` applies to each tick that is made.
        - ``jitter``: the tasks are due later than their ticks by a fixed time below ``jitter`` (seconds or a
          timedelta). The schedule's name determines that time.

        The same call again changes nothing. A change of ``cron``, ``every`` or ``timezone`` moves the next tick to the
        first one after now. A paused schedule stays paused.

        Raises TypeError unless exactly one of ``cron`` and ``every`` is given, PayloadError, and ValueError: for a
        cron expression that is invalid or never fires, an unknown time zone, a task among the arguments, and the
        options ``after``, ``before``, ``start_at``, ``expires_at`` and ``connection`` of a call.
        """
        times = check_times(cron, every, timezone, overlap, catch_up, window, jitter)
        check_name(name)
        self._handle.require_open()
        with self._explaining(target):
            stored = to_target(target, self.name, self.retry_policy, limit=self.store.max_payload)
        return store_schedule(self.store, to_record(self.name, name, stored, times, declared=False))

    def unschedule(self, name: str, *, actor: str | Actor | None = None) -> None:
        """Remove a schedule of this queue. Its tasks stay. Raises LookupError if there is none with this name."""
        self._handle.require_open()
        action = new_action(actor, "unschedule", queue=self.name, schedule=name)
        if not self.store.remove_schedule(self.name, name, action):
            raise UnknownSchedule(self.name, name, self.store.schedules())

    def schedules(self) -> list[Schedule]:
        """Return the schedules of this queue, by name."""
        self._handle.require_open()
        return [as_schedule(record) for record in self.store.schedules(self.name)]

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
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]:
        """Declare a schedule that calls a function, which becomes a task function: ``@queue.periodic(cron=…)``.

        It is stored when a ``Worker`` that serves this queue starts, or by ``dbtaskqueue schedules sync``. Above
        ``@queue.task``, the options of that decorator apply to its tasks. It can be repeated with different names.
        ``name``: by default that of the task function. ``args`` and ``kwargs``: the arguments of the call. The other
        options, and the exceptions, are those of ``schedule``.
        """
        times = check_times(cron, every, timezone, overlap, catch_up, window, jitter)

        def declare(function: Callable[P, R]) -> TaskFunction[P, R]:
            registered = self._as_task_function(function)
            call = registered.bind(*args, **(kwargs or {}))
            chosen = check_name(registered.name if name is None else name)
            with self._explaining(call):
                to_target(call, self.name, self.retry_policy)
            declaration = Declaration(self.name, chosen, registered, call, times, self.retry_policy)
            self._handle.declare(declaration)
            return registered

        return declare

    def _as_task_function(self, function: Callable[P, R]) -> TaskFunction[P, R]:
        """Return a function as a task function of this queue; register it unless it is one."""
        if isinstance(function, TaskFunction):
            known = self.functions.find(function.name)
            if isinstance(known, TaskFunction) and known.__wrapped__ is function.__wrapped__:  # type: ignore[attr-defined]
                return function
        return self.task(function)

    def store_declarations(self, serves: Iterable[str] | None = None) -> list[str]:
        """Store the schedules that ``periodic`` has declared in these queues, or in all; return their names.

        For a worker that starts. Raises PayloadError, StoreUnavailable.
        """
        return self._handle.store_declarations(serves)

    # -- Dancer::Plugin::Queue -----------------------------------------------------------------------

    def add_msg(self, data: JSON) -> Task:
        """Enqueue a task. Dancer::Plugin::Queue calls ``enqueue`` by this name."""
        return self.enqueue(data)

    def get_msg(self, timeout: float | timedelta | None = 0) -> tuple[Task, JSON] | tuple[None, None]:
        """Reserve one task and return it with its payload, or (None, None) if none is due within ``timeout``.

        ``timeout``: seconds or a timedelta. Raises PayloadError for a payload that cannot be read, after it has failed
        that attempt.
        """
        tasks = self.fetch(timeout=timeout)
        if not tasks:
            return None, None
        [task] = tasks
        try:
            return task, task.payload
        except PayloadError as error:
            if task.start():
                task.fail(error)  # otherwise the next call would return it again
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

        ``backoff(error, attempt)``: called when an attempt fails, with its exception and number, in place of the retry
        policy. It returns the seconds until the next attempt, or None to abandon the task. It is not stored.

        A function may be registered in several queues: ``@mail.task`` above ``@reports.task`` returns a task function
        that enqueues into ``mail``, with the options of ``@mail.task``. Workers of both queues know the function.
        """

        def register(function: Callable[P, R]) -> TaskFunction[P, R]:
            if not isinstance(self.functions, Registry):
                raise TypeError("the functions of this TaskQueue come from a provider: register them there")
            return self.functions.register(self, function, options)

        if function is not None and not callable(function):
            raise TypeError(f"@queue.task takes only a function without a keyword: write task(name={shown(function)})")
        return register if function is None else register(function)


def _refused_verb(verb: str, store: Store, id: int, verdict: Verdict) -> Exception:
    """Return the error for a verb that was refused."""
    if verdict.state is None:
        look_up(store, id)
    state = f"task {id} is {verdict.state or 'pruned'}"
    return InvalidTransition(f"{verb}: {state}" + (f": {verdict.why}" if verdict.why else ""))


def _iso(time: int | None) -> str | None:
    found = clock.to_datetime(time)
    return None if found is None else found.isoformat()


def check_state(state: TaskState | str) -> TaskState:
    """Return the TaskState of a word. Raises ValueError, which lists the known states."""
    try:
        return TaskState(state)
    except ValueError:
        raise ValueError(f"{shown(state)} is not a state; the states are {', '.join(TaskState)}") from None


_PAYLOAD = NewTask._fields.index("payload")
_as_new_task = partial(tuple.__new__, NewTask)
_new_task = maker(NewTask, (*Columns._fields, "created_at", "function", "command", "payload"), NewTask._field_defaults)


def _may_wait(options: Mapping[str, object]) -> bool:
    return "after" in options or "before" in options or "when" in options


def _check_flow_options(options: Mapping[str, object]) -> None:
    refuse_unknown(options, Options, "add")
    check_options(options, Options)


def _refused(refusal: Refusal) -> Exception:
    """Return the error for tasks that were not stored."""
    if refusal.why == "missing":
        return TaskNotFound(f"after: there is no task {refusal.task}")
    if refusal.why == "full":
        return ValueError(f"before: task {refusal.task} would have more than {MAX_PARENTS:,} parents")
    return InvalidTransition(f"before: task {refusal.task} is not blocked by parents")


def _enqueued(ids: Sequence[int], existing: Set[int], groups: Iterable[Iterable[NewTask]]) -> TasksEnqueued:
    """Return the fact that these tasks were stored, without those that existed already."""
    tasks = zip(ids, itertools.chain.from_iterable(groups), strict=True)
    new = [pair for index, pair in enumerate(tasks) if index not in existing]
    return TasksEnqueued([id for id, _ in new], [task for _, task in new])


def _connection_of(batches: Sequence[Batch]) -> object:
    """Return the connection of all batches. Raises ValueError if they name different ones."""
    connections = {
        identity_of(found): found for batch in batches if (found := batch.options.get("connection")) is not None
    }
    if len(connections) > 1:
        raise ValueError("the calls name different connections; all tasks are stored in one transaction")
    return next(iter(connections.values()), None)

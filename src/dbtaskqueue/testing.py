"""Testing programs that use a queue: run its tasks in the test, and check what was enqueued.

Nothing is mocked. The queue is a real one, usually in a temporary SQLite file. The module needs no test framework; the
fixtures for pytest are in ``pytest_dbtaskqueue``.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from . import outcomes
from ._executors.lookup import Lookup
from ._executors.runner import Runner
from ._executors.task_run import TaskRun
from ._formats.payload import JSON
from ._store.contract import End
from ._worker.held import FetchMembership
from .calls import TaskCall
from .checkpoints import StoredCheckpoints
from .checks import counted, is_count, shown
from .errors import AbandonTask, LeaseLost, ReleaseTask, RetryTask, TaskNotFound, TaskQueueError
from .extension import notify_ended, overriding
from .functions import TaskFunction
from .queue import TaskQueue
from .states import FAILED, PENDING
from .task import EndedTask, Task

if TYPE_CHECKING:
    from .aio import AsyncTaskQueue

_MOST = 10_000
"""The most attempts that ``run_tasks`` runs without ``limit``."""
_LISTED = 20
"""The most tasks that the message of ``assert_enqueued`` lists."""
_WIDTH = 200
"""The most characters of a payload in that message."""
_CHOICES = RetryTask, AbandonTask, ReleaseTask
_URL = "DBTASKQUEUE_URL"


AnyFunction = str | TaskFunction[Any, Any] | TaskCall[Any] | Callable[..., Any]
"""A task function, its name, or a call that its ``bind`` returned."""


# -- running tasks ---------------------------------------------------------------------------------


def run_tasks(
    queue: TaskQueue | AsyncTaskQueue, *, limit: int | None = None, due: bool = True, raises: bool = True
) -> list[Task]:
    """Run the due tasks of a queue in this thread, in their order, and return them.

    The result has a ``Task`` for each attempt, as it was when that attempt ended. Tasks that these tasks enqueue into
    the queue run, too. Each attempt is stored as a worker would store it.

    - ``limit``: the most attempts to run.
    - ``due``: with False, tasks and retries that are due later also run, the earliest first.
    - ``raises``: raise the first exception of a task, after its attempt is stored as failed. With False, all tasks run.
      RetryTask, AbandonTask and ReleaseTask are never raised, because the task has chosen its outcome.

    Extensions are entered as in a worker, except for ``Extension.worker``. Raises ValueError for an invalid ``limit``,
    and TaskQueueError after 10,000 attempts without one.
    """
    if limit is not None and not is_count(limit):
        raise ValueError(f"limit must be a whole number of at least 1, not {shown(limit)}")
    ran: list[Task] = []
    with _Inline(_sync(queue)) as inline:
        while limit is None or len(ran) < limit:
            if limit is None and len(ran) == _MOST:
                raise TaskQueueError(
                    f"run_tasks has run {_MOST:,} attempts; does {ran[-1]} run again and again? If so, pass limit="
                )
            task = inline.next(due=due)
            if task is None:
                break
            error = inline.run(task)
            ran.append(task)
            if error is not None and (raises or not isinstance(error, Exception | SystemExit)):
                raise error
    return ran


_changing = threading.Condition()
"""For threads that run tasks at the same time, as the coroutines of an ``AsyncTaskQueue`` do with ``inline``."""
_threads: dict[FetchMembership, int] = {}
"""How many threads run tasks as a member. The last one leaves."""
_running: set[tuple[FetchMembership, int]] = set()
"""The tasks that they run."""


class _Inline:
    """Runs tasks of a queue in the calling thread. A context manager, in which the process is a worker."""

    def __init__(self, queue: TaskQueue) -> None:
        queue._handle.require_open()
        self._queue = queue
        self._extensions = overriding(queue.extensions, "ended")
        self._runner = Runner(
            Lookup(None, queue.functions, queue.extensions, queue, queue.coders),
            max_payload=queue.store.max_payload,
            checkpoints=partial(StoredCheckpoints, queue.store),
            is_draining=lambda: False,
        )
        self._membership = queue._membership
        self._is_guest = False

    def __enter__(self) -> Self:
        with _changing:
            threads = _threads.get(self._membership, 0)
            self._is_guest = not threads and self._membership.id is not None  # the test has fetched tasks itself
            if not self._is_guest:
                _threads[self._membership] = threads + 1
        self._runner.process.enter()
        return self

    def __exit__(self, *raised: object) -> None:
        self._runner.process.leave()
        if self._is_guest:
            return
        with _changing:
            _threads[self._membership] -= 1
            if not _threads[self._membership]:
                del _threads[self._membership]
                self._membership.leave()

    def next(self, *, due: bool) -> Task | None:
        """Reserve and start the next task, or return None if there is none."""
        with _changing:
            while True:
                tasks = self._queue.fetch(timeout=0)
                if not tasks and not due and self._make_due():
                    tasks = self._queue.fetch(timeout=0)
                if not tasks:
                    return None
                if tasks[0].start():
                    _running.add((self._membership, tasks[0].id))
                    return tasks[0]

    def _make_due(self) -> bool:
        """Make the task due that would be due next. Return False if there is none."""
        waiting = self._queue.find(state=[PENDING, FAILED], command=False, sort="due", limit=1).tasks  # none is blocked
        for task in waiting:
            self._queue.reschedule(task.id, start_in=0)
        return bool(waiting)

    def run(self, task: Task) -> BaseException | None:
        """Run a task that has started, and store its end. Return the exception that failed it, if any."""
        try:
            run = TaskRun(task._claim, start_stored=True)
            self._execute(run)
            with contextlib.suppress(LeaseLost):
                self._end(task, run)
        finally:
            with _changing:
                _running.discard((self._membership, task.id))
                _changing.notify_all()
        with contextlib.suppress(TaskNotFound):
            task.refresh()
        error = run.error
        outcome = "released" if task.state == PENDING else str(task.state)
        ended = EndedTask(self._queue.store, task._record, run.seconds)
        notify_ended(self._extensions, ended, outcome, error if outcome in ("failed", "abandoned") else None)
        return None if isinstance(error, _CHOICES) or outcome == "cancelled" else error

    def _execute(self, run: TaskRun) -> None:
        if _has_running_loop() and self._runner.is_async(run):  # which needs a loop, and a thread has only one
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=[self._runner.execute, run], name="dbtaskqueue-task")
            thread.start()
            thread.join()
        else:
            self._runner.execute(run)

    def _end(self, task: Task, run: TaskRun) -> None:
        if notes := run.notes():
            self._membership.exchange(notes=notes)
        if run.has_ended:
            self._membership.end(run.record, outcomes.finish(run.record, None, run.ended_at))
        else:
            task._end(_end_of(run))


def _end_of(run: TaskRun) -> End:
    if run.error is None:
        return outcomes.finish(run.record, run.result, run.ended_at)
    if isinstance(run.error, KeyboardInterrupt):
        return outcomes.release(run.record)
    chosen = outcomes.chosen_end(run.record, run.error)
    return chosen or outcomes.fail(run.record, run.error, backoff=run.backoff)


def _has_running_loop() -> bool:
    if (asyncio := sys.modules.get("asyncio")) is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def inline(queue: TaskQueue | AsyncTaskQueue, *, raises: bool = True) -> Iterator[None]:
    """In the block, ``enqueue`` of this queue and its lanes runs the task before it returns.

    It runs everything that is due in the task's queue, as ``run_tasks`` does, and raises the first exception unless
    ``raises`` is False. Tasks that are due later, that wait for others or that are enqueued with ``connection=`` do not
    run.
    """
    sync = _sync(queue)
    handle = sync._handle
    before = handle.on_enqueued

    def run(tasks: list[Task]) -> None:
        for name in dict.fromkeys(task.queue for task in tasks):
            run_tasks(sync.lane(name), raises=raises)
        new = {(sync._membership, task.id) for task in tasks if not task.deduplicated}
        with _changing:  # another thread may run one of them
            _changing.wait_for(lambda: new.isdisjoint(_running))
        for task in tasks:
            with contextlib.suppress(TaskNotFound):
                task.refresh()

    handle.on_enqueued = run
    try:
        yield
    finally:
        handle.on_enqueued = before


@contextlib.contextmanager
def override(queue: TaskQueue | AsyncTaskQueue, url: str) -> Iterator[None]:
    """In the block, use another database for this queue and its lanes, whether they are open or not.

    The database is created if it is missing, and closed at the end of the block. Then workers that run on it are
    stopped, ``fetch`` returns no tasks, and ``for task in queue`` ends. Child processes find its URL in
    ``$DBTASKQUEUE_URL``. Raises TaskQueueError if a worker runs on the queue already.
    """
    with _sync(queue)._handle.redirected(url):
        before = os.environ.get(_URL)
        os.environ[_URL] = url
        try:
            yield
        finally:
            if before is None:
                del os.environ[_URL]
            else:
                os.environ[_URL] = before


# -- what was enqueued -----------------------------------------------------------------------------


def enqueued(
    queue: TaskQueue | AsyncTaskQueue,
    /,
    function: AnyFunction | None = None,
    payload: JSON = ...,
    **attributes: Any,
) -> list[Task]:
    """Return the tasks of a queue that match, in any state, in the order in which they were enqueued.

    ``function``: a task function or its name, or a call that ``bind`` returned, whose arguments must match, too.
    ``payload``: the payload, as JSON values. ``attributes``: attributes of ``Task`` and their values, such as
    ``key="receipt-7"`` or ``priority=5``; ``queue="mail"`` means that queue of the database.

    Raises AttributeError for an unknown attribute.
    """
    sync = _sync(queue)
    if "queue" in attributes:
        sync = sync.lane(attributes["queue"])
    wanted = _Wanted(sync, function, payload, attributes)
    return [task for task in _tasks_of(sync) if wanted.matches(task)]


def assert_enqueued(
    queue: TaskQueue | AsyncTaskQueue,
    /,
    function: AnyFunction | None = None,
    payload: JSON = ...,
    **attributes: Any,
) -> Task:
    """Return the newest task that matches, as ``enqueued`` matches. Raises AssertionError if there is none.

    The message lists what was enqueued.
    """
    __tracebackhide__ = True  # pytest shows the calling line
    found = enqueued(queue, function, payload, **attributes)
    if found:
        return found[-1]
    sync = _sync(queue)
    name = attributes.get("queue", sync.name)
    wanted = _Wanted(sync, function, payload, attributes).text()
    raise AssertionError(f"no task{wanted} was enqueued in queue {shown(name)}; {_listed(sync)}")


class _Wanted:
    """What a task must be like."""

    def __init__(
        self, queue: TaskQueue, function: AnyFunction | None, payload: JSON, attributes: Mapping[str, Any]
    ) -> None:
        self._queue = queue
        self._attributes = dict(attributes)
        for name in self._attributes:
            if not isinstance(getattr(Task, name, None), property):
                raise AttributeError(f"a Task has no attribute {name!r}")
        if isinstance(function, TaskCall) and payload is ...:
            payload = function.payload
        if function is not None:
            self._attributes["function"] = _name_of(queue, function)
        self._payload = payload

    def matches(self, task: Task) -> bool:
        if any(getattr(task, name) != value for name, value in self._attributes.items()):
            return False
        return self._payload is ... or self._arguments(self._payload) == self._arguments(task.payload)

    def _arguments(self, payload: JSON) -> JSON:
        """Return the payload of a call with each argument under its name, so that ``f(1)`` equals ``f(x=1)``."""
        known = self._queue.functions.find(self._attributes.get("function") or "")
        if not isinstance(payload, dict) or set(payload) != {"args", "kwargs"} or not isinstance(known, TaskFunction):
            return payload
        args, kwargs = payload["args"], payload["kwargs"]
        if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
            return payload
        named = dict(zip(known.positional, args, strict=False))
        return {"args": list(args[len(named) :]), "kwargs": named | kwargs}

    def text(self) -> str:
        wanted = [f"{name}={shown(value)}" for name, value in self._attributes.items() if name != "queue"]
        if self._payload is not ...:
            wanted.append(f"payload={_brief(self._payload)}")
        return f" with {', '.join(wanted)}" if wanted else ""


def _name_of(queue: TaskQueue, function: AnyFunction) -> str:
    if isinstance(function, str):
        return function
    if isinstance(function, TaskCall):
        return function.function
    known = getattr(function, "name", None)  # of a TaskFunction or an AsyncTaskFunction
    if isinstance(known, str) and queue.functions.find(known) is not None:
        return known
    for name in queue.functions.names():
        found = queue.functions.find(name)
        if found is function or getattr(found, "__wrapped__", None) is function:
            return name
    raise ValueError(f"{shown(function)} is not a task function of this queue")


def _listed(queue: TaskQueue) -> str:
    """Return text that lists the newest tasks of all queues of the database, oldest first."""
    tasks = [task for info in queue.queues() for task in _tasks_of(queue.lane(info.name))]
    tasks.sort(key=lambda task: task.id)
    if not tasks:
        return "nothing was enqueued"
    lines = [_line(task) for task in tasks[-_LISTED:]]
    older = len(tasks) - len(lines)
    end = f", the newest {_LISTED}:" if older else ":"
    return "\n".join([f"{counted(len(tasks))} {'was' if len(tasks) == 1 else 'were'} enqueued{end}", *lines])


def _line(task: Task) -> str:
    what = "" if task.function is None else f" {task.function}"
    key = "" if task.key is None else f" key={task.key!r}"
    return f"  {task.id} {task.queue}{what} {task.state}{key} payload={_brief(task.payload)}"


def _brief(payload: JSON) -> str:
    text = repr(payload)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def _tasks_of(queue: TaskQueue) -> Sequence[Task]:
    """Return all tasks of a queue, oldest first."""
    found: list[Task] = []
    while page := queue.tasks(limit=1000, before=found[-1].id if found else None):
        found += page
    return found[::-1]


def _sync(queue: TaskQueue | AsyncTaskQueue) -> TaskQueue:
    found = queue if isinstance(queue, TaskQueue) else getattr(queue, "sync", None)
    if not isinstance(found, TaskQueue):
        raise TypeError(f"queue must be a TaskQueue or an AsyncTaskQueue, not {type(queue).__name__}")
    return found

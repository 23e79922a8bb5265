"""Worker: runs tasks until it is stopped. Its loop is in ``_worker/loop.py``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal, NamedTuple

from ._executors.lookup import Lookup
from ._formats.payload import JSON
from ._formats.url import mask
from ._store.contract import TaskRecord
from ._system.log import event
from ._system.signals import draining
from ._system.systemd import Notifier
from ._worker.batching import BatchSize
from ._worker.loop import LoopSettings, WorkerLoop
from ._worker.run_limits import RunLimits
from .checks import check_served, is_pattern, refuse_async_generator, shown
from .errors import StoreUnavailable
from .events import AttemptLost, Events, TaskEnded
from .extension import Extension, around_worker, notify_ended, overriding
from .handle import notify_lost
from .options import ExecutorName, RunOptions, WorkerOptions, check_options
from .queue import TaskQueue
from .states import ABANDONED, FAILED, PENDING
from .task import EndedTask, Task

OnError = Callable[[Task, BaseException], object]


class WorkerHealth(NamedTuple):
    """Whether a worker's own loops run. How long task code takes does not matter.

    - ``alive``: the loops run. This is also true if the database is unavailable, or if a task takes hours. If it is
      false, only a restart helps.
    - ``ready``: the worker claims tasks. It is not ready while it starts, while the database is unavailable, and while
      it drains.
    - ``status``: ``working``, ``starting``, ``database unavailable``, ``stopping``, ``not running`` or, if it is not
      alive, ``hangs``.
    """

    alive: bool
    ready: bool
    status: str


class Worker:
    """Runs the tasks of one queue, or of several in rotation.

    Durations are seconds or timedeltas.

    - ``url_or_queue``: a database URL, or a ``TaskQueue`` whose lease, task functions and extensions are used. Its
      ``close`` stops the worker.
    - ``queue`` or ``queues``: the names of the queues to serve; by default that of the ``TaskQueue``, or "default". A
      pattern such as ``mail*`` matches every queue whose name starts with "mail", including queues that appear later.
      ``*`` matches all queues. A ``*`` is allowed only at the end.
    - ``concurrency``: how many tasks run at the same time.
    - ``executor``: how tasks run. "thread": each in a thread, which cannot be stopped from outside; an ``async def`` in
      an event loop of its own there. "asyncio": all ``async def`` in one event loop, hundreds at the same time, and
      plain functions in threads. "process" (best for long tasks, and the command line's default): each in a child
      process, so that a crash fails one attempt, and all processes that the task has started end with it. A child
      imports the code, so it must be defined at the top of a module, or of a script that starts its worker under
      ``if __name__ == "__main__":``. Otherwise ``run`` raises TypeError for a callback, and the task of a task function
      fails.
    - ``lease``: the time without a heartbeat after which other machines may take this worker's tasks.
    - ``drain_timeout``: the time that running tasks get to finish when the worker stops. Then they are stopped, as far
      as the executor can stop them, and released without spending an attempt. With processes, that takes up to
      ``cancel_grace`` more.
    - ``on_error(task, exception)`` is called exactly once for each attempt that failed, also if that abandoned the
      task. An exception that it raises is logged. But SystemExit and KeyboardInterrupt stop the worker, and ``run``
      raises them at its end.

    For processes only:

    - ``cancel_grace``: the time from SIGTERM to SIGKILL for a task that has to stop.
    - ``tasks_per_child``: the number of short tasks after which a child process is replaced. After a task of a second
      it always is.
    - ``allow_commands``: also run command lines from ``enqueue_command``. Then anyone who can write to the database can
      run programs here.

    Raises TypeError for ``queue`` and ``queues`` together, ValueError for a value that is out of range.
    """

    def __init__(
        self,
        url_or_queue: str | TaskQueue | None = None,
        queue: str | None = None,
        *,
        queues: list[str] | tuple[str, ...] | None = None,
        concurrency: int = 1,
        executor: ExecutorName = "thread",
        lease: float | timedelta = 30.0,
        drain_timeout: float | timedelta = 20.0,
        on_error: OnError | None = None,
        cancel_grace: float | timedelta = 10.0,
        tasks_per_child: int = 1000,
        allow_commands: bool = False,
    ) -> None:
        if queue is not None and queues is not None:
            raise TypeError("give queue or queues, not both")
        if isinstance(queues, str):
            raise TypeError(f"queues must be a list of names, such as [{queues!r}], not {queues!r}")
        if queues is not None and not queues:
            raise ValueError("queues is empty")
        given: WorkerOptions = {
            "concurrency": concurrency,
            "executor": executor,
            "lease": lease,
            "drain_timeout": drain_timeout,
            "on_error": on_error,
            "cancel_grace": cancel_grace,
            "tasks_per_child": tasks_per_child,
            "allow_commands": allow_commands,
        }
        options = {**given, **check_options(given, WorkerOptions)}
        if options["allow_commands"] and executor != "process":
            raise ValueError(f"allow_commands needs executor='process', not {shown(executor)}")
        if isinstance(getattr(url_or_queue, "sync", None), TaskQueue):
            raise TypeError("a Worker takes the TaskQueue of an AsyncTaskQueue: Worker(queue.sync)")
        names = queues if queues is not None else None if queue is None else [queue]
        checked = None if names is None else [check_served(name) for name in dict.fromkeys(names)]
        self._owns_queue = not isinstance(url_or_queue, TaskQueue)
        self._queue = (
            url_or_queue
            if isinstance(url_or_queue, TaskQueue)
            else TaskQueue(url_or_queue, _first_name(checked or []), lease=options["lease"])
        )
        self.url = self._queue.url
        self.queues = checked or [self._queue.name]
        self.concurrency: int = options["concurrency"]
        self.executor: str = options["executor"]
        self.lease = self._queue.lease
        self.drain_timeout: float = options["drain_timeout"]
        self.on_error: OnError | None = options["on_error"]
        self.cancel_grace: float = options["cancel_grace"]
        self.tasks_per_child: int = options["tasks_per_child"]
        self.allow_commands: bool = options["allow_commands"]
        self._lock = threading.RLock()
        self._loop: WorkerLoop | None = None
        self._stop_requested = False

    def __repr__(self) -> str:
        settings = f"executor={self.executor} concurrency={self.concurrency}"
        return f"<Worker {', '.join(self.queues)} of {mask(self.url)} {settings}>"

    def run(
        self,
        callback: Callable[[Any], JSON] | None = None,
        *,
        burst: bool = False,
        max_tasks: int | None = None,
        idle_timeout: float | timedelta | None = None,
        batch: int | Literal["auto"] = "auto",
    ) -> None:
        """Run tasks until stopped by ``stop()``, SIGTERM or SIGINT (in the main thread; each signal is logged).

        ``callback``, plain or ``async def``, gets the payload and returns the result. Tasks of task functions do not
        need it. An exception fails the attempt. A task that this worker has no code for is released, and is due again
        after 5 seconds to 5 minutes.

        - ``burst``: return when nothing is due and all tasks have ended.
        - ``max_tasks``: return after that many tasks.
        - ``idle_timeout``: return after that many seconds (or a timedelta) without a task.
        - ``batch``: "auto" runs long tasks one by one, and stores the ends of short ones together, after at most 0.1 s.
          1 stores each end immediately. Another number claims that many tasks at a time.

        As a systemd service (``$NOTIFY_SOCKET``, in the main thread), the worker notifies systemd when it is ready,
        when it stops and what it does, and serves ``WatchdogSec``.

        Raises TypeError if there is nothing to run: no callback, no task functions and no ``allow_commands``. Raises
        TaskQueueError if the ``TaskQueue`` is closed.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, not {shown(callback)}")
        if callback is not None:
            refuse_async_generator(callback, "the callback")
        elif not self._queue.functions.names() and not self.allow_commands:
            raise TypeError(
                "the worker has nothing to run: its TaskQueue has no task functions. Import the modules that define"
                " them, or pass a callback. A Worker created with a URL has no task functions"
            )
        given: RunOptions = {"burst": burst, "max_tasks": max_tasks, "idle_timeout": idle_timeout}
        limits = RunLimits(**check_options(given, RunOptions))
        size = BatchSize(batch, self.concurrency)
        extensions = overriding(self._queue.extensions, "worker")
        with (
            self._queue.serving(self.stop),
            draining(self._signalled, self._announce),
            around_worker(extensions, self),
        ):
            self._run(callback, limits, size)

    def _run(self, callback: Callable[[Any], JSON] | None, limits: RunLimits, size: BatchSize) -> None:
        with self._lock:
            if self._loop is not None:
                raise RuntimeError("this worker is running already")
            loop = self._loop = WorkerLoop(
                self._queue.store,
                LoopSettings(
                    queues=self.queues,
                    concurrency=self.concurrency,
                    executor=self.executor,
                    cancel_grace=self.cancel_grace,
                    tasks_per_child=self.tasks_per_child,
                    lease=self.lease,
                    drain_timeout=self.drain_timeout,
                    allow_commands=self.allow_commands,
                ),
                lookup=Lookup(callback, self._queue.functions, self._queue.extensions, self._queue, self._queue.coders),
                limits=limits,
                batch=size,
                events=self._events(),
                notifier=Notifier(os.environ if threading.current_thread() is threading.main_thread() else {}),
                declare=partial(self._queue.store_declarations, self.queues),
            )
            if self._stop_requested:
                loop.stop.request()
        try:
            loop.run()
        finally:
            self._loop, self._stop_requested = None, False
            if self._owns_queue:
                self._queue.store.disconnect()

    def _events(self) -> Events:
        """Return where this run emits facts: to its own listeners first, then to those of the queue."""
        events = Events(self._queue.events)
        if self.on_error is not None:
            events.listen(TaskEnded, self._call_on_error)
        if listening := overriding(self._queue.extensions, "ended"):
            events.listen(TaskEnded, partial(self._notify, listening))
            events.listen(AttemptLost, partial(notify_lost, listening, self._queue.store))
        return events

    def _notify(self, extensions: Sequence[Extension], fact: TaskEnded) -> None:
        outcome = "released" if fact.state == PENDING else str(fact.state)
        task = EndedTask(self._queue.store, _as_ended(fact), fact.seconds or None)
        notify_ended(extensions, task, outcome, fact.error)

    def _call_on_error(self, fact: TaskEnded) -> None:
        if fact.error is None or fact.state not in (FAILED, ABANDONED):
            return
        assert self.on_error is not None
        record = _as_ended(fact)
        store = self._queue.store
        with contextlib.suppress(StoreUnavailable):  # then on_error gets the task as it is known here
            record = store.get(record.id) or record
        try:
            self.on_error(Task(store, record), fact.error)
        except Exception as error:
            event(logging.ERROR, "on_error raised", exc_info=error, task_id=record.id)
        except BaseException as error:  # raised only when everything is stored: here, tasks just claimed would be lost
            assert self._loop is not None
            self._loop.stop.stop_with(error)

    def stop(self) -> None:
        """End ``run`` after the running tasks, at most ``drain_timeout`` seconds later. Call it anywhere."""
        loop = self._loop
        if loop is None:
            self._stop_requested = True
        elif not loop.stop.is_on:
            loop.stop.request()

    def health(self) -> WorkerHealth:
        """Return whether the worker's loops run and whether it claims tasks, for a health check of your program.

        Call it in any thread. It reads only memory, never the database.
        """
        loop = self._loop
        if loop is None:
            return WorkerHealth(alive=True, ready=False, status="not running")
        found = loop.health()
        return WorkerHealth(found.alive, found.alive and found.claims, found.doing if found.alive else "hangs")

    def _signalled(self) -> None:
        """Request a stop; the second time, an immediate one. Called by the signal handler."""
        loop = self._loop
        if loop is None:
            self._stop_requested = True
        else:
            loop.stop.request()

    def _announce(self, number: int) -> None:
        """Log that a signal has arrived, and what the worker does now."""
        loop = self._loop
        if loop is None:
            event(logging.INFO, "stopping")  # the loop does not exist yet: the executor is importing the code
        else:
            loop.announce_stop(typed=number == signal.SIGINT)


def _first_name(names: Sequence[str]) -> str:
    """Return the first of the names that is not a pattern, else "default"."""
    return next((name for name in names if not is_pattern(name)), "default")


def _as_ended(fact: TaskEnded) -> TaskRecord:
    """Return the task as it is after its end, without reading it again."""
    record, end = fact.record, fact.end
    record = record._replace(state=fact.state, attempt=fact.attempt, due=record.due if end.due is None else end.due)
    if end.result is not None:
        record = record._replace(result=end.result)
    return record if end.error is None else record._replace(error=end.error, error_type=end.error_type)

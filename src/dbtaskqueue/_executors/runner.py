"""Runs the code of one task: in a thread, in an event loop, or in a child process.

All three do the same around the code: they set the current task, note when it started and ended and how much CPU time
it used, encode its result or keep its error. How the attempt went is in the TaskRun afterwards.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextvars import Token
from typing import Any, NoReturn

from .._formats.progress import ProgressTracker
from .._store.contract import HAS_PARENTS, TaskRecord
from .._system import clock
from .._system.log import first_line
from ..checkpoints import Checkpoints
from ..checks import check_delay, is_async
from ..current import RunningTask, enter, leave, results_for_arguments
from ..errors import AbandonTask, PayloadError, ReleaseTask, RetryTask
from ..extension import ProcessContexts, around_attempt, overriding
from ..outcomes import Backoff
from . import task_log
from .lookup import Lookup
from .task_run import TaskRun

_MIN_CPU = 0.01
"""Seconds of CPU time below which it is not measured."""

MakeCheckpoints = Callable[[TaskRecord, Callable[[], int | None], Callable[[], bool]], Checkpoints]
"""Creates the ``Checkpoints`` of a task. The arguments are those of ``StoredCheckpoints``: ``record``, ``started_at``,
``is_over``."""
_Guard = Callable[[TaskRun], contextlib.AbstractContextManager[object]]
_CHOICES = RetryTask, AbandonTask, ReleaseTask
_NOTHING = contextlib.nullcontext()
_Context = tuple[Token[TaskRun], Token[Callable[[], RunningTask]]]


class Runner:
    """Runs tasks, several at the same time if it is called in several threads or in an event loop.

    ``lookup`` finds the code. ``max_payload`` is the most bytes of a result or a checkpoint. ``checkpoints`` makes the
    place where a task stores its checkpoints, when the task first calls ``current_task()``. ``is_draining`` returns
    whether the worker is stopping, ``is_cancelled`` whether a task should stop. ``guard`` is entered around the
    extensions and the code.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        max_payload: int,
        checkpoints: MakeCheckpoints,
        is_draining: Callable[[], bool],
        is_cancelled: Callable[[TaskRun], bool] = lambda run: run.cancelled,
        guard: _Guard | None = None,
    ) -> None:
        self.lookup = lookup
        self.max_payload = max_payload
        self._checkpoints = checkpoints
        self._is_draining = is_draining
        self._is_cancelled = is_cancelled
        self._guard = guard
        self._extensions = overriding(lookup.extensions, "attempt")
        self._is_plain = guard is None and not self._extensions
        self._forks = _forks
        self.process = ProcessContexts(lookup.extensions)
        """The contexts that the process enters before its first task, and leaves at its end."""

    def is_async(self, run: TaskRun) -> bool:
        """Return whether the task's code is an ``async def``."""
        found = self.lookup.find(run.record)
        return found is not None and is_async(getattr(found, "__wrapped__", found))

    def execute(self, run: TaskRun) -> None:
        """Run the task in this thread to its end; an ``async def`` in an event loop of its own. Never raises."""
        context = self._start(run)
        before = time.thread_time()
        try:
            self._store_result(run, self._call(run) if self._is_plain else self._call_inside(run))
        except BaseException as error:  # SystemExit is a failure like any other
            run.error = error
        # Reading the CPU time is a system call (0.4 µs). Skip it if less wall time than that has passed.
        if time.monotonic() - run.started > _MIN_CPU and (cpu := time.thread_time() - before) > _MIN_CPU:
            run.spend(cpu)
        self._end(run, context)

    async def execute_async(self, run: TaskRun) -> None:
        """Run an ``async def`` in the event loop of the asyncio task that awaits this. Never raises."""
        from .coroutines import awaited

        context = self._start(run)
        result = None
        try:
            with self._surroundings(run) if self._extensions else _NOTHING:
                result = await awaited(run, self._code(run))
            self._store_result(run, result)
        except BaseException as error:
            run.error = error
        self._end(run, context)

    def _call(self, run: TaskRun) -> Any:
        result = self._code(run)
        if hasattr(result, "__await__"):
            from .coroutines import run_here  # imported here, since asyncio takes 5 MiB

            result = run_here(run, result)
        return result

    def _code(self, run: TaskRun) -> Any:
        """Call the task's code. Arguments that are tasks are replaced by their results."""
        if not run.record.flow & HAS_PARENTS:
            return self.lookup.call(run.record)
        return self.lookup.call(run.record, results_for_arguments(run.running(self._running_task)))

    def _call_inside(self, run: TaskRun) -> Any:
        with self._surroundings(run):
            return self._call(run)
        return None  # an extension suppressed the exception

    def _surroundings(self, run: TaskRun) -> contextlib.AbstractContextManager[object]:
        """Return the context that the code runs in: the guard, and the extensions' ``attempt``."""
        if self._guard is None:
            return self._attempt(run)
        return self._guarded_attempt(run, self._guard) if self._extensions else self._guard(run)

    def _attempt(self, run: TaskRun) -> contextlib.AbstractContextManager[object]:
        return around_attempt(self._extensions, run.running(self._running_task))

    @contextlib.contextmanager
    def _guarded_attempt(self, run: TaskRun, guard: _Guard) -> Iterator[None]:
        with guard(run), self._attempt(run):
            yield

    def _start(self, run: TaskRun) -> _Context:
        run.started_at = clock.now()
        run.started = time.monotonic()
        return task_log.running.set(run), enter(lambda: run.running(self._running_task))

    def _store_result(self, run: TaskRun, result: Any) -> None:
        if result is not None and _forks == self._forks:
            run.result = self.lookup.encode_result(run.record, result, self.max_payload)

    def _end(self, run: TaskRun, context: _Context) -> None:
        if _forks != self._forks:  # this is a process that the task's code has forked, and the code has returned in it
            _end_fork(run.error)
        if run.error is not None:
            run.backoff = self._backoff(run, run.error)
        task_log.running.reset(context[0])
        leave(context[1])
        run.ended_at = clock.now()
        run.stop = None

    def _backoff(self, run: TaskRun, error: BaseException) -> Backoff | None:
        """Ask the ``backoff`` of the task's function when to retry. None if the task has chosen, or there is none."""
        if run.record.function is None or isinstance(error, _CHOICES) or self._is_cancelled(run):
            return None
        if isinstance(error, PayloadError) and error.is_final:
            return Backoff(None)
        try:
            decide = getattr(self.lookup.find(run.record), "backoff", None)
            if decide is None:
                return None
            delay = decide(error, run.attempt)
            return Backoff(None if delay is None else check_delay(delay, "the result of backoff"))
        except BaseException as raised:
            return Backoff(failure=f"{type(raised).__name__}: {first_line(raised)}")

    def _running_task(self, run: TaskRun, attempt: int) -> RunningTask:
        def is_over() -> bool:
            return self._is_cancelled(run) or self._is_draining()

        run.checkpoints = self._checkpoints(run.record, lambda: run.unstored_start, is_over)
        run.tracker = ProgressTracker()
        return RunningTask(
            run.record,
            attempt,
            self._is_draining,
            run.checkpoints,
            run.tracker,
            started_at=(run.record.started_at if run.start_stored else run.started_at) or run.record.created_at,
            max_payload=self.max_payload,
            is_cancelled=lambda: self._is_cancelled(run),
            encode_result=lambda result: self.lookup.encode_result(run.record, result, self.max_payload),
            extensions=self.lookup.extensions,
        )


_forks = 0
"""The number of forks between the interpreter's start and this process. Reading it is faster than ``os.getpid()``."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def _end_fork(error: BaseException | None) -> NoReturn:
    """End a process that the task's code forked, with the exit code for its error. It must not continue as a worker."""
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    elif error is not None:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # None, closed, or a pipe without a reader: end anyway
            stream.flush()
    os._exit(code & 0xFF)

"""Runs ``async def`` tasks in one event loop, in a thread of its own, and plain functions in other threads.

``concurrency`` counts both. Tasks that are claimed beyond it wait, and can be returned by ``take_back``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .._system.log import event
from .loop_watch import LoopWatch
from .task_run import Callbacks, Settings, TaskRun, take_all


class AsyncioExecutor:
    """One event loop for all tasks. Each task has its own copy of the context in which the executor was made."""

    grace = 1.0

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        self._runner = settings.runner
        self._callbacks = callbacks
        self._runner.process.enter()
        self._context = contextvars.copy_context()  # includes context variables that extensions have set
        self.most = settings.concurrency
        self._waiting: deque[TaskRun] = deque()
        self._free = settings.concurrency  # from here on, attributes are used only in the loop
        self._running: dict[asyncio.Task[None], TaskRun] = {}
        self._is_called = False
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._threads = _Threads(self._run_plain, self._free_slot_from_outside)
        self._thread = threading.Thread(target=self._serve, name="dbtaskqueue-loop", daemon=True)
        self._thread.start()
        self._watch = LoopWatch(self._loop, self._thread, self._running)

    def submit(self, runs: Sequence[TaskRun]) -> None:
        """Run these tasks when there is room."""
        self._waiting.extend(runs)
        if not self._is_called:  # one call for all tasks that are submitted before the loop gets to it
            self._is_called = True
            self._loop.call_soon_threadsafe(self._fill)

    def is_drained(self) -> bool:
        """Return whether all tasks have started."""
        return not self._waiting

    def take_back(self) -> list[TaskRun]:
        """Return the tasks that have not started. They will not."""
        return take_all(self._waiting)

    def drain(self) -> None:
        """Do nothing: tasks in this process can see that the worker is draining."""

    def last_turn(self) -> float:
        """Return the current time. Only tasks can block this loop, and ``LoopWatch`` logs that."""
        return time.monotonic()

    def close(self) -> None:
        """Cancel what is left in the loop and end its thread. A thread that is blocked is left behind."""
        self._watch.close()
        self._threads.close()
        self._closing = True
        with contextlib.suppress(RuntimeError):  # the loop is already closed
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self.grace)
        self._runner.process.leave()

    # -- in the loop -------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._is_called = False
        while self._free and self._waiting:
            try:
                run = self._waiting.popleft()
            except IndexError:  # taken back meanwhile
                return
            self._free -= 1
            if self._runner.is_async(run):
                task = self._loop.create_task(self._run(run), context=self._context.copy())
                self._running[task] = run
                self._watch.wake()
            else:
                self._threads.run(run)

    async def _run(self, run: TaskRun) -> None:
        await self._runner.execute_async(run)
        self._callbacks.ended(run)
        if (task := asyncio.current_task()) is not None:
            del self._running[task]
        self._free_slot()

    def _free_slot(self) -> None:
        self._free += 1
        self._fill()

    # -- in other threads --------------------------------------------------------------------------

    def _run_plain(self, run: TaskRun) -> None:
        self._context.copy().run(self._runner.execute, run)
        self._callbacks.ended(run)

    def _free_slot_from_outside(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing more is started
            self._loop.call_soon_threadsafe(self._free_slot)

    def _serve(self) -> None:
        while not self._closing:
            self._go(self._loop.run_forever)
        self._go(lambda: self._loop.run_until_complete(self._unwind()))
        self._loop.close()

    def _go(self, run: Callable[[], object]) -> None:
        """Run the loop. Exceptions of tasks do not arrive here, but a SystemExit of code that they started does."""
        try:
            run()
        except BaseException as error:
            event(logging.WARNING, "code that a task left running in the event loop raised", exc_info=error)

    async def _unwind(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self.grace)
        await self._loop.shutdown_asyncgens()


class _Threads:
    """Daemon threads, as many as are busy at the same time. A free one is used again.

    ``execute`` runs a task in one of them, and ``is_free`` is called when it can take another.
    """

    def __init__(self, execute: Callable[[TaskRun], None], is_free: Callable[[], None]) -> None:
        self._tasks: queue.SimpleQueue[TaskRun | None] = queue.SimpleQueue()
        self._execute = execute
        self._is_free = is_free
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0

    def run(self, run: TaskRun) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._count += 1
                threading.Thread(target=self._serve, name=f"dbtaskqueue-task-{self._count}", daemon=True).start()
        self._tasks.put(run)

    def close(self) -> None:
        for _ in range(self._count):
            self._tasks.put(None)

    def _serve(self) -> None:
        while (run := self._tasks.get()) is not None:
            self._execute(run)
            del run  # what a task returned or raised must not stay in memory until the next task
            with self._lock:
                self._idle += 1
            self._is_free()

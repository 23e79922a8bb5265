"""Runs ``async def`` tasks in one event loop, in one thread of its own; plain functions in threads beside it.

``concurrency`` counts both. What is claimed beyond it waits in a line, and can be taken back.
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
    """One event loop for all. Each task has its own copy of the context that the executor was made in."""

    grace = 1.0

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        self._runner = settings.runner
        self._callbacks = callbacks
        self._runner.process.enter()
        self._context = contextvars.copy_context()  # with what extensions have set
        self.most = settings.concurrency
        self._line: deque[TaskRun] = deque()
        self._free = settings.concurrency  # what follows is touched in the loop only
        self._running: dict[asyncio.Task[None], TaskRun] = {}
        self._is_called = False
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._threads = _Threads(self._run_plain, self._free_slot_from_outside)
        self._thread = threading.Thread(target=self._serve, name="dbtaskqueue-loop", daemon=True)
        self._thread.start()
        self._watch = LoopWatch(self._loop, self._thread, self._running)

    def submit(self, works: Sequence[TaskRun]) -> None:
        """Run them when there is room."""
        self._line.extend(works)
        if not self._is_called:  # one call for all that are submitted before the loop comes to it
            self._is_called = True
            self._loop.call_soon_threadsafe(self._fill)

    def is_drained(self) -> bool:
        """Whether all work has started."""
        return not self._line

    def take_back(self) -> list[TaskRun]:
        """The work that has not started; it will not."""
        return take_all(self._line)

    def drain(self) -> None:
        """Nobody needs to be told: it is seen."""

    def last_turn(self) -> float:
        """Now: what blocks the loop is a task, and is logged."""
        return time.monotonic()

    def close(self) -> None:
        """Cancel what is left in the loop and end its thread; one that is blocked is left behind."""
        self._watch.close()
        self._threads.close()
        self._closing = True
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self.grace)
        self._runner.process.leave()

    # -- in the loop -------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._is_called = False
        while self._free and self._line:
            try:
                work = self._line.popleft()
            except IndexError:  # taken back meanwhile
                return
            self._free -= 1
            if self._runner.is_async(work):
                task = self._loop.create_task(self._run(work), context=self._context.copy())
                self._running[task] = work
                self._watch.wake()
            else:
                self._threads.run(work)

    async def _run(self, work: TaskRun) -> None:
        await self._runner.execute_async(work)
        self._callbacks.ended(work)
        if (task := asyncio.current_task()) is not None:
            del self._running[task]
        self._free_slot()

    def _free_slot(self) -> None:
        self._free += 1
        self._fill()

    # -- in other threads --------------------------------------------------------------------------

    def _run_plain(self, work: TaskRun) -> None:
        self._context.copy().run(self._runner.execute, work)
        self._callbacks.ended(work)

    def _free_slot_from_outside(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing more is started
            self._loop.call_soon_threadsafe(self._free_slot)

    def _serve(self) -> None:
        while not self._closing:
            self._go(self._loop.run_forever)
        self._go(lambda: self._loop.run_until_complete(self._unwind()))
        self._loop.close()

    def _go(self, run: Callable[[], object]) -> None:
        """Run the loop. What tasks raise never comes here, but a SystemExit of what they have started does."""
        try:
            run()
        except BaseException as error:
            event(logging.WARNING, "what a task left in the event loop has raised", exc_info=error)

    async def _unwind(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=self.grace)
        await self._loop.shutdown_asyncgens()


class _Threads:
    """Daemon threads, as many as are busy at once; one that is free is used again.

    ``run`` runs a work in one of them, and ``is_free`` is called when it can take another.
    """

    def __init__(self, run: Callable[[TaskRun], None], is_free: Callable[[], None]) -> None:
        self._line: queue.SimpleQueue[TaskRun | None] = queue.SimpleQueue()
        self._run = run
        self._is_free = is_free
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0

    def run(self, work: TaskRun) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._count += 1
                threading.Thread(target=self._serve, name=f"dbtaskqueue-task-{self._count}", daemon=True).start()
        self._line.put(work)

    def close(self) -> None:
        for _ in range(self._count):
            self._line.put(None)

    def _serve(self) -> None:
        while (work := self._line.get()) is not None:
            self._run(work)
            del work  # what a task returned or raised must not live until the next one
            with self._lock:
                self._idle += 1
            self._is_free()

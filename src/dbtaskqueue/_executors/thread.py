"""Runs tasks in threads of this process."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from .task_run import Callbacks, Settings, TaskRun, take_all


class ThreadExecutor:
    """Daemon threads that take tasks from one queue.

    They are woken once for many tasks: a lock for each task would cost more than a short task does.
    """

    grace = 1.0

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        self.most = settings.concurrency
        self._waiting: deque[TaskRun] = deque()
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._runner = settings.runner
        self._callbacks = callbacks
        self._threads = [
            threading.Thread(target=self._run, name=f"dbtaskqueue-task-{number}", daemon=True)
            for number in range(settings.concurrency)
        ]
        self._runner.process.enter()
        for thread in self._threads:
            thread.start()

    def submit(self, runs: Sequence[TaskRun]) -> None:
        """Run these tasks when threads are free."""
        self._waiting.extend(runs)
        for _ in range(min(len(runs), len(self._threads))):
            self._calls.put(True)

    def is_drained(self) -> bool:
        """Return whether all tasks have started."""
        return not self._waiting

    def take_back(self) -> list[TaskRun]:
        """Return the tasks that have not started. They will not."""
        return take_all(self._waiting)

    def drain(self) -> None:
        """Do nothing: tasks in threads can see that the worker is draining."""

    def last_turn(self) -> float:
        """Return the current time: its threads only run tasks."""
        return time.monotonic()

    def close(self) -> None:
        """End the threads when their tasks end. A thread whose task never returns is left behind."""
        for _ in self._threads:
            self._calls.put(False)
        self._runner.process.leave()

    def _run(self) -> None:
        while self._calls.get():
            while (run := self._next()) is not None:
                self._runner.execute(run)
                self._callbacks.ended(run)
                del run  # what a task returned or raised must not stay in memory until the next task

    def _next(self) -> TaskRun | None:
        try:
            return self._waiting.popleft()
        except IndexError:  # other threads were faster
            return None

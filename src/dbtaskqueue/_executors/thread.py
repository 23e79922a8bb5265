"""Runs tasks in threads of this process."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from .task_run import Callbacks, Settings, TaskRun, take_all


class ThreadExecutor:
    """``size`` daemon threads that take work from one line.

    They are woken once for many tasks: a lock for each would cost more than a short task does.
    """

    grace = 1.0

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        self.most = settings.concurrency
        self._line: deque[TaskRun] = deque()
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

    def submit(self, works: Sequence[TaskRun]) -> None:
        """Run them when threads are free."""
        self._line.extend(works)
        for _ in range(min(len(works), len(self._threads))):
            self._calls.put(True)

    def is_drained(self) -> bool:
        """Whether all work has started."""
        return not self._line

    def take_back(self) -> list[TaskRun]:
        """The work that has not started; it will not."""
        return take_all(self._line)

    def drain(self) -> None:
        """Nobody needs to be told: it is seen."""

    def last_turn(self) -> float:
        """Now: threads run tasks, and nothing else."""
        return time.monotonic()

    def close(self) -> None:
        """End the threads when they have nothing to do; one that never returns is left behind."""
        for _ in self._threads:
            self._calls.put(False)
        self._runner.process.leave()

    def _run(self) -> None:
        while self._calls.get():
            while (work := self._next()) is not None:
                self._runner.execute(work)
                self._callbacks.ended(work)
                del work  # what a task returned or raised must not live until the next one

    def _next(self) -> TaskRun | None:
        try:
            return self._line.popleft()
        except IndexError:  # others were faster
            return None

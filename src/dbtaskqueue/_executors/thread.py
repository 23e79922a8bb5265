"""Runs tasks in threads of this process."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from .task_run import Settings, TaskCode, TaskRun, take_all


class ThreadExecutor:
    """``size`` daemon threads that take work from one line.

    They are woken once for many tasks: a lock for each would cost more than a short task does.
    """

    grace = 1.0

    def __init__(self, settings: Settings, code: TaskCode) -> None:
        self.most = settings.concurrency
        self._line: deque[TaskRun] = deque()
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._code = code
        self._pid = os.getpid()
        self._threads = [
            threading.Thread(target=self._run, name=f"dbtaskqueue-task-{number}", daemon=True)
            for number in range(settings.concurrency)
        ]
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

    def _run(self) -> None:
        while self._calls.get():
            while (work := self._next()) is not None:
                self._code.execute(work)
                if os.getpid() != self._pid:
                    end_child(work.error)
                del work  # what a task returned or raised must not live until the next one

    def _next(self) -> TaskRun | None:
        try:
            return self._line.popleft()
        except IndexError:  # others were faster
            return None


def end_child(error: BaseException | None) -> NoReturn:
    """End a child that the task's code forked, as it meant to end by itself: it must not go on as this worker."""
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    elif error is not None:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # None, closed, or a pipe that nobody reads: no reason to stay
            stream.flush()
    os._exit(code & 0xFF)

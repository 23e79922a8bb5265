"""How task code runs. An executor never touches the database. It gets tasks, and reports how they ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .task_run import Callbacks, Settings, TaskRun
from .thread import ThreadExecutor


class Executor(Protocol):
    """Runs up to ``Settings.concurrency`` tasks at the same time. The others wait."""

    grace: float
    """Seconds that code may take to end after ``TaskRun.stop``, where the executor can stop code."""

    most: int
    """How many tasks it can run at the same time now; fewer than its settings allow during a shortage."""

    def submit(self, runs: Sequence[TaskRun]) -> None:
        """Run these tasks when there is room."""

    def is_drained(self) -> bool:
        """Return whether all tasks have started."""

    def take_back(self) -> list[TaskRun]:
        """Return the tasks that have not started. They will not."""

    def drain(self) -> None:
        """Notify tasks in other processes that the worker is draining."""

    def last_turn(self) -> float:
        """Return when its own loop last turned, in monotonic time. Without such a loop, return the current time."""

    def close(self) -> None:
        """End its threads and processes. A thread that is blocked by a task stays."""


def _asyncio(settings: Settings, callbacks: Callbacks) -> Executor:
    from .asyncio_ import AsyncioExecutor  # imported here, since asyncio takes 5 MiB

    return AsyncioExecutor(settings, callbacks)


def _process(settings: Settings, callbacks: Callbacks) -> Executor:
    from .process.executor import ProcessExecutor

    return ProcessExecutor(settings, callbacks)


EXECUTORS: dict[str, Callable[[Settings, Callbacks], Executor]] = {
    "thread": ThreadExecutor,
    "process": _process,
    "asyncio": _asyncio,
}
"""The executors by their names for ``Worker`` and the command line."""

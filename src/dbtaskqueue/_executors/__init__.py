"""How task code runs. An executor never touches the database: tasks go in, and how they ended comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .task_run import Callbacks, Settings, TaskRun
from .thread import ThreadExecutor


class Executor(Protocol):
    """Runs tasks at the same time, as many as its settings say. The others wait."""

    grace: float
    """Seconds that code gets to end after it was told to stop, if it can be told (``TaskRun.stop``)."""

    most: int
    """How many tasks it can run at the same time now; fewer than its settings allow during a shortage."""

    def submit(self, runs: Sequence[TaskRun]) -> None:
        """Run these tasks when there is room."""

    def is_drained(self) -> bool:
        """Return whether all tasks have started."""

    def take_back(self) -> list[TaskRun]:
        """Return the tasks that have not started. They will not."""

    def drain(self) -> None:
        """Tell tasks that cannot see it that the worker drains."""

    def last_turn(self) -> float:
        """Return when its own loop last made a turn, in monotonic time; the current time if it has no loop."""

    def close(self) -> None:
        """End its threads and processes, as far as they can be ended."""


def _asyncio(settings: Settings, callbacks: Callbacks) -> Executor:
    from .asyncio_ import AsyncioExecutor  # asyncio takes 5 MiB

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

"""How task code runs. An executor never touches the database: work goes in, outcomes come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .task_run import Callbacks, Settings, TaskRun
from .thread import ThreadExecutor


class Executor(Protocol):
    """Runs works at once, as many as its settings say; the others wait in a line."""

    grace: float
    """Seconds that code gets to end which was told to stop, if it has a way to be told (``Work.stop``)."""

    most: int
    """How many tasks it can run at the same time now; fewer than its settings allow during a shortage."""

    def submit(self, works: Sequence[TaskRun]) -> None:
        """Run them when there is room."""

    def is_drained(self) -> bool:
        """Whether all work has started."""

    def take_back(self) -> list[TaskRun]:
        """The work that has not started; it will not."""

    def drain(self) -> None:
        """The worker is to stop: tell those who cannot see it."""

    def last_turn(self) -> float:
        """When its own loop last made a turn, in monotonic time; now, where it has none."""

    def close(self) -> None:
        """End what it runs by, as far as it can be ended."""


def _asyncio(settings: Settings, callbacks: Callbacks) -> Executor:
    from .asyncio_ import AsyncioExecutor  # asyncio takes 5 MiB: only from who uses it

    return AsyncioExecutor(settings, callbacks)


def _process(settings: Settings, callbacks: Callbacks) -> Executor:
    from .process.executor import ProcessExecutor

    return ProcessExecutor(settings, callbacks)


EXECUTORS: dict[str, Callable[[Settings, Callbacks], Executor]] = {
    "thread": ThreadExecutor,
    "process": _process,
    "asyncio": _asyncio,
}
"""The executors by the name that ``Worker`` and the command line know them by."""

"""An ``AsyncTaskQueue`` at the top of a module, where the command line and child processes find its functions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from dbtaskqueue import AsyncTaskQueue, Extension, RunningTask, current_task

ran_by: list[str] = []


class Named(Extension):
    """Tells the task's code that it was around it."""

    @contextlib.contextmanager
    def attempt(self, task: RunningTask) -> Iterator[None]:
        ran_by.append(type(self).__name__)
        yield
        ran_by.clear()


queue = AsyncTaskQueue(extensions=[Named()])


@queue.task
async def add(one: int, two: int) -> list[object]:
    return [one + two, os.getpid(), *ran_by]


@queue.task(name="plain", priority=3)
def plain(text: str) -> str:
    current_task().progress(1, 1, text)
    return text.upper()


@queue.task(backoff=lambda error, attempt: None)
async def fail() -> None:
    raise ValueError("no luck")

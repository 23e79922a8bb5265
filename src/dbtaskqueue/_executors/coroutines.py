"""Awaiting the code of one task, so that a cancel reaches it, in whatever event loop it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from ..errors import TaskCancelled
from .task_run import TaskRun

_AGAIN = 10.0
"""Seconds after which a task that goes on in spite of its cancel is cancelled again."""


async def awaited(work: TaskRun, code: Awaitable[Any]) -> Any:
    """What the code returns. From now on ``work.cancel()`` cancels the asyncio task that calls this.

    A CancelledError is a TaskCancelled if the work was cancelled; else it is an error like any other.
    """
    stop = _Stop(work)
    try:
        return await code
    except asyncio.CancelledError as error:
        if work.cancelled:
            raise TaskCancelled(f"task {work.record.id} was asked to end, or its claim is gone") from error
        raise
    finally:
        stop.is_over()


def run_here(work: TaskRun, code: Awaitable[Any]) -> Any:
    """What the code returns, in an event loop of its own in this thread."""
    return asyncio.run(awaited(work, code))


class _Stop:
    """Cancels the asyncio task that made it when the work is cancelled, and again if it goes on."""

    def __init__(self, work: TaskRun) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._next: asyncio.TimerHandle | None = None
        self._ended = False
        work.stop = self._ask
        if work.cancelled:  # before there was anybody to tell
            self._ask()

    def _ask(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs there
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if self._next is None:
            self._cancel()

    def _cancel(self) -> None:
        if not self._ended and self._task is not None:
            self._task.cancel()
            self._next = self._loop.call_later(_AGAIN, self._cancel)

    def is_over(self) -> None:
        self._ended = True
        if self._next is not None:
            self._next.cancel()

"""Awaiting the code of one task in any event loop, so that it can be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from ..errors import TaskCancelled
from .task_run import TaskRun

_CANCEL_AGAIN = 10.0
"""Seconds after which a task that continues although it was cancelled is cancelled again."""


async def awaited(run: TaskRun, code: Awaitable[Any]) -> Any:
    """Return what the code returns. Meanwhile ``run.cancel()`` cancels the asyncio task that awaits this.

    A CancelledError becomes TaskCancelled if the run was cancelled. Otherwise it is an error like any other.
    """
    stop = _Stop(run)
    try:
        return await code
    except asyncio.CancelledError as error:
        if run.cancelled:
            text = f"task {run.record.id}: cancellation was requested, or its claim was lost"
            raise TaskCancelled(text) from error
        raise
    finally:
        stop.is_over()


def run_here(run: TaskRun, code: Awaitable[Any]) -> Any:
    """Return what the code returns, run in this thread in an event loop of its own."""
    return asyncio.run(awaited(run, code))


class _Stop:
    """Cancels the asyncio task that made it when the run is cancelled, and again if it continues."""

    def __init__(self, run: TaskRun) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._next: asyncio.TimerHandle | None = None
        self._ended = False
        run.stop = self._request
        if run.cancelled:  # it was cancelled before it could be stopped
            self._request()

    def _request(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs there
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if self._next is None:
            self._cancel()

    def _cancel(self) -> None:
        if not self._ended and self._task is not None:
            self._task.cancel()
            self._next = self._loop.call_later(_CANCEL_AGAIN, self._cancel)

    def is_over(self) -> None:
        self._ended = True
        if self._next is not None:
            self._next.cancel()

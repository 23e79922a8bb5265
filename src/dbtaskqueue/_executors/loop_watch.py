"""Logs what blocks an event loop. While it is blocked, no task of that loop continues or can be cancelled."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

from .._system.log import event
from .task_run import TaskRun

_BLOCKED = 1.0
"""Seconds without an answer after which a loop counts as blocked."""
_PAUSE = 0.5
_MOST_NAMED = 20
"""How many task ids are logged."""


class LoopWatch:
    """A thread that checks whether the loop answers while tasks run in it. Each blockage is logged once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, thread: threading.Thread, running: Mapping[asyncio.Task[None], TaskRun]
    ) -> None:
        self._loop = loop
        self._watched = thread
        self._running = running
        self._awake = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="dbtaskqueue-loop-watch", daemon=True).start()

    def wake(self) -> None:
        """Start watching, because a task starts."""
        if not self._awake.is_set():
            self._awake.set()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._awake.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._awake.clear()
            if self._running:
                self._check()
                self._closed.wait(_PAUSE)
            else:  # a task that has started since the clear() has set it again
                self._awake.wait()

    def _check(self) -> None:
        answered = threading.Event()
        started = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # the loop is closed
            return
        if answered.wait(_BLOCKED) or self._closed.is_set():
            return
        self._report(time.monotonic() - started)
        while not answered.wait(_PAUSE) and not self._closed.is_set():
            pass
        if answered.is_set():
            event(logging.WARNING, "the event loop runs again", seconds=round(time.monotonic() - started, 1))

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._watched.ident or 0)
        if frame is None:
            return
        # frames may change while they are read; traceback can handle that
        stack = traceback.extract_stack(frame)
        running = dict(self._running)
        now = asyncio.current_task(self._loop)
        fields: dict[str, Any] = {"seconds": round(seconds, 1)}
        if now in running:  # otherwise another asyncio task that a task has started is the one that blocks
            fields["task_id"] = running[now].record.id
        ids = sorted(run.record.id for run in running.values())
        more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
        fields["tasks"] = ",".join(map(str, ids[:_MOST_NAMED])) + more
        fields["at"] = f"{stack[-1].filename}:{stack[-1].lineno}"
        event(logging.WARNING, "the event loop is blocked", stack="".join(stack.format()), **fields)

"""Stopping tasks that exceed a limit of theirs, without asking the database for anything."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from .._executors import linux
from .._executors.work import Work
from ..errors import LimitExceeded
from ..limits import Limits
from ..log import event


class LimitWatch:
    """A duty: compare what running tasks have taken with what they may take. What stands still takes no time."""

    interval = 0.25

    def __init__(self, running: Callable[[], Iterable[Work]]) -> None:
        self._running = running
        self._watched: WeakKeyDictionary[Work, _Watched] = WeakKeyDictionary()

    def __call__(self) -> None:
        look = functools.cache(linux.processes)  # one for all, if anybody needs it
        for work in self._running():
            if work.record.limits is None or work.began == 0.0 or work.cancelled:
                continue
            watched = self._watched.setdefault(work, _Watched(work.record.limits))
            if (reason := watched.exceeded(work, look)) is not None:
                stacks = "" if work.is_held or "memory" in reason else _stacks(work)
                event(logging.WARNING, "task exceeds a limit and is stopped", task_id=work.record.id, limit=reason)
                work.exceeded = LimitExceeded(
                    f"{reason}\n\nits threads at that moment:\n{stacks}" if stacks else reason
                )
                work.cancel()


class _Watched:
    """What is remembered of one work; not the work itself, which nothing here may keep alive."""

    def __init__(self, limits: str | None) -> None:
        self._limits = Limits.from_json(limits)
        self._told: object = None
        self._told_at = 0.0

    def exceeded(self, work: Work, look: Callable[[], dict[int, linux.Proc]]) -> str | None:
        """The limit that it exceeds, in words."""
        limits, now = self._limits, work.clock()
        if work.tally is not None and (latest := work.tally.latest) is not self._told:
            self._told, self._told_at = latest, now
        if limits.time is not None and now - work.began > limits.time:
            return f"the task ran longer than its time_limit of {limits.time:g} s"
        if limits.stall is not None and now - max(self._told_at, work.began) > limits.stall:
            return f"the task told no progress for longer than its stall_limit of {limits.stall:g} s"
        if limits.memory is not None and work.pid is not None:
            memory = linux.memory(proc.pid for proc in linux.family(work.pid, look()))
            if memory > limits.memory:
                return f"the task took {memory} bytes of memory, more than its memory_limit of {limits.memory}"
        return None


def _stacks(work: Work) -> str:
    if work.stacks is not None:
        return work.stacks()
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in frames.items()
    )

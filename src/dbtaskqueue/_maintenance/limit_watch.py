"""Stopping tasks that exceed a limit of theirs, without asking the database for anything."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from .._executors.task_run import TaskRun
from .._formats import task_options
from .._system.contract import Proc
from .._system.log import event
from .._system.processes import system
from ..errors import LimitExceeded
from .stacks import stacks


class LimitWatch:
    """A duty: compare what running tasks have taken with what they may take. What stands still takes no time."""

    interval = 0.25

    def __init__(self, running: Callable[[], Iterable[TaskRun]]) -> None:
        self._running = running
        self._watched: WeakKeyDictionary[TaskRun, _Watched] = WeakKeyDictionary()

    def __call__(self) -> None:
        look = functools.cache(system.processes)  # one for all, if anybody needs it
        for work in self._running():
            if work.record.options is None or work.started == 0.0 or work.cancelled:
                continue
            watched = self._watched.setdefault(work, _Watched(work.record.options))
            if (reason := watched.exceeded(work, look)) is not None:
                event(logging.WARNING, "task exceeds a limit and is stopped", task_id=work.record.id, limit=reason.text)
                work.exceeded = LimitExceeded(reason.text + (_explained(work) if reason.is_of_time else ""))
                work.cancel()


class _Reason(NamedTuple):
    """The limit that a task exceeds, in words. Where it is one of time, the stacks of that moment may tell why."""

    text: str
    is_of_time: bool


class _Watched:
    """What is remembered of one work; not the work itself, which nothing here may keep alive."""

    def __init__(self, options: str | None) -> None:
        self._limits = task_options.decode(options).limits
        self._told: object = None
        self._told_at = 0.0

    def exceeded(self, work: TaskRun, look: Callable[[], dict[int, Proc]]) -> _Reason | None:
        """The limit that it exceeds."""
        limits, now = self._limits, work.clock()
        if work.tracker is not None and (latest := work.tracker.latest) is not self._told:
            self._told, self._told_at = latest, now
        if limits.time is not None and now - work.started > limits.time:
            return _Reason(f"the task ran longer than its time_limit of {limits.time:g} s", is_of_time=True)
        if limits.stall is not None and now - max(self._told_at, work.started) > limits.stall:
            text = f"the task told no progress for longer than its stall_limit of {limits.stall:g} s"
            return _Reason(text, is_of_time=True)
        if limits.memory is not None and work.pid is not None and _sees_memory():
            memory = system.memory(proc.pid for proc in system.family(work.pid, look()))
            if memory > limits.memory:
                text = f"the task took {memory} bytes of memory, more than its memory_limit of {limits.memory}"
                return _Reason(text, is_of_time=False)
        return None


@functools.cache
def _sees_memory() -> bool:
    """Whether the system tells what processes take; if not, this is logged once."""
    if not system.sees_processes:
        event(logging.WARNING, "memory limits are not enforced on this system", fix="install psutil")
    return system.sees_processes


def _explained(work: TaskRun) -> str:
    found = work.stacks() if work.stacks is not None else stacks()
    return f"\n\nits threads at that moment:\n{found}" if found else ""

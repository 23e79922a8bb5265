"""Stops tasks that exceed one of their limits. It needs no database."""

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
    """A duty: compare what running tasks use with their limits. Time while a task is suspended does not count."""

    interval = 0.25

    def __init__(self, running: Callable[[], Iterable[TaskRun]]) -> None:
        self._running = running
        self._watched: WeakKeyDictionary[TaskRun, _Watched] = WeakKeyDictionary()

    def __call__(self) -> None:
        processes = functools.cache(system.processes)  # read once for all tasks, and only if one needs it
        for run in self._running():
            if run.record.options is None or run.started == 0.0 or run.cancelled:
                continue
            watched = self._watched.setdefault(run, _Watched(run.record.options))
            if (reason := watched.exceeded(run, processes)) is not None:
                event(logging.WARNING, "task exceeds a limit and is stopped", task_id=run.record.id, limit=reason.text)
                run.exceeded = LimitExceeded(reason.text + (_explained(run) if reason.is_of_time else ""))
                run.cancel()


class _Reason(NamedTuple):
    """The limit that a task exceeds, in words. For a time limit, the stacks of its threads are added."""

    text: str
    is_of_time: bool


class _Watched:
    """What is remembered about one run, without a reference that would keep it alive."""

    def __init__(self, options: str | None) -> None:
        self._limits = task_options.decode(options).limits
        self._reported: object = None
        self._reported_at = 0.0

    def exceeded(self, run: TaskRun, processes: Callable[[], dict[int, Proc]]) -> _Reason | None:
        """Return the limit that it exceeds, if any."""
        limits, now = self._limits, run.clock()
        if run.tracker is not None and (latest := run.tracker.latest) is not self._reported:
            self._reported, self._reported_at = latest, now
        if limits.time is not None and now - run.started > limits.time:
            return _Reason(f"the task ran longer than its time_limit of {limits.time:g} s", is_of_time=True)
        if limits.stall is not None and now - max(self._reported_at, run.started) > limits.stall:
            text = f"the task reported no progress for longer than its stall_limit of {limits.stall:g} s"
            return _Reason(text, is_of_time=True)
        if limits.memory is not None and run.pid is not None and _sees_memory():
            memory = system.memory(proc.pid for proc in system.family(run.pid, processes()))
            if memory > limits.memory:
                text = f"the task used {memory} bytes of memory, more than its memory_limit of {limits.memory}"
                return _Reason(text, is_of_time=False)
        return None


@functools.cache
def _sees_memory() -> bool:
    """Return whether the memory of processes can be read on this system. If not, log that once."""
    if not system.sees_processes:
        event(logging.WARNING, "memory limits are not enforced on this system", fix="install psutil")
    return system.sees_processes


def _explained(run: TaskRun) -> str:
    found = run.stacks() if run.stacks is not None else stacks()
    return f"\n\nits threads at that moment:\n{found}" if found else ""

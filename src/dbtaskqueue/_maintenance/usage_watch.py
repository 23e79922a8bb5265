"""Measuring from time to time what the processes of running tasks take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from .._executors.task_run import TaskRun
from .._system.processes import system


class UsageWatch:
    """A duty: measure the memory and the CPU time of each running task's processes, for the people who watch it.

    It starts when a task is a second old, so that short ones cost nothing here. Where the system shows no processes,
    it does nothing.
    """

    interval = 1.0

    def __init__(self, running: Callable[[], Iterable[TaskRun]]) -> None:
        self._running = running
        self._known: set[TaskRun] = set()

    def __call__(self) -> None:
        if not system.sees_processes:
            return
        works = {work for work in self._running() if work.pid is not None}
        old, self._known = works & self._known, works
        if not old:
            return
        everybody = system.processes()
        for work in old:
            if work.pid is None:
                continue
            family = system.family(work.pid, everybody)
            memory = system.memory(proc.pid for proc in family)
            cpu = sum(map(system.cpu, family))
            work.spend(memory=memory)
            work.usage = json.dumps({"memory": memory, "cpu": round(cpu, 2), "processes": len(family)})

"""Measures the memory and the CPU time of running tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from .._executors.task_run import TaskRun
from .._system.processes import system


class UsageWatch:
    """A duty: measure the processes of each running task, so that ``show`` and ``watch`` can print their usage.

    A task is first measured after it has run for a second, so short tasks cost nothing. Nothing is measured on a system
    where processes cannot be read.
    """

    interval = 1.0

    def __init__(self, running: Callable[[], Iterable[TaskRun]]) -> None:
        self._running = running
        self._known: set[TaskRun] = set()

    def __call__(self) -> None:
        if not system.sees_processes:
            return
        runs = {run for run in self._running() if run.pid is not None}
        old, self._known = runs & self._known, runs
        if not old:
            return
        every_process = system.processes()
        for run in old:
            if run.pid is None:
                continue
            family = system.family(run.pid, every_process)
            memory = system.memory(proc.pid for proc in family)
            cpu = sum(map(system.cpu, family))
            run.spend(memory=memory)
            run.usage = json.dumps({"memory": memory, "cpu": round(cpu, 2), "processes": len(family)})

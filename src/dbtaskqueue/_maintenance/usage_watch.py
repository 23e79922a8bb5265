"""Looking now and then at what the processes of running tasks take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from .._executors.task_run import TaskRun
from .._system import linux


class UsageWatch:
    """A duty: the memory and the CPU time of each running task's processes, for whoever looks at it.

    The first look comes when a task is a second old: short ones cost nothing here.
    """

    interval = 1.0

    def __init__(self, running: Callable[[], Iterable[TaskRun]]) -> None:
        self._running = running
        self._known: set[TaskRun] = set()

    def __call__(self) -> None:
        works = {work for work in self._running() if work.pid is not None}
        old, self._known = works & self._known, works
        if not old:
            return
        everybody = linux.processes()
        for work in old:
            if work.pid is None:
                continue
            family = linux.family(work.pid, everybody)
            memory = linux.memory(proc.pid for proc in family)
            cpu = sum(proc.cpu for proc in family)
            work.spend(memory=memory)
            work.usage = json.dumps({"memory": memory, "cpu": round(cpu, 2), "processes": len(family)})

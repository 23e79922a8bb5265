"""The place in which a process runs, and whether a process of the same place still exists.

Two processes are in the *same place* if their boot and PID namespace are equal. Then a pid means the same process to
both, and pid and start time show immediately whether a process is alive. If they are unknown, no two processes are in
the same place, and only the heartbeat shows whether a worker is alive.
"""

from __future__ import annotations

from typing import Protocol

from .contract import Place as Place
from .processes import system


def here() -> Place | None:
    """Return this process's place, or None if it is unknown."""
    return system.here()


def exists(pid: int, started: int) -> bool | None:
    """Return whether the process with this pid and start time exists in this place; None if that is unknown."""
    return system.exists(pid, started)


class Process(Protocol):
    """A process as its worker's row describes it. The parts of its place are None if they were unknown."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def boot(self) -> str | None:
        """An id of the machine and its last boot."""
        ...

    @property
    def namespace(self) -> str | None:
        """Its PID namespace."""
        ...

    @property
    def started(self) -> int | None:
        """Its start time, in the unit of its system."""
        ...


def is_elsewhere(process: Process, here: Place | None) -> bool:
    """Return whether a process in the place ``here`` can see only by heartbeats that this process is alive."""
    return here is None or (process.boot, process.namespace) != (here.boot, here.namespace)


def is_gone(process: Process, here: Place | None) -> bool | None:
    """Return whether the process no longer exists; None if pids in the place ``here`` cannot show that."""
    if is_elsewhere(process, here) or process.started is None:
        return None
    alive = exists(process.pid, process.started)
    return None if alive is None else not alive

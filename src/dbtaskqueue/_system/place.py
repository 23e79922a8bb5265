"""Where a process lives, and whether a process of the same place still exists.

Two processes are in the *same place* when boot and PID namespace are equal: then a pid means the same to both, and pid
and start time tell immediately whether a process is alive. Where the system does not tell them, no two processes are in
the same place and only the heartbeat counts.
"""

from __future__ import annotations

from typing import Protocol

from .contract import Place as Place
from .processes import system


def here() -> Place | None:
    """Return this process's place, or None if the system does not tell."""
    return system.here()


def exists(pid: int, started: int) -> bool | None:
    """Return whether the process of this place with that pid and start exists; None if the system does not tell."""
    return system.exists(pid, started)


class Process(Protocol):
    """A process as its worker's row describes it; None if the system did not tell its place."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def boot(self) -> str | None:
        """What its machine calls this boot."""
        ...

    @property
    def namespace(self) -> str | None:
        """Its PID namespace."""
        ...

    @property
    def started(self) -> int | None:
        """Its start, in the unit of its system."""
        ...


def is_elsewhere(process: Process, here: Place | None) -> bool:
    """Return whether only heartbeats can show, in the place ``here``, that the process is alive."""
    return here is None or (process.boot, process.namespace) != (here.boot, here.namespace)


def is_gone(process: Process, here: Place | None) -> bool | None:
    """Return whether the process no longer exists, as far as pids show in the place ``here``; else None."""
    if is_elsewhere(process, here) or process.started is None:
        return None
    alive = exists(process.pid, process.started)
    return None if alive is None else not alive

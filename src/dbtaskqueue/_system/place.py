"""Where a process lives, and whether a process of the same place still exists.

Two processes are in the *same place* when boot and PID namespace are equal: then a pid means the same to both, and pid
and start time tell immediately whether a process is alive. Where the system does not tell them, no two processes are in
the same place and only the heartbeat counts.
"""

from __future__ import annotations

from .contract import Place as Place
from .processes import system


def here() -> Place | None:
    """Return this process's place, or None if the system does not tell."""
    return system.here()


def exists(pid: int, started: int) -> bool | None:
    """Return whether the process of this place with that pid and start exists; None if the system does not tell."""
    return system.exists(pid, started)

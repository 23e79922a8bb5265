"""Where a process lives, and whether a process of the same place still exists.

Two processes are in the *same place* when boot id and PID namespace are equal: then a pid means the
same to both, and pid and start time decide at once who is alive. Where they cannot be read, no two
processes are in the same place and only the heartbeat counts. Reads ``/proc``, nothing else.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

# PROC_PID_INIT_INO of Linux: the PID namespace that every other one can be seen from
_INITIAL_NAMESPACE = "pid:[4026531836]"


class Place(NamedTuple):
    """``boot`` and ``namespace`` name the place; ``started`` is this process's start in clock ticks."""

    boot: str
    namespace: str
    started: int

    @property
    def is_initial(self) -> bool:
        """Whether this is the machine's own PID namespace, not a container's."""
        return self.namespace == _INITIAL_NAMESPACE


def here() -> Place | None:
    """This process's place, or None where it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        pid, _, started = _stat("self")
    except (OSError, ValueError, IndexError):
        return None
    # a /proc of another namespace numbers processes differently: it says nothing about ours
    return Place(boot, namespace, started) if boot and pid == os.getpid() else None


def exists(pid: int, started: int) -> bool | None:
    """Whether the process of this place with that pid and start time exists; None if hidden from us."""
    try:
        found, state, ticks_at_start = _stat(str(pid))
    except (FileNotFoundError, ProcessLookupError):
        return None if _answers(pid) else False
    except (OSError, ValueError, IndexError):
        return None
    return found == pid and ticks_at_start == started and state not in "ZXx"


class Process(Protocol):
    """A process as its worker's row describes it; None where its place could not be read."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def boot(self) -> str | None:
        """The boot id of its machine."""
        ...

    @property
    def namespace(self) -> str | None:
        """Its PID namespace."""
        ...

    @property
    def started(self) -> int | None:
        """Its start time in clock ticks."""
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


def _answers(pid: int) -> bool:
    """Whether the kernel knows the pid although /proc shows nothing (mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _stat(pid: str) -> tuple[int, str, int]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read().decode("ascii", "replace")
    number, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return int(number), fields[0], int(fields[19])

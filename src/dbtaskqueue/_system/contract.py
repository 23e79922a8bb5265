"""What the package asks of the operating system about processes. Pure.

``System`` is the interface, and also the implementation for a system without a source of such information: only
heartbeats show liveness, memory and CPU are not measured, and processes are found only by their group. ``linux.py`` and
``psutil_.py`` are better sources; ``processes.py`` chooses one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

_INITIAL_NAMESPACE = "pid:[4026531836]"
"""The PID namespace that contains all others: PROC_PID_INIT_INO on Linux."""
NO_NAMESPACES = "host"
"""The namespace on a system that has only one."""
_LONGEST_KILL = 5.0
"""Seconds after which ``kill_marked`` stops trying."""


class Place(NamedTuple):
    """``boot`` and ``namespace`` identify the place. ``started``: the start time, in the system's own unit."""

    boot: str
    namespace: str
    started: int

    @property
    def is_initial(self) -> bool:
        """Whether this is the machine's own PID namespace, not that of a container."""
        return self.namespace in (_INITIAL_NAMESPACE, NO_NAMESPACES)


class Proc(NamedTuple):
    """One process in a snapshot."""

    pid: int
    parent: int
    group: int
    is_zombie: bool
    cpu: float | None
    """Seconds of CPU time of the process and the children that it has waited for; None: call ``System.cpu``."""


class System:
    """What the package needs from the system about processes. Subclasses override what their system can do."""

    name = "none"
    sees_processes = False
    """Whether ``processes``, ``memory`` and ``cpu`` return more than empty answers."""
    keeps_sent_descriptors = True
    """Whether a descriptor that was sent through a socket may be closed before it was received."""

    # -- who is alive ------------------------------------------------------------------------------

    def here(self) -> Place | None:
        """Return this process's place, or None if it is unknown."""
        return None

    def exists(self, pid: int, started: int) -> bool | None:
        """Return whether the process with this pid and start time exists in this place; None if that is unknown."""
        return None

    # -- a snapshot --------------------------------------------------------------------------------

    def processes(self) -> dict[int, Proc]:
        """Return all processes that this one can see, by pid."""
        return {}

    def family(self, root: int, processes: dict[int, Proc] | None = None) -> list[Proc]:
        """Return the process with this pid, its descendants, and the members of the group that it leads."""
        processes = self.processes() if processes is None else processes
        below: dict[int, list[int]] = {}
        for proc in processes.values():
            below.setdefault(proc.parent, []).append(proc.pid)
            if proc.group == root and proc.pid != root:
                below.setdefault(root, []).append(proc.pid)
        members: dict[int, Proc] = {}
        to_visit = [root]
        while to_visit:
            pid = to_visit.pop()
            if pid in processes and pid not in members:
                members[pid] = processes[pid]
                to_visit += below.get(pid, [])
        return list(members.values())

    def children(self) -> set[int]:
        """Return the pids of this process's own children, without zombies."""
        own = os.getpid()
        return {proc.pid for proc in self.processes().values() if proc.parent == own and not proc.is_zombie}

    def memory(self, pids: Iterable[int]) -> int:
        """Return the bytes of memory that these processes use."""
        return 0

    def cpu(self, proc: Proc) -> float:
        """Return the seconds of CPU time that a process of a snapshot has used."""
        return proc.cpu or 0.0

    # -- the end of processes ----------------------------------------------------------------------

    def die_with_parent(self, number: int = signal.SIGKILL) -> bool:
        """Request a signal for when the parent ends. Return whether it will arrive; if not, poll ``os.getppid``."""
        return False

    def adopt_orphans(self) -> bool:
        """Become the parent of descendants whose parent ends. Return whether the system supports that."""
        return False

    def reap(self, before: Callable[[int], object]) -> tuple[int, int, resource.struct_rusage] | None:
        """Reap one child that has ended. Return its pid, status and usage, or None if no child has ended.

        ``before`` is called with its pid. Where ``waitid`` exists (on macOS from Python 3.13 on), that is before the
        child is reaped, so the pid cannot belong to another process yet. Raises ChildProcessError without children.
        """
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            return None
        before(pid)
        return pid, status, usage

    def has_children(self) -> bool:
        """Return whether this process has children, including zombies. It may reap a zombie."""
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        return True

    def kill_marked(self, mark: str) -> None:
        """Kill every process that has ``mark`` (``NAME=value``) in the environment that it was started with."""
        deadline = time.monotonic() + _LONGEST_KILL
        own = os.getpid()
        while time.monotonic() < deadline:
            found = [
                proc.pid
                for proc in self.processes().values()
                if proc.pid != own and not proc.is_zombie and self.has_mark(proc.pid, mark)
            ]
            if not found:
                return
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def has_mark(self, pid: int, mark: str) -> bool:
        """Return whether the process was started with ``mark`` in its environment; False if that cannot be read."""
        return False

    # -- the rest ----------------------------------------------------------------------------------

    def anonymous_file(self) -> int:
        """Return the descriptor of an empty file without a name, for memory that processes share."""
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def file_system(self, path: str) -> str | None:
        """Return the type of the file system that ``path`` is on, as in ``mount(8)``; None if it is not known."""
        return None


def peak_memory(usage: resource.struct_rusage) -> int:
    """Return ``ru_maxrss`` in bytes: macOS counts bytes, other systems count KiB."""
    return usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024


def file_system_of(path: str, mounts: Iterable[tuple[str, str]]) -> str | None:
    """Return the type of the innermost of ``mounts`` (mount point, type) that contains ``path``."""
    real = os.path.realpath(path)
    best, kind = "", None
    for mount, type_ in mounts:
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, type_
    return kind

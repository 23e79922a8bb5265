"""What Linux offers to keep processes together; elsewhere these do nothing, and process groups have to do.

``prctl(2)``, ``proc(5)``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PATIENCE = 5.0


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes  # only in processes that need it

        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def die_with_parent(number: int = signal.SIGKILL) -> bool:
    """Get this signal when the parent's thread that forked this process ends."""
    return _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose parent ends."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


class Proc(NamedTuple):
    """One process as ``/proc`` shows it; CPU time in seconds, its own and that of children it waited for."""

    pid: int
    parent: int
    group: int
    is_zombie: bool
    cpu: float


def processes() -> dict[int, Proc]:
    """All processes that can be seen, by pid."""
    found: dict[int, Proc] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and (proc := _read(int(name))) is not None:
                found[proc.pid] = proc
    return found


def _read(pid: int) -> Proc | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        cpu = sum(map(int, fields[11:15])) / _TICKS
        return Proc(pid, int(fields[1]), int(fields[2]), fields[0] in (b"Z", b"X"), cpu)
    except (OSError, ValueError, IndexError):
        return None


def family(root: int, everybody: dict[int, Proc] | None = None) -> list[Proc]:
    """The process with this pid, its descendants, and the members of the group that it leads."""
    everybody = processes() if everybody is None else everybody
    below: dict[int, list[int]] = {}
    for proc in everybody.values():
        below.setdefault(proc.parent, []).append(proc.pid)
        if proc.group == root and proc.pid != root:
            below.setdefault(root, []).append(proc.pid)
    members: dict[int, Proc] = {}
    to_visit = [root]
    while to_visit:
        pid = to_visit.pop()
        if pid in everybody and pid not in members:
            members[pid] = everybody[pid]
            to_visit += below.get(pid, [])
    return list(members.values())


def children() -> set[int]:
    """The pids of this process's own children, the dead ones that nobody has waited for left out."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            pids = {int(pid) for pid in file.read().split()}
        return {pid for pid in pids if (proc := _read(pid)) is not None and not proc.is_zombie}
    except (OSError, ValueError):
        own = os.getpid()
        return {proc.pid for proc in processes().values() if proc.parent == own and not proc.is_zombie}


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory that these processes take, what they share with others divided among the sharers."""
    return sum(map(_memory, pids))


def _memory(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def kill_marked(mark: str) -> None:
    """Kill every process that has ``mark`` (``NAME=value``) in the environment that it was started with."""
    wanted = mark.encode()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found = [proc.pid for proc in processes().values() if not proc.is_zombie and _has(proc.pid, wanted)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _has(pid: int, mark: bytes) -> bool:
    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False

"""Processes on systems other than Linux, by ``psutil``. It is meant for macOS, and tested only on Linux.

Differences from Linux:

- Liveness: a process whose start time differs from the stored one is not presumed dead; its heartbeat decides. When the
  clock is set, psutil corrects start times, and two processes may correct them differently.
- Memory is the resident set. Memory that processes share is counted for each of them, so a ``memory_limit`` is reached
  earlier. The stored peak of a task may be that of an earlier task in the same process.
- No process adopts orphans. Processes that a task has started are found and killed by their group, and as descendants
  while the task's process is alive. If that crashes, a process that has left the group keeps running.
- A process gets no signal when its parent ends, so it polls. A command cannot poll: it keeps running if its worker and
  the worker's fork server are killed at the same time.
- Processes of a killed fork server are found by their environment, which macOS hides for its own programs, such as
  ``/bin/sh``.
- Memory that a worker shares with a process is a temporary file, not a memfd.
- Writes to a SQLite file are noticed by polling it, up to 50 times a second, not by inotify.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterable, Iterator

import psutil

from .contract import NO_NAMESPACES, Place, Proc, System, file_system_of


class Psutil(System):
    """The implementation with psutil. ``Place.started`` is in milliseconds since 1970."""

    name = "psutil"
    sees_processes = True
    keeps_sent_descriptors = sys.platform != "darwin"  # see multiprocessing.reduction.ACKNOWLEDGE in CPython

    def here(self) -> Place | None:
        """Return this process's place, or None if psutil cannot read it."""
        try:
            return Place(_boot(), NO_NAMESPACES, _started(psutil.Process()))
        except (psutil.Error, OSError, RuntimeError):
            return None

    def exists(self, pid: int, started: int) -> bool | None:
        """Return whether the process exists; None if its start time differs or cannot be read."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return True if _started(process) == started else None
        except psutil.NoSuchProcess:
            return False
        except (psutil.Error, OSError, OverflowError, ValueError, RuntimeError):
            return None

    def processes(self) -> dict[int, Proc]:
        """Return all processes that can be seen, by pid."""
        try:
            pids = psutil.pids()
        except (psutil.Error, OSError):
            return {}
        return {proc.pid: proc for proc in map(_read, pids) if proc is not None}

    def memory(self, pids: Iterable[int]) -> int:
        """Return the bytes in the resident sets of these processes."""
        return sum(map(_memory, pids))

    def cpu(self, proc: Proc) -> float:
        """Return the seconds of CPU time of a process, and of the children that it waited for if psutil knows them."""
        with contextlib.suppress(psutil.Error, OSError):
            times = psutil.Process(proc.pid).cpu_times()
            children = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            return float(times.user + times.system + children)
        return 0.0

    def has_mark(self, pid: int, mark: str) -> bool:
        """Return whether the process was started with ``mark`` in its environment; False if that cannot be read."""
        name, _, value = mark.partition("=")
        try:
            return bool(psutil.Process(pid).environ().get(name) == value)
        except (psutil.Error, OSError):
            return False

    def file_system(self, path: str) -> str | None:
        """Return the type of the file system that ``path`` is on; None if the mounts cannot be read."""
        return file_system_of(path, _mounts())


def _boot() -> str:
    """Return an id that differs after each boot and on each machine, so that two machines are never the same place."""
    return _boot_session() or f"{uuid.getnode():012x}-{psutil.boot_time():.0f}"


def _boot_session() -> str | None:
    """Return the UUID that macOS assigns to each boot. The boot time would change whenever the clock is set."""
    if sys.platform != "darwin":
        return None
    try:
        import ctypes

        text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        found = ctypes.CDLL(None).sysctlbyname(
            b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0)
        )
    except (ImportError, OSError, AttributeError):
        return None
    return text.value.decode("ascii", "replace") or None if found == 0 else None


def _started(process: psutil.Process) -> int:
    milliseconds: int = round(process.create_time() * 1000)
    return milliseconds


def _read(pid: int) -> Proc | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
            return Proc(pid, process.ppid(), os.getpgid(pid), is_zombie, None)
    except (psutil.Error, OSError):
        return None


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return 0


def _mounts() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(psutil.Error, OSError):
        for partition in psutil.disk_partitions(all=True):
            yield partition.mountpoint, partition.fstype

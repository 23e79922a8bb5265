"""Processes on Linux: ``proc(5)``, ``prctl(2)``, ``memfd_create(2)``."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from .contract import Place, Proc, System, file_system_of

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Linux(System):
    """The implementation for Linux. ``Place.started`` is in clock ticks since the boot."""

    name = "linux"
    sees_processes = True

    def here(self) -> Place | None:
        """Return this process's place, or None if it cannot be read."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                boot = file.read().strip()
            namespace = os.readlink("/proc/self/ns/pid")
            pid, _, started = _stat("self")
        except (OSError, ValueError, IndexError):
            return None
        # in the /proc of another namespace, our processes have other pids
        return Place(boot, namespace, started) if boot and pid == os.getpid() else None

    def exists(self, pid: int, started: int) -> bool | None:
        """Return whether the process exists; None if /proc hides it from this user."""
        try:
            found, state, ticks_at_start = _stat(str(pid))
        except (FileNotFoundError, ProcessLookupError):
            return None if _answers(pid) else False
        except (OSError, ValueError, IndexError):
            return None
        return found == pid and ticks_at_start == started and state not in "ZXx"

    def processes(self) -> dict[int, Proc]:
        """Return all processes that can be seen, by pid."""
        try:
            names = os.listdir("/proc")
        except OSError:
            return {}
        found = (_read(int(name)) for name in names if name.isdigit())
        return {proc.pid: proc for proc in found if proc is not None}

    def children(self) -> set[int]:
        """Return the pids of this process's own children, without zombies."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
                pids = {int(pid) for pid in file.read().split()}
        except (OSError, ValueError):
            return super().children()
        return {pid for pid in pids if (proc := _read(pid)) is not None and not proc.is_zombie}

    def memory(self, pids: Iterable[int]) -> int:
        """Return the bytes of memory of these processes. Shared memory is divided among the processes that share it."""
        return sum(map(_memory, pids))

    def die_with_parent(self, number: int = signal.SIGKILL) -> bool:
        """Request a signal. It arrives when the parent's thread that has forked this process ends."""
        return _prctl(_PR_SET_PDEATHSIG, number)

    def adopt_orphans(self) -> bool:
        """Become the parent of descendants whose parent ends."""
        return _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def reap(self, before: Callable[[int], object]) -> tuple[int, int, resource.struct_rusage] | None:
        """Wait for one child that has ended; ``before`` gets its pid while that still belongs to it."""
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if dead is None:
            return None
        before(dead.si_pid)
        return os.wait4(dead.si_pid, 0)

    def has_children(self) -> bool:
        """Return whether this process has children, including zombies."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def has_mark(self, pid: int, mark: str) -> bool:
        """Return whether the process was started with ``mark`` in its environment; False if that cannot be read."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return mark.encode() in file.read().split(b"\0")
        except OSError:
            return False

    def anonymous_file(self) -> int:
        """Return the descriptor of a file in memory, or of a temporary one if this Python has no memfd."""
        return os.memfd_create("dbtaskqueue") if hasattr(os, "memfd_create") else super().anonymous_file()

    def file_system(self, path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
        """Return the type of the file system that ``path`` is on; None if the mounts cannot be read."""
        try:
            lines = Path(mounts).read_text("utf-8", "surrogateescape").splitlines()
        except OSError:
            return None
        return file_system_of(path, map(_mount, lines))


def _prctl(option: int, value: int) -> bool:
    try:
        import ctypes  # imported only in processes that need it

        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def _stat(pid: str) -> tuple[int, str, int]:
    """Return the pid, the state, and the start time in clock ticks."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read().decode("ascii", "replace")
    number, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return int(number), fields[0], int(fields[19])


def _answers(pid: int) -> bool:
    """Return whether the kernel knows the pid. With the mount option hidepid, /proc may not show it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _read(pid: int) -> Proc | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        cpu = sum(map(int, fields[11:15])) / _TICKS
        return Proc(pid, int(fields[1]), int(fields[2]), fields[0] in (b"Z", b"X"), cpu)
    except (OSError, ValueError, IndexError):
        return None


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


def _mount(line: str) -> tuple[str, str]:
    """Return the mount point and the type in a line of mountinfo."""
    fields, _, rest = line.partition(" - ")
    return fields.split()[4].replace("\\040", " "), rest.split()[0]

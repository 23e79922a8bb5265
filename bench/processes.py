"""Child processes for measurements: start them, end them, and read their costs from /proc."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHILDREN = Path(__file__).with_name("children")
_PATIENCE = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def run_child(
    script: str, *arguments: object, python: str = sys.executable, environment: dict[str, str] | None = None
) -> Any:
    """Run a script of ``children/`` to its end; return the JSON that it prints."""
    command = [python, str(CHILDREN / script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE, check=True, env=environment)
    return json.loads(done.stdout)


@contextlib.contextmanager
def started(*command: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process. At the end of the block it gets SIGTERM, and later SIGKILL."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, bufsize=0, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def start_child(
    script: str, *arguments: object, python: str | None = None
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Start a script of ``children/``."""
    return started(python or sys.executable, CHILDREN / script, *arguments)


def next_line(process: subprocess.Popen[bytes], patience: float = _PATIENCE) -> Any:
    """Return the next line of JSON that the process prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], patience)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise RuntimeError(f"{process.args} ended without an answer")
    return json.loads(line)


def family(pid: int) -> list[int]:
    """Return the pids of the process and all its descendants."""
    parents = dict(_parents())
    members = [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return members


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), int(_status(int(entry.name))[1])


def _status(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may have any character: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids: list[int]) -> float:
    """Return the user and system time that the processes have used so far, in seconds."""
    return sum(int(_status(pid)[11]) + int(_status(pid)[12]) for pid in pids) / _TICKS


def resident_mib(pids: list[int]) -> float:
    """Return the resident memory of all; shared pages count for each process."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE / 2**20


def proportional_mib(pids: list[int]) -> float:
    """Return the resident memory of all; each shared page is divided among the processes that share it."""
    return sum(smaps(pid, "Pss") for pid in pids) / 2**10


def smaps(pid: int, name: str) -> int:
    """Return the KiB of one kind of a process's memory: a line of smaps_rollup, see proc(5)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0

"""Rivals that run tasks in processes: RQ, with a Redis server for this run, and huey's process workers."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from . import databases
from .harness import Bench
from .processes import CHILDREN, run_child, started

WORKERS = 2
_PATIENCE = 60.0
_LOOK = 0.01
_SIZE = struct.calcsize("d")


def huey(bench: Bench, tasks: int, synchronous: str) -> float:
    """Return the tasks per second of huey's consumer with two process workers; see ``_pace``."""
    notes = bench.directory / "notes-of-huey"
    with databases.fresh(bench, _filled(bench, 2 * tasks)) as path, _removed(notes):
        environment = databases.huey_environment(path, synchronous, tasks) | {"BENCH_NOTES": str(notes)}
        consumer = Path(bench.rivals.python).with_name("huey_consumer")
        command = bench.rivals.python, consumer, "rival_tasks.huey", "-k", "process", "-w", WORKERS, "-q"
        with open(os.devnull, "w") as log, started(*command, env=environment, cwd=CHILDREN, stderr=log):
            return _pace(notes, tasks)


def _filled(bench: Bench, tasks: int) -> Path:
    path = bench.directory / f"huey-of-processes-{tasks}.sqlite"
    if not path.exists():
        environment = databases.huey_environment(path, "OFF", tasks) | {"BENCH_NOTES": os.devnull}
        run_child("rival_fill.py", "huey", tasks, python=bench.rivals.python, environment=environment)
    return path


def rq(bench: Bench, tasks: int) -> float:
    """Return the tasks per second of two of RQ's default workers, which fork a process for each task; see ``_pace``."""
    notes = bench.directory / "notes-of-rq"
    environment = os.environ | {"BENCH_NOTES": str(notes)}
    with _redis(bench.directory) as url, _removed(notes), contextlib.ExitStack() as stack:
        run_child("rival_fill.py", url, 2 * tasks, python=bench.rivals.python, environment=environment)
        command = bench.rivals.python, "-m", "rq.cli", "worker", "--quiet", "--url", url, "bench"
        log = stack.enter_context(open(os.devnull, "w"))
        for _ in range(WORKERS):
            stack.enter_context(started(*command, env=environment, cwd=CHILDREN, stderr=log))
        return _pace(notes, tasks)


def rq_fan_in(bench: Bench, jobs: int) -> float:
    """Return the jobs per second from the start of the first one to that of a job that depends on all of them."""
    notes = bench.directory / "notes-of-rq"
    environment = os.environ | {"BENCH_NOTES": str(notes)}
    with _redis(bench.directory) as url, _removed(notes):
        run_child("rival_fan_in.py", url, jobs, python=bench.rivals.python, environment=environment)
        command = bench.rivals.python, "-m", "rq.cli", "worker", "--quiet", "--url", url, "bench"
        with open(os.devnull, "w") as log, started(*command, env=environment, cwd=CHILDREN, stderr=log):
            return _pace(notes, jobs)


@functools.cache
def redis_version() -> str | None:
    """Return the version of the installed Redis server, or None."""
    if shutil.which("redis-server") is None:
        return None
    output = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return output.partition("v=")[2].split()[0]


@contextlib.contextmanager
def _redis(directory: Path) -> Iterator[str]:
    """Start a Redis server on a free port that writes nothing to disk, for the highest speed; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory
    with started("redis-server", *options):
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK)
        yield f"redis://127.0.0.1:{port}"


def _pace(notes: Path, tasks: int) -> float:
    """Return the tasks per second from the first start to that of task number ``tasks``; twice as many are enqueued."""
    deadline = time.monotonic() + _PATIENCE
    while not notes.exists() or notes.stat().st_size <= tasks * _SIZE:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the rival has not started {tasks} tasks within {_PATIENCE:.0f} s")
        time.sleep(_LOOK)
    beginning = sorted(each for (each,) in struct.iter_unpack("d", notes.read_bytes()[: (tasks + 1) * _SIZE]))
    return tasks / (beginning[-1] - beginning[0])


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)

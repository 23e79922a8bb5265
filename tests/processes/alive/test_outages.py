"""A worker survives an outage of its database: it logs it once, keeps retrying, and then stores its pending outcomes.

Here the database is a file. tests/processes/outages has the tests with servers.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import until
from processes.crash import scenario
from workers import WORKER, has_written

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.engine("sqlite")

READ_ONLY_WHILE_TOLD = """
import ctypes, os, sys, threading, time
shim, directory, order, how = ctypes.CDLL(sys.argv[4]), sys.argv[5], sys.argv[6], int(sys.argv[7])
def obey():
    was_told = False
    while True:
        is_told = os.path.exists(order)
        if is_told and not was_told:
            shim.crash_arm(directory.encode(), how, ctypes.c_long(1), ctypes.c_long(2**62))
        elif was_told and not is_told:
            shim.crash_disarm()
        was_told = is_told
        time.sleep(0.01)
threading.Thread(target=obey, daemon=True).start()
"""

UNAVAILABLE, AVAILABLE_AGAIN = "database unavailable", "database available again"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of the test's own, which can be filled."""
    directory = tmp_path / "disk"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("NO DISK CAN BE MOUNTED HERE: a full one is not tested")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def outage_of(
    process: subprocess.Popen[str], start: Callable[[], None], end: Callable[[], None], is_stored: Callable
) -> str:
    """Let a task end during an outage; return what the worker logged."""
    start()
    time.sleep(1.5)  # the duration of the outage, in which the worker retries
    end()
    until(is_stored, what="the pending outcome")
    process.terminate()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    return log


def check_log(log: str) -> None:
    assert log.count(UNAVAILABLE) == 1, log
    assert log.count(AVAILABLE_AGAIN) == 1, log
    assert "Traceback" not in log


def test_a_missing_file(url, worker, note, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = [tmp_path / f"taskqueue.sqlite{ending}" for ending in ("", "-wal", "-shm")]

    def move(sources: list[Path], target: Path) -> None:
        for file in sources:
            if file.exists():
                file.rename(target / file.name)

    with TaskQueue(url) as queue:
        task = queue.enqueue(["sleep", 0.5])
        process = worker()
        until(lambda: has_written(note, "start"))
        queue.store.disconnect()  # this process must not have the file open during the outage
        log = outage_of(
            process,
            lambda: move(files, elsewhere),
            lambda: move([elsewhere / file.name for file in files], tmp_path),
            lambda: task.refresh().state == "done",
        )
        check_log(log)
        assert task.attempt == 1


def test_a_locked_database_is_waited_for(url, worker, note, tmp_path):
    with TaskQueue(url) as queue:
        task = queue.enqueue(["sleep", 0.5])
        process = worker()
        until(lambda: has_written(note, "start"))
        other = sqlite3.connect(tmp_path / "taskqueue.sqlite", isolation_level=None)
        log = outage_of(
            process,
            lambda: other.execute("BEGIN IMMEDIATE"),
            lambda: other.execute("COMMIT"),
            lambda: task.refresh().state == "done",
        )
        other.close()
        assert UNAVAILABLE not in log, "a lock that is released in time is not an outage"
        assert task.attempt == 1


def start_on(disk: Path, start, note, seconds: float):
    """Start a worker whose database is on that disk, and wait until it runs a task."""
    url = f"sqlite:///{disk}/taskqueue.sqlite"
    queue = TaskQueue(url)
    task = queue.enqueue(["sleep", seconds])
    process = start([sys.executable, "-c", WORKER, url, str(note), "{}"])
    until(lambda: has_written(note, "start"))
    return queue, task, process


def test_a_full_disk(disk, start, note):
    queue, task, process = start_on(disk, start, note, 1)
    ballast = disk / "ballast"

    def fill() -> None:
        with contextlib.closing(sqlite3.connect(disk / "taskqueue.sqlite", isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the next write needs space
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    log = outage_of(process, fill, ballast.unlink, lambda: task.refresh().state == "done")
    check_log(log)
    assert task.attempt == 1
    queue.close()


def test_a_read_only_file_system(url, start, note, shim, tmp_path):
    """As after the kernel has found an error on the disk: open files stay open, and every write is refused."""
    order = tmp_path / "read-only"
    with TaskQueue(url) as queue:
        task = queue.enqueue(["sleep", 0.5])
        code = READ_ONLY_WHILE_TOLD + WORKER
        arguments = [url, note, "{}", shim, tmp_path / "taskqueue", order, scenario.READ_ONLY]
        process = start(["env", f"LD_PRELOAD={shim}", sys.executable, "-c", code, *map(str, arguments)])
        until(lambda: has_written(note, "start"))
        log = outage_of(process, order.touch, order.unlink, lambda: task.refresh().state == "done")
        check_log(log)
        assert task.attempt == 1

"""The task functions of the test data. Workers of version 0.1.0 run them while ``make.py`` fills a database."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from dbtaskqueue import clock, current_task

TIME = "TEST_DATA_TIME"
"""The environment variable that has the time, in microseconds since 1970: a child process has a clock of its own."""

if TIME in os.environ:
    clock.source = lambda: int(os.environ[TIME])


def report(payload: Any) -> dict[str, Any]:
    """Print something and succeed."""
    print("reading the orders\n412 orders read")
    current_task().progress(412, 412, "orders")
    return {"orders": 412}


def fail(payload: Any) -> None:
    """Print something and fail."""
    print("connecting to the mail server")
    raise ValueError(f"no address in {payload!r}")


def thumbnail(path: str, width: int = 320) -> dict[str, Any]:
    """Return the size of the thumbnail."""
    return {"path": path, "width": width}


def import_rows(payload: Any) -> None:
    """Store two steps and a checkpoint, then fail."""
    task = current_task()
    task.step("fetch", lambda: {"rows": 3000, "source": "café.csv"})
    task.step("validate", lambda: "valid " * 60)
    task.checkpoint({"row": 1200})
    task.progress(1200, 3000, "rows")
    raise OSError("the network is unreachable")


def long_result(payload: Any) -> list[int]:
    """Return more than fits into the task's row."""
    return list(range(150))


def lines(payload: Any) -> str:
    """Return a short text."""
    return "two\nlines"


def stay(payload: Any) -> None:
    """Run until the process is killed, even if it is asked to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("copying the archive", flush=True)
    current_task().progress(3, 10, "archives")
    while True:
        time.sleep(60)

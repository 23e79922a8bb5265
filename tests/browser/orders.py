"""Task functions of the browser tests. Most do what the test tells them, one order after the other.

A test appends orders to a file, and the task that was enqueued with this file obeys them. So a test decides when a task
reports progress, prints, fails or ends, and never waits for luck.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from dbtaskqueue import ReleaseTask, RetryPolicy, TaskQueue, current_task

queue = TaskQueue(None, "default", open=False)

NOW = RetryPolicy(delay=0)
"""Retries at once."""


@queue.task(name="app.video.encode", retry=NOW)
def encode(file: str) -> Any:
    """Obey the orders of a file."""
    return _obey(Path(file))


@queue.task(name="app.mail.send", retry=NOW)
def send(file: str) -> Any:
    """Obey the orders of a file, under another name."""
    return _obey(Path(file))


@queue.task(name="app.quick")
def quick(value: Any = None) -> Any:
    """Return the argument."""
    return value


@queue.task(name="app.broken", max_attempts=1)
def broken(text: str) -> None:
    """Fail with this text."""
    raise RuntimeError(text)


@queue.task(name="app.spin")
def spin(megabytes: int = 50, seconds: float = 600) -> int:
    """Use a CPU and this much memory."""
    block = bytearray(os.urandom(1 << 20) * megabytes)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass
    return len(block)


def _obey(file: Path) -> Any:
    while True:
        for number, order in enumerate(_orders(file)):
            if number >= _obeyed(file):
                file.with_suffix(".done").write_text(str(number + 1))
                if order[0] == "end":
                    return order[1]
                _ORDERS[order[0]](*order[1:])
        if current_task().cancelled:
            raise ReleaseTask
        time.sleep(0.02)


def _orders(file: Path) -> list[list[Any]]:
    lines = file.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _obeyed(file: Path) -> int:
    done = file.with_suffix(".done")
    return int(done.read_text() or 0) if done.exists() else 0


def _print(text: str) -> None:
    print(text, flush=True)


def _fail(text: str) -> None:
    raise RuntimeError(text)


def _release() -> None:
    raise ReleaseTask


def _step(name: str, value: Any) -> None:
    current_task().step(name, lambda: value)


_ORDERS = {
    "progress": lambda *values: current_task().progress(*values),
    "checkpoint": lambda value: current_task().checkpoint(value),
    "step": _step,
    "print": _print,
    "error": lambda text: print(text, file=sys.stderr, flush=True),
    "fail": _fail,
    "release": _release,
    "die": lambda: os._exit(9),
}

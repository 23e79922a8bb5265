"""What tasks log becomes their output, where they share a process and so have no output of their own.

No handler is set up for it, and no level changed: what the user's logging lets through is what is kept. A
record is seen when it is made, by ``logging.setLogRecordFactory``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from .task_run import TaskRun

running: ContextVar[TaskRun] = ContextVar("dbtaskqueue_running_work")
"""The work that the calling code belongs to."""

_format = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format
_lock = threading.Lock()
_users = 0
_before: Callable[..., logging.LogRecord] = logging.LogRecord


def listen() -> None:
    """From now on records made inside of tasks are kept as their output. To be ended by ``stop_listening``."""
    global _users, _before
    with _lock:
        _users += 1
        if _users == 1:
            _before = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_make)


def stop_listening() -> None:
    """The end of one ``listen``; after the last one nothing of it is left."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and logging.getLogRecordFactory() is _make:  # else somebody has wrapped it meanwhile
            logging.setLogRecordFactory(_before)


def _make(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _before(*args, **kwargs)
    work = running.get(None)
    if work is not None and record.name != "dbtaskqueue":
        with contextlib.suppress(Exception):  # a message that does not fit its arguments: its handlers say so
            work.write_output(_format(record).encode("utf-8", "backslashreplace") + b"\n")
    return record

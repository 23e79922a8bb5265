"""Makes log records the output of tasks that share a process, and so have no stdout of their own.

It adds no handler and changes no level: every record that the user's logging creates is kept, by
``logging.setLogRecordFactory``.
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
"""The task that the calling code belongs to."""

_format = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format
_lock = threading.Lock()
_users = 0
_before: Callable[..., logging.LogRecord] = logging.LogRecord


def listen() -> None:
    """Keep records made inside tasks as their output from now on. End this with ``stop_listening``."""
    global _users, _before
    with _lock:
        _users += 1
        if _users == 1:
            _before = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_make)


def stop_listening() -> None:
    """End one ``listen``. After the last one, the record factory is what it was before."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and logging.getLogRecordFactory() is _make:  # otherwise the program has wrapped it meanwhile
            logging.setLogRecordFactory(_before)


def _make(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _before(*args, **kwargs)
    run = running.get(None)
    if run is not None and record.name != "dbtaskqueue":
        with contextlib.suppress(Exception):  # a message that does not fit its arguments; the handlers report that
            run.write_output(_format(record).encode("utf-8", "backslashreplace") + b"\n")
    return record

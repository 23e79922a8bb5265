"""Descriptions of a task and of its error, in one line each. Damaged values do not raise."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from .._formats.payload import JSON
from .._formats.progress import read_usage
from .._store.contract import Store, TaskRecord
from ..errors import PayloadError
from ..overview import find_worker
from ..states import RESERVED, RUNNING
from ..task import Blocked, Task

ATTRIBUTES = tuple(
    name
    for name, attribute in vars(Task).items()
    # the first describes the call that enqueued the task, the second is read separately, for many tasks at once
    if isinstance(attribute, property) and name not in ("deduplicated", "blocked")
)
"""The names of a task's public attributes whose values are stored in its row."""


def attributes(task: Task, blocked: Blocked | None) -> dict[str, Any]:
    """Return a task's attributes by name; None for a value that cannot be read."""
    progress = task.progress and task.progress._asdict()
    words = {name: readable(task, name) for name in ATTRIBUTES}
    return words | {"progress": progress, "blocked": blocked and blocked._asdict()}


def details(store: Store, record: TaskRecord) -> dict[str, Any]:
    """Return what is known about a task, by name: its attributes, what it uses, where it runs, and its attempts."""
    task = Task(store, record)
    usage = read_usage(record.usage)
    worker = find_worker(store, task.worker) if task.worker is not None and task.state in (RESERVED, RUNNING) else None
    more: dict[str, Any] = {"usage": usage and usage._asdict(), "runs_on": worker and worker._asdict()}
    more |= {"parents": task.parents(), "children": task.children()}
    attempts = [attempt._asdict() for attempt in task.attempts()]
    return {**attributes(task, task.blocked), **more, "attempts": attempts}


def readable(task: Task, name: str, otherwise: object = None) -> Any:
    """Return an attribute of a task, or ``otherwise`` if the stored value is damaged."""
    try:
        return getattr(task, name)
    except PayloadError:
        return otherwise


def describe(task: Task) -> str:
    """Return what a task does, in one line: its function and payload, or its command line."""
    payload = value_text(task, "payload")
    if task.is_command:
        return command_text(task) or payload
    return payload if task.function is None else f"{task.function} {payload}"


def command_text(task: Task) -> str:
    """Return a task's command line as one would type it; "" if its payload is not one."""
    payload: JSON = readable(task, "payload")
    argv = payload.get("argv") if isinstance(payload, dict) else None
    return shlex.join(map(str, argv)) if isinstance(argv, list) else ""


def value_text(task: Task, name: str) -> str:
    """Return a task's payload or result as JSON on one line, or a note that it cannot be read."""
    damaged = object()
    value = readable(task, name, damaged)
    return f"(the {name} cannot be read)" if value is damaged else json.dumps(value, ensure_ascii=False)


def attempt_text(attempt: int, max_attempts: int | None) -> str:
    """Return an attempt and the number of attempts that are allowed: ``3/10``, or ``3`` without a limit."""
    return str(attempt) if max_attempts is None else f"{attempt}/{max_attempts}"


def error_line(error: str) -> str:
    """Return the most useful line of an error, without the module of its type.

    This is the last line if it has a traceback, and otherwise the first line.
    """
    lines = error.strip().splitlines() or [""]
    return re.sub(r"^(\w+\.)+(?=\w+: )", "", lines[-1] if "Traceback" in lines[0] else lines[0])

"""The objects of the API, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from ..._store.contract import Store, TaskRecord
from ..._system import clock
from ...monitoring.tasks import attributes, details
from ...task import Blocked, Task
from ..data.overview import Need
from ..data.sources import Failure, Running, Worker

_LONGEST = 10_000
"""Characters of a value in a list of tasks. A longer one is left out: its task has it."""
_LARGE = ("payload", "result", "error")
_TIMES = ("at", "created_at", "started_at", "lost_at", "due", "reported_at")
"""Fields that are times, in microseconds."""


def listed(task: Task, blocked: Blocked | None, hidden: Set[str]) -> dict[str, Any]:
    """Return a task of a list. ``left_out``: the names of values that are too long for a list."""
    found = without(hidden, attributes(task, blocked))
    long = [name for name in _LARGE if _size(found[name]) > _LONGEST]
    return {**found, **dict.fromkeys(long), "left_out": long}


def whole(store: Store, record: TaskRecord, hidden: Set[str]) -> dict[str, Any]:
    """Return everything about a task."""
    found = without(hidden, details(store, record))
    if "output" in hidden:
        found["attempts"] = [{**attempt, "output": None} for attempt in found["attempts"]]
    return found


def without(hidden: Set[str], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without those that this dashboard never shows."""
    return {name: None if name in hidden else value for name, value in found.items()}


def running(task: Running, hidden: Set[str]) -> dict[str, Any]:
    """Return a running task."""
    plain = with_times(task._asdict())
    plain["what"] = None if "payload" in hidden else task.what
    plain |= {name: value and value._asdict() for name, value in (("progress", task.progress), ("usage", task.usage))}
    return {**plain, "usual": task.usual and task.usual._asdict()}


def worker(found: Worker) -> dict[str, Any]:
    """Return a worker."""
    return with_times(found._asdict())


def failure(found: Failure) -> dict[str, Any]:
    """Return tasks with the same error."""
    return with_times(found._asdict())


def need(found: Need) -> dict[str, Any]:
    """Return what needs someone, with the path of the page that says more."""
    path, query = found.link
    return {**with_times(found._asdict()), "link": {"path": path, "query": query}}


def with_times(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in which times are datetimes."""
    return {name: clock.to_datetime(value) if name in _TIMES else value for name, value in values.items()}


def _size(value: object) -> int:
    return len(value) if isinstance(value, str) else len(repr(value))

"""The column ``options`` of a task: the options that only a worker reads, as one JSON object. Pure.

An option that was not set has no key, and the column is NULL if none was set. A new option of this kind becomes a key
here, not a column.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..retry import DEFAULT, RetryPolicy
from .limits import NONE, Limits, check_limits


class StoredTick(NamedTuple):
    """The tick of a schedule that made a task: see ``Tick``. ``at`` in microseconds."""

    schedule: str
    at: int
    missed: int


class TaskOptions(NamedTuple):
    """The options stored with a task. ``unreadable`` names the keys whose values are replaced by their defaults."""

    retry: RetryPolicy = DEFAULT
    limits: Limits = NONE
    unreadable: tuple[str, ...] = ()
    tick: StoredTick | None = None


def encode(options: Mapping[str, object]) -> str | None:
    """Return the text for the column, from checked options by name. None if all of them have their defaults."""
    given = {name: value for name, value in options.items() if value is not None and value != DEFAULT}
    return json.dumps(given, default=vars) if given else None  # a RetryPolicy is stored as an object


def with_tick(text: str | None, tick: StoredTick) -> str:
    """Return the text for the column with the tick that makes the task."""
    return json.dumps({**json.loads(text or "{}"), "tick": tick._asdict()})


@functools.lru_cache(maxsize=64)  # most tasks of a program share their options
def decode(text: str | None) -> TaskOptions:
    """Return the options in the column. Never raises: a value that cannot be read is replaced by its default.

    Keys that a newer version may have stored are ignored.
    """
    if text is None:
        return TaskOptions()
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        return TaskOptions(unreadable=tuple(_READERS))
    values: dict[str, Any] = {}
    unreadable = []
    for key, read in _READERS.items():
        if key in stored:
            try:
                values[key] = read(stored[key])
            except (TypeError, ValueError):
                unreadable.append(key)
    limits = Limits(values.get("time_limit"), values.get("stall_limit"), values.get("memory_limit"))
    return TaskOptions(values.get("retry", DEFAULT), limits, tuple(unreadable), values.get("tick"))


def _policy(stored: Any) -> RetryPolicy:
    if not isinstance(stored, dict):
        raise TypeError("a stored policy is an object")
    return RetryPolicy(**{name: stored[name] for name in RetryPolicy.__dataclass_fields__ if name in stored})


def _tick(stored: Any) -> StoredTick:
    if not isinstance(stored, dict):
        raise TypeError("a stored tick is an object")
    schedule, at, missed = (stored.get(name) for name in StoredTick._fields)
    if not isinstance(schedule, str) or type(at) is not int or type(missed) is not int:
        raise TypeError("a stored tick has a name and two numbers")
    return StoredTick(schedule, at, missed)


_READERS: dict[str, Callable[[Any], object]] = {
    "retry": _policy,
    "time_limit": lambda seconds: check_limits(seconds, None, None).time,
    "stall_limit": lambda seconds: check_limits(None, seconds, None).stall,
    "memory_limit": lambda count: check_limits(None, None, count).memory,
    "tick": _tick,
}
"""For each key, what checks its value and returns the option. Raises TypeError or ValueError."""


def has_limits(text: str | None) -> bool:
    """Return whether the column has a limit."""
    return text is not None and decode(text).limits != NONE

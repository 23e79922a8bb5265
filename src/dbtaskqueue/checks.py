"""Checks of arguments, and functions that format values for messages. Pure."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeGuard

MOST = 2**31 - 1
"""The largest count that every engine can store."""
PRIORITIES = (-32768, 32767)
"""The lowest and the highest priority."""


def shown(value: object) -> str:
    """Format a value for a message: on one line, in ASCII, and truncated if it is long."""
    try:
        text = ascii(value)
    except Exception:  # such as an integer of 5000 digits, or a __repr__ that raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 140 else f"{text[:140]}…"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Format names for a message, separated by commas, at most ``most`` of them."""
    more = len(names) - most
    return (", ".join(names[:most]) or "none") + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str = "task") -> str:
    """Return a number with its noun: ``1 task``, ``2 tasks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def escaped(text: str, keep: str = "") -> str:
    """Return ``text`` with control characters and invisible characters escaped, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def is_number(value: object) -> TypeGuard[float]:
    """Return whether the value is a number that a float can hold. Infinity counts as one, NaN does not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max or abs(value) == math.inf


def is_count(value: object) -> TypeGuard[int]:
    """Return whether the value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_count(value: int, name: str) -> int:
    """Return ``value``. Raises ValueError unless it is a whole number from 1 to MOST."""
    if not is_count(value) or value > MOST:
        raise ValueError(f"{name} must be a whole number from 1 to {MOST}, not {shown(value)}")
    return value


def check_seconds(
    duration: float | timedelta, name: str, *, finite: bool = False, positive: bool = False, signed: bool = False
) -> float:
    """Return a duration, which is a number of seconds or a timedelta, in seconds.

    It must be at least 0; more than 0 with ``positive``, and any number with ``signed``. It may be infinite, except
    with ``finite``. Raises ValueError.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if is_number(seconds):
        is_large_enough = signed or seconds > 0 or (seconds == 0 and not positive)
        if is_large_enough and not (finite and math.isinf(seconds)):
            return float(seconds)
    kind = "a finite number" if finite else "a number"
    bound = "" if signed else " greater than 0" if positive else " of at least 0"
    raise ValueError(f"{name} must be {kind} of seconds or a timedelta{bound}, not {shown(duration)}")


def check_delay(delay: float | timedelta, name: str) -> float:
    """Return the delay until a task is due, in seconds. Raises ValueError unless it is finite and at least 0."""
    return check_seconds(delay, name, finite=True)


def check_lease(lease: float | timedelta) -> float:
    """Return the lease in seconds. Raises ValueError unless it is finite and greater than 0."""
    return check_seconds(lease, "lease", finite=True, positive=True)


def check_priority(priority: int) -> int:
    """Return ``priority``. Raises ValueError unless it is a whole number from -32768 to 32767."""
    if not isinstance(priority, int) or isinstance(priority, bool) or not PRIORITIES[0] <= priority <= PRIORITIES[1]:
        raise ValueError(f"priority must be a whole number from -32768 to 32767, not {shown(priority)}")
    return priority


def is_async(code: Callable[..., object]) -> bool:
    """Return whether code is an ``async def``: a function, a partial of one, or an object with such a ``__call__``."""
    return any(map(inspect.iscoroutinefunction, _functions(code)))


def refuse_async(code: Callable[..., object], what: str) -> None:
    """Raise TypeError for ``async def`` code that is called without being awaited."""
    if is_async(code):
        raise TypeError(f"{what} is async, but it is called without being awaited; use a plain function")
    refuse_async_generator(code, what)


def refuse_async_generator(code: Callable[..., object], what: str) -> None:
    """Raise TypeError for an ``async def`` that yields: it returns no result."""
    if any(map(inspect.isasyncgenfunction, _functions(code))):
        raise TypeError(f"{what} is an async generator; a task must return its result, not yield it")


def _functions(code: Callable[..., object]) -> tuple[object, object]:
    return code, getattr(code, "__call__", None)  # noqa: B004 (that of an object, not whether it has one)


# -- names ----------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_KEY = 255
_MAX_FUNCTION = 500


def check_queue(name: str) -> str:
    """Return ``name``. Raises ValueError unless it is 1 to 128 ASCII letters, digits and ``._:-``."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a queue's name must be 1 to 128 ASCII letters, digits and '._:-', not {shown(name)}")
    return name


def check_served(name: str) -> str:
    """Return ``name`` if it is the name of a queue, or a pattern such as ``mail*`` or ``*``.

    Raises ValueError.
    """
    if not isinstance(name, str) or "*" not in name:
        return check_queue(name)
    start = name.removesuffix("*")
    if start and not _NAME.fullmatch(start):
        raise ValueError(
            "a queue pattern must be '*', or the start of a queue's name (1 to 128 ASCII letters, digits and '._:-')"
            f" followed by one '*', not {shown(name)}"
        )
    return name


def is_pattern(name: str) -> bool:
    """Return whether a name that ``check_served`` has returned is a pattern."""
    return name.endswith("*")


def is_served(queue: str, names: Iterable[object]) -> bool:
    """Return whether one of these names or patterns matches the queue. A value that is not text matches no queue."""
    return any(
        queue == name or (is_pattern(name) and queue.startswith(name[:-1])) for name in names if isinstance(name, str)
    )


def check_key(key: str | None) -> str | None:
    """Return ``key``. Raises ValueError unless it is None, or 1 to 255 characters without U+0000 and surrogates."""
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= _MAX_KEY or _UNSTORABLE.search(key):
        raise ValueError(f"a task's key must be 1 to {_MAX_KEY} characters without U+0000, not {shown(key)}")
    return key


def check_function(name: str) -> str:
    """Return ``name``. Raises ValueError unless it is 1 to 500 printable characters."""
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_FUNCTION or not name.isprintable():
        raise ValueError(f"a task function's name must be 1 to {_MAX_FUNCTION} printable characters, not {shown(name)}")
    return name

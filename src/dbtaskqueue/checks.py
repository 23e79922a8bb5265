"""What a user may give where a number or a function is wanted, and how messages show values. Pure."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeGuard

MOST = 2**31 - 1
"""The largest count that every engine can take."""
_PRIORITIES = range(-32768, 32768)


def shown(value: object) -> str:
    """A value as a message shows it: on one line, in ASCII, and cut where it is long."""
    try:
        text = ascii(value)
    except Exception:  # an integer of 5000 digits, or a __repr__ that raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 140 else f"{text[:140]}…"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names as a message lists them, at most ``most`` of them."""
    more = len(names) - most
    return (", ".join(names[:most]) or "none") + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str = "task") -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def harmless(text: str, keep: str = "") -> str:
    """``text`` with control characters and invisible ones escaped, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that a float can hold; an infinity is, NaN is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max or abs(value) == math.inf


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_count(value: int, name: str) -> int:
    """``value`` if it is a whole number from 1 to MOST; else ValueError."""
    if not is_count(value) or value > MOST:
        raise ValueError(f"{name} is a whole number of at least 1 and at most {MOST}, not {shown(value)}")
    return value


def check_seconds(
    duration: float | timedelta, name: str, *, finite: bool = False, positive: bool = False, signed: bool = False
) -> float:
    """Return a duration as seconds; it is given as a number of seconds or a timedelta.

    It must be at least 0: with ``positive`` more than 0, with ``signed`` any number. It may be infinite, except with
    ``finite``. Raises ValueError.
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
    """Return the delay until a task is due as seconds; ValueError unless it is finite and at least 0."""
    return check_seconds(delay, name, finite=True)


def check_lease(lease: float | timedelta) -> float:
    """Return the lease as seconds; ValueError unless it is finite and greater than 0."""
    return check_seconds(lease, "lease", finite=True, positive=True)


def check_priority(priority: int) -> int:
    """``priority`` if it is one; else ValueError."""
    if not isinstance(priority, int) or isinstance(priority, bool) or priority not in _PRIORITIES:
        raise ValueError(f"priority is a whole number from -32768 to 32767, not {shown(priority)}")
    return priority


def is_async(code: Callable[..., object]) -> bool:
    """Whether it is an ``async def``: a function, a partial of one, or an object with such a ``__call__``."""
    return any(map(inspect.iscoroutinefunction, _functions(code)))


def refuse_async(code: Callable[..., object], what: str) -> None:
    """TypeError for ``async def``, where nobody would await it."""
    if is_async(code):
        raise TypeError(f"{what} is async, and nobody would await it: use a plain function")
    refuse_async_generator(code, what)


def refuse_async_generator(code: Callable[..., object], what: str) -> None:
    """TypeError for an ``async def`` that yields: what it returns is no result."""
    if any(map(inspect.isasyncgenfunction, _functions(code))):
        raise TypeError(f"{what} is an async generator; a task returns its result, it yields none")


def _functions(code: Callable[..., object]) -> tuple[object, object]:
    return code, getattr(code, "__call__", None)  # noqa: B004 (that of an object, not whether it has one)


# -- names ----------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_KEY = 255
_MAX_FUNCTION = 500


def check_queue(name: str) -> str:
    """``name`` if it is a queue's: 1 to 128 ASCII letters, digits and ``._:-``; else ValueError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a queue's name is 1 to 128 ASCII letters, digits and '._:-', not {shown(name)}")
    return name


def check_key(key: str | None) -> str | None:
    """``key`` if it is a task's key: 1 to 255 characters of any text, told apart exactly; or None; else ValueError."""
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= _MAX_KEY or _UNSTORABLE.search(key):
        raise ValueError(f"a task's key is a text of 1 to {_MAX_KEY} characters without U+0000, not {shown(key)}")
    return key


def check_function(name: str) -> str:
    """``name`` if a task function may have it: 1 to 500 printable characters; else ValueError."""
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_FUNCTION or not name.isprintable():
        raise ValueError(f"a task function's name is 1 to {_MAX_FUNCTION} printable characters, not {shown(name)}")
    return name

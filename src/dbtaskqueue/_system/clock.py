"""The wall clock: when a task is due, and when something happened.

Times are microseconds since 1970 in UTC. Whether a worker is alive is never decided by comparing clocks. Tests set
``source`` to make time jump.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..checks import check_delay, check_seconds, shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
EARLIEST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The first and the last moment that a datetime can hold."""


def _wall() -> int:
    return time.time_ns() // 1000


source: Callable[[], int] = _wall


def now() -> int:
    """Return the time now."""
    return source()


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as microseconds. Raises ValueError if it is naive or not in the years 1 to 9999."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError(f"an aware datetime is needed, such as datetime.now(timezone.utc), not {shown(moment)}")
    time = (moment - _EPOCH) // _MICROSECOND
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"{moment} is not within the years 1 to 9999 in UTC")
    return time


def to_datetime(time: int | None) -> datetime | None:
    """Return microseconds as an aware datetime in UTC, or the nearest one that exists; None stays None."""
    return None if time is None else _EPOCH + timedelta(microseconds=max(EARLIEST, min(time, LATEST)))


def after(start: int, delay: float | timedelta, name: str = "delay") -> int:
    """Return the time ``delay`` seconds (or a timedelta) after ``start``.

    All delays follow this rule, whether they come from an option, a task or a retry policy. Raises ValueError unless
    the delay is finite and at least 0. If it ends after the year 9999, the task is due at LATEST, the last moment that
    a datetime can hold; every engine can store it.
    """
    seconds = check_delay(delay, name)
    return min(start + round(seconds * 1_000_000), LATEST) if seconds < LATEST / 1e6 else LATEST


def deadline_of(timeout: float | timedelta | None) -> float | None:
    """Return when a timeout ends, in monotonic time; None for never. Raises ValueError for an invalid timeout."""
    return None if timeout is None else time.monotonic() + check_seconds(timeout, "timeout", signed=True)


def has_passed(deadline: float | None) -> bool:
    """Return whether a deadline that ``deadline_of`` gave has passed."""
    return deadline is not None and time.monotonic() >= deadline

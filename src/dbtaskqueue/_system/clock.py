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
"""The first and the last moment that a datetime can show."""


def _wall() -> int:
    return time.time_ns() // 1000


source: Callable[[], int] = _wall


def now() -> int:
    """Return the time now."""
    return source()


def from_datetime(moment: datetime) -> int:
    """Return an aware datetime as microseconds. Raise ValueError if it is naive or beyond the years 1 to 9999."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError(f"an aware datetime is needed, as datetime.now(timezone.utc) gives; not {shown(moment)}")
    time = (moment - _EPOCH) // _MICROSECOND
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"{moment} is beyond the years 1 to 9999 in UTC")
    return time


def to_datetime(time: int | None) -> datetime | None:
    """Return microseconds as an aware datetime in UTC, or the nearest one that exists; None stays None."""
    return None if time is None else _EPOCH + timedelta(microseconds=max(EARLIEST, min(time, LATEST)))


def after(start: int, delay: float | timedelta, name: str = "delay") -> int:
    """Return the time ``delay`` seconds (or a timedelta) after ``start``.

    This is the one rule for delays, whether they come from an option, a task or a retry policy: a delay is a finite
    number of at least 0, else ValueError. If it leads beyond the year 9999, the task is due at LATEST: the last moment
    that a datetime can show, which every engine stores.
    """
    seconds = check_delay(delay, name)
    return min(start + round(seconds * 1_000_000), LATEST) if seconds < LATEST / 1e6 else LATEST


def deadline_of(timeout: float | timedelta | None) -> float | None:
    """Return when a timeout ends by the monotonic clock; None is never. ValueError if it is not a number of seconds."""
    return None if timeout is None else time.monotonic() + check_seconds(timeout, "timeout", signed=True)


def has_passed(deadline: float | None) -> bool:
    """Return whether a deadline that ``deadline_of`` gave has passed."""
    return deadline is not None and time.monotonic() >= deadline

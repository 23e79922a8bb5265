"""The limits of an attempt: time, time without progress, memory. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from ..checks import check_seconds, is_count, shown

_MOST_BYTES = 2**63 - 1


class Limits(NamedTuple):
    """The limits of each attempt of a task, None for none: ``time`` and ``stall`` in seconds, ``memory`` in bytes."""

    time: float | None = None
    stall: float | None = None
    memory: int | None = None


NONE = Limits()


def check_limits(
    time_limit: float | timedelta | None, stall_limit: float | timedelta | None, memory_limit: int | None
) -> Limits:
    """Return limits that a caller has passed. Raises ValueError, which names the option with an invalid value."""
    return Limits(
        _seconds(time_limit, "time_limit"), _seconds(stall_limit, "stall_limit"), _bytes(memory_limit, "memory_limit")
    )


def _seconds(value: float | timedelta | None, name: str) -> float | None:
    return None if value is None else check_seconds(value, name, finite=True, positive=True)


def _bytes(value: int | None, name: str) -> int | None:
    if value is not None and (not is_count(value) or value > _MOST_BYTES):
        raise ValueError(f"{name} must be a whole number of bytes, at least 1, not {shown(value)}")
    return value

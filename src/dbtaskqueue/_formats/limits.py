"""What an attempt may take: time, a time without progress, memory. Pure: checked, and as it is stored."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import NamedTuple

from ..checks import check_seconds, is_count, shown

_MOST_BYTES = 2**63 - 1


class Limits(NamedTuple):
    """The limits of each attempt of a task, None for none: ``time`` and ``stall`` in seconds, ``memory`` in bytes."""

    time: float | None = None
    stall: float | None = None
    memory: int | None = None

    def to_json(self) -> str | None:
        """The limits as they are stored with a task; None where there are none."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return json.dumps(given) if given else None

    @staticmethod
    def from_json(text: str | None) -> Limits:
        """The limits stored with a task; none where the text cannot be read."""
        if text is None:
            return NONE
        try:
            found = json.loads(text)
            return check_limits(found.get("time"), found.get("stall"), found.get("memory"))
        except (AttributeError, ValueError, RecursionError):
            return NONE


NONE = Limits()


def check_limits(
    time_limit: float | timedelta | None, stall_limit: float | timedelta | None, memory_limit: int | None
) -> Limits:
    """The limits that a user gives; ValueError names the option that is none."""
    return Limits(
        _seconds(time_limit, "time_limit"), _seconds(stall_limit, "stall_limit"), _bytes(memory_limit, "memory_limit")
    )


def _seconds(value: float | timedelta | None, name: str) -> float | None:
    return None if value is None else check_seconds(value, name, finite=True, positive=True)


def _bytes(value: int | None, name: str) -> int | None:
    if value is not None and (not is_count(value) or value > _MOST_BYTES):
        raise ValueError(f"{name} is a whole number of bytes, at least 1, not {shown(value)}")
    return value

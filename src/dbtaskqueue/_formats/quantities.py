"""Durations, sizes, numbers and times as people write them on a command line. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime

from .._system import clock

_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_DURATION = re.compile(rf"(?P<number>{_NUMBER.pattern})(?P<unit>[smhdw])", re.ASCII)
_SIZE = re.compile(rf"(?P<number>{_NUMBER.pattern})(?P<unit>[KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_UNITS = ("", "K", "M", "G", "T")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def ids(text: str) -> list[int]:
    """Return ids that are separated by commas. Raises ValueError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} must be ids of tasks, separated by commas, such as 17,18")
    return [int(part) for part in parts]


def duration(text: str) -> float:
    """Return the seconds of 30d, 12h, 5m or 0s. Raises ValueError without a unit, since 30 could mean anything."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid duration {text!r}: must be a number and a unit, such as 30d, 12h, 5m or 90s")
    return _finite(float(match["number"]) * _SECONDS[match["unit"]], text)


def seconds(text: str) -> float:
    """Return the seconds of a duration, or of a number without a unit. Raises ValueError."""
    return _finite(float(text), text) if _NUMBER.fullmatch(text) else duration(text)


def _finite(duration: float, text: str) -> float:
    if math.isinf(duration):
        raise ValueError(f"{text!r} is too long")
    return duration


def limit(text: str) -> float:
    """Return the seconds of a limit, as ``seconds`` does. Raises ValueError for zero, too."""
    found = seconds(text)
    if found <= 0:
        raise ValueError(f"invalid limit {text!r}: must be more than 0")
    return found


def size(text: str) -> int:
    """Return the bytes that 512M, 2G, 1.5GiB or a number without a unit mean; a K is 1024. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    number = float(match["number"]) * 1024 ** _UNITS.index(match["unit"].upper()) if match else 0.0
    found = int(number) if number < 2**63 else 0
    if found < 1:
        raise ValueError(f"invalid size {text!r}: must be 512M, 2G or the like, or a number of bytes")
    return found


def moment(text: str, *, other: str = "") -> datetime:
    """Return a time in ISO 8601; without an offset it is in the local time zone.

    Raises ValueError. Its message also has ``other``, an example of another form that the caller accepts.
    """
    try:
        found = datetime.fromisoformat(text)
        found = found if found.utcoffset() is not None else found.astimezone()
    except (ValueError, OverflowError):
        examples = f"{other}, " if other else ""
        raise ValueError(
            f"invalid time {text!r}: must be like {examples}2030-01-31T12:00 or 2030-01-31T12:00+01:00"
        ) from None
    clock.from_datetime(found)  # raises for a year that a datetime in UTC cannot hold
    return found

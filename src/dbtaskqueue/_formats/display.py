"""Durations and sizes as people read them. Pure."""

from __future__ import annotations

import math

_DAYS_ONLY = 100 * 86400
_UNITS = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))


def duration(seconds: float | None) -> str:
    """Return a measured time, such as ``12.5 ms`` or ``3.0 s``; "" for None."""
    return "" if seconds is None else f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def short_duration(seconds: float | None) -> str:
    """Return a time in at most six characters: ``42s``, ``3m07s``, ``2h05m``, ``9d04h``.

    Returns "" for None and for anything that is not a finite number.
    """
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return ""
    whole = max(0, int(seconds))
    if whole >= _DAYS_ONLY:
        return f"{min(whole // 86400, 99999)}d"
    for unit, size, smaller, small in _UNITS:
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02}{smaller}"
    return f"{whole}s"


def byte_size(number: int | None) -> str:
    """Return a number of bytes, such as ``512.0 MiB``; "" for None."""
    if number is None:
        return ""
    unit, rest = "B", float(number)
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if rest < 1024:
            break
        unit, rest = larger, rest / 1024
    return f"{number} B" if unit == "B" else f"{rest:.1f} {unit}"

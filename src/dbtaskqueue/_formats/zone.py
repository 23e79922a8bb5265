"""Time zones: the offset at a moment, and when it changes. Pure.

Moments are whole seconds since 1970 in UTC, local times are whole seconds since 1970 on the local clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from ..checks import shown

_DAY = 86400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Zones have no changes within a day of the ends of what a datetime can hold, where it cannot be asked for them.
_EARLIEST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) + 2 * _DAY
_LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) - 2 * _DAY


class Zone:
    """A time zone by its name in the IANA database. Raises ValueError for an unknown name."""

    __slots__ = ("_zone", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._zone = UTC if name == "UTC" else _load(name)  # UTC needs no database

    def offset(self, moment: int) -> int:
        """Return how many seconds the local clock is ahead of UTC at a moment."""
        if self._zone is UTC:
            return 0
        at = datetime.fromtimestamp(max(_EARLIEST, min(moment, _LATEST)), self._zone)
        return (at.utcoffset() or timedelta()) // timedelta(seconds=1)

    def local(self, moment: int) -> int:
        """Return the local time at a moment."""
        return moment + self.offset(moment)

    def change(self, start: int, end: int) -> int | None:
        """Return the first moment after ``start``, up to ``end``, at which the offset differs from that at ``start``.

        Returns None if there is none. A change that is undone within a day is not found: no zone has had one. Those
        nearest to each other are four days apart (Africa/Freetown, 1939).
        """
        if self._zone is UTC:
            return None
        before = self.offset(start)
        for day in (*range(start + _DAY, end, _DAY), end):
            if self.offset(day) != before:
                return self._bisect(max(start, day - _DAY), day)
        return None

    def change_before(self, end: int, start: int) -> int | None:
        """Return the last moment after ``start``, up to ``end``, at which the offset changed. None if it did not."""
        if self._zone is UTC:
            return None
        after = self.offset(end)
        for day in (*range(end - _DAY, start, -_DAY), start):
            if self.offset(day) != after:
                return self._bisect(day, min(end, day + _DAY))
        return None

    def _bisect(self, before: int, after: int) -> int:
        """Return the moment of the one change between two moments with different offsets."""
        old = self.offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            if self.offset(middle) == old:
                before = middle
            else:
                after = middle
        return after


def _load(name: str) -> tzinfo:
    import zoneinfo  # not at the top: few programs have schedules in another zone than UTC
    from difflib import get_close_matches

    try:
        if isinstance(name, str):
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory of zones, such as Europe
        pass
    known = zoneinfo.available_timezones()
    if not known:
        raise ValueError(f"unknown time zone {shown(name)}: this machine has no time zones; install the package tzdata")
    similar = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {similar[0]}?" if similar else "use a name such as Europe/Berlin."
    raise ValueError(f"unknown time zone {shown(name)}: {hint} If the name is right, install the package tzdata")

"""Cron expressions: which local times match, without a time zone. Pure.

The library ``cronsim`` reads the fields; it is imported only when an expression is read. It expands one field, or finds
matching days, always without a time zone. The rest is arithmetic, so searching forwards, searching backwards and
counting cannot disagree. Days are cached: searching the same day again costs microseconds.

A local time is a whole number of seconds since 1970-01-01 00:00 on the local clock.
"""

from __future__ import annotations

import functools
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from ..checks import shown

if TYPE_CHECKING:
    from cronsim import CronSim

DAY = 86400
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST_DAY = 2 - _EPOCH  # the day after the first that a date can hold: cronsim is started a second before it
_LAST_DAY = date.max.toordinal() - _EPOCH
_LONGEST = 255
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def in_words(cron: str) -> str:
    """Return what an expression means, in English: ``At 06:30 on Monday through Friday``. Raises ValueError."""
    fields = read(cron)
    try:
        return _cronsim(" ".join(fields), datetime(2000, 1, 1)).explain()
    except Exception:  # a valid expression that explain() cannot describe
        return " ".join(fields)


def read(cron: str) -> list[str]:
    """Return the five or six fields of an expression; names such as ``@daily`` are translated. Raises ValueError."""
    if not isinstance(cron, str) or len(cron) > _LONGEST:
        raise ValueError(f"cron must be text of at most {_LONGEST} characters, not {shown(cron)}")
    text = cron.strip()
    if text.startswith("@") and text.lower() not in _MACROS:
        raise ValueError(f"invalid cron expression {shown(cron)}: must be one of {', '.join(_MACROS)}, or five fields")
    fields = _MACROS.get(text.lower(), text).upper().split()
    if len(fields) not in (5, 6):
        raise ValueError(f"invalid cron expression {shown(cron)}: must be five fields, or six with seconds first")
    if wrong := _fault(fields):
        without_month = [*fields[:-2], "*", fields[-1]]
        reason = wrong if _fault(without_month) else "it can never fire, since these months have no such day"
        raise ValueError(f"invalid cron expression {shown(cron)}: {reason}")
    return fields


def _fault(fields: list[str]) -> str | None:
    from cronsim import CronSimError

    try:
        _cronsim(" ".join(fields), datetime(2000, 1, 1))
    except CronSimError as error:
        return str(error).lower()
    return None


def _cronsim(fields: str, start: datetime, *, backward: bool = False) -> CronSim:
    from cronsim import CronSim

    return CronSim(fields, start, reverse=backward)


class Calendar:
    """The local times that match an expression. Raises ValueError for an invalid expression."""

    __slots__ = ("_days", "_times", "follows_clock")

    def __init__(self, cron: str) -> None:
        fields = read(cron)
        second, minute, hour = fields[:3] if len(fields) == 6 else ("0", *fields[:2])
        self._days = " ".join(fields[-3:])
        self._times = _times(second, minute, hour)
        # Debian's rule for "jobs that run at a specific time" at clock changes. Debian's cron has no seconds: no rule.
        self.follows_clock = len(fields) == 6 or minute.startswith("*") or hour.startswith("*")

    def first(self, local: int) -> int | None:
        """Return the first match at ``local`` or later; None if there is none for 50 years, or until the year 9999."""
        day, time = divmod(local, DAY)
        index = bisect_left(self._times, time)
        if index < len(self._times) and _day(self._days, day) == day:
            return day * DAY + self._times[index]
        found = _day(self._days, day + 1)
        return None if found is None else found * DAY + self._times[0]

    def last(self, local: int) -> int | None:
        """Return the last match at ``local`` or earlier; None if there is none for 50 years."""
        day, time = divmod(local, DAY)
        index = bisect_right(self._times, time)
        if index and _day(self._days, day, backward=True) == day:
            return day * DAY + self._times[index - 1]
        found = _day(self._days, day - 1, backward=True)
        return None if found is None else found * DAY + self._times[-1]

    def count(self, start: int, end: int) -> int:
        """Return the number of matches from ``start`` to before ``end``."""
        if start >= end:
            return 0
        (first, since), (last, until) = divmod(start, DAY), divmod(end, DAY)
        number = len(self._times) * sum(1 for _ in takewhile(lambda day: day < last, _days(self._days, first)))
        if _day(self._days, first) == first:
            number -= bisect_left(self._times, since)
        if _day(self._days, last) == last:
            number += bisect_left(self._times, until)
        return number


@functools.lru_cache(maxsize=1000)
def _times(second: str, minute: str, hour: str) -> array[int]:
    """Return the matching seconds of a day, in order."""
    seconds = _values(f"{second} * * * * *", 1, 60)
    minutes = _values(f"{minute} * * * *", 60, 60)
    hours = _values(f"0 {hour} * * *", 3600, 24)
    return array("i", (each * 3600 + m * 60 + s for each in hours for m in minutes for s in seconds))


def _values(fields: str, unit: int, number: int) -> list[int]:
    """Return the numbers of units from the start of a day, below ``number``, that match."""
    midnight = datetime(2000, 1, 1)
    passed = (
        (each - midnight) // timedelta(seconds=unit) for each in _cronsim(fields, midnight - timedelta(seconds=1))
    )
    return [*takewhile(lambda value: value < number, passed)]


@functools.lru_cache(maxsize=10_000)  # a schedule repeatedly asks for today and its next day
def _day(days: str, day: int, *, backward: bool = False) -> int | None:
    """Return the first matching day that is ``day`` or later (or the last that is ``day`` or earlier)."""
    return next(_days(days, day, backward=backward), None)


def _days(days: str, day: int, *, backward: bool = False) -> Iterator[int]:
    """Yield the matching days in order, as days since 1970, from ``day`` on (or backwards)."""
    if day > _LAST_DAY and not backward:
        return
    start = datetime.fromordinal(max(_FIRST_DAY, min(day, _LAST_DAY)) + _EPOCH)
    step = timedelta(seconds=1)  # cronsim yields what is strictly later, or earlier
    try:
        for midnight in _cronsim(f"0 0 {days}", start + step if backward else start - step, backward=backward):
            yield midnight.toordinal() - _EPOCH
    except OverflowError:  # the end of the year 9999, or the start of the year 1
        return

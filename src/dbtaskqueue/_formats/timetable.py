"""When a schedule fires: its ticks, and which of those that are due are made. Pure.

Times are microseconds since 1970 in UTC. Ticks are on whole seconds, except those of an interval that is not.

At clock changes a cron expression follows Debian's cron. A schedule with five fields whose minute and hour do not start
with ``*`` fires when the local clock first reaches or passes its time: in spring at the end of the gap, in autumn once.
Any other schedule fires at each moment whose local time matches: never in the gap, twice in the hour that is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple

from .._system import clock
from ..checks import check_seconds, shown
from .cron import Calendar
from .zone import Zone

CatchUp = Literal["latest", "all", "none"]
"""Which of the ticks that were due during an outage are made."""
MOST_AT_ONCE = 1000
"""How many missed ticks are made with ``catch_up="all"``."""
GRACE = 60_000_000
"""How late a tick may be made with ``catch_up="none"``, in microseconds."""
_SECOND = 1_000_000
_DAY = 86400
_GIVE_UP = 50 * 366 * _DAY
"""A leap day falls on the same day of the week within 40 years, so what does not fire in 50 years never does."""
_FIRST, _LAST = -(-clock.EARLIEST // _SECOND), clock.LATEST // _SECOND


class Timetable:
    """The ticks of a schedule, from either a cron expression or an interval (seconds or a timedelta, at least 1 s).

    It must fire at least once after ``now``, by default the current time. Raises TypeError unless exactly one of
    ``cron`` and ``every`` is given. Raises ValueError for an invalid expression or interval, one that never fires in
    its time zone, and an unknown time zone.
    """

    __slots__ = ("_ticks", "cron", "every", "timezone")

    def __init__(
        self,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        timezone: str = "UTC",
        now: int | None = None,
    ) -> None:
        if (cron is None) == (every is None):
            raise TypeError("a schedule needs exactly one of cron and every")
        zone = Zone(timezone)
        self.timezone = timezone
        self.cron = None if cron is None else cron.strip() if isinstance(cron, str) else cron
        self.every = None if every is None else _check_interval(every)
        self._ticks: _Ticks
        if self.cron is not None:
            calendar = Calendar(self.cron)
            self._ticks = _ClockTicks(calendar, zone) if calendar.follows_clock else _TimeTicks(calendar, zone)
        else:
            self._ticks = _Interval(self.every or 0)
        if self.after(clock.now() if now is None else now) is None:
            what = f"cron expression {shown(cron)}" if self.every is None else f"interval {shown(every)}"
            raise ValueError(f"invalid {what}: it can never fire in the time zone {timezone}")

    def __repr__(self) -> str:
        when = f"every={self.every}" if self.cron is None else f"cron={self.cron!r}"
        return f"Timetable({when}, timezone={self.timezone!r})"

    def after(self, moment: int) -> int | None:
        """Return the first tick later than ``moment``; None if there is none for 50 years, or until the year 9999."""
        return self._ticks.after(moment)

    def latest(self, moment: int) -> int | None:
        """Return the last tick at ``moment`` or earlier; None if there is none for 50 years before it."""
        return self._ticks.latest(moment)

    def count(self, after: int, until: int) -> int:
        """Return the exact number of ticks later than ``after``, and not later than ``until``.

        This is arithmetic, not a loop over ticks: a year with a tick each second takes milliseconds.
        """
        return self._ticks.count(after, until) if after < until else 0

    def clock_changes(self, now: int) -> list[str]:
        """Return a line about the next clock change in each direction, for people.

        Changes more than two years ahead are left out. Intervals are not affected.
        """
        return self._ticks.clock_changes(now)


def _check_interval(every: float | timedelta) -> float:
    seconds = check_seconds(every, "every", finite=True)
    if seconds < 1:
        raise ValueError(f"every must be at least 1 second, not {shown(every)}")
    return seconds


class _Ticks:
    """One kind of ticks; the methods are those of ``Timetable``."""

    __slots__ = ()

    def after(self, moment: int) -> int | None:
        raise NotImplementedError

    def latest(self, moment: int) -> int | None:
        raise NotImplementedError

    def count(self, after: int, until: int) -> int:
        raise NotImplementedError

    def clock_changes(self, now: int) -> list[str]:
        return []


class _Interval(_Ticks):
    """Multiples of an interval since 1970."""

    __slots__ = ("_every",)

    def __init__(self, every: float) -> None:
        self._every = round(every * _SECOND)

    def after(self, moment: int) -> int | None:
        tick = (moment // self._every + 1) * self._every
        return tick if tick <= clock.LATEST else None

    def latest(self, moment: int) -> int | None:
        tick = moment // self._every * self._every
        return tick if tick >= clock.EARLIEST else None

    def count(self, after: int, until: int) -> int:
        return until // self._every - after // self._every


class _CronTicks(_Ticks):
    """Ticks of a cron expression, in whole seconds for its subclasses."""

    __slots__ = ("_calendar", "_zone")

    def __init__(self, calendar: Calendar, zone: Zone) -> None:
        self._calendar = calendar
        self._zone = zone

    def after(self, moment: int) -> int | None:
        tick = self._first(max(_FIRST, moment // _SECOND + 1)) if moment < clock.LATEST else None
        return None if tick is None or tick > _LAST else tick * _SECOND

    def latest(self, moment: int) -> int | None:
        tick = self._last(min(_LAST, moment // _SECOND)) if moment >= clock.EARLIEST else None
        return None if tick is None or tick < _FIRST else tick * _SECOND

    def count(self, after: int, until: int) -> int:
        first, last = max(_FIRST, after // _SECOND + 1), min(_LAST, until // _SECOND)
        return self._number(first, last) if first <= last else 0

    def _first(self, moment: int) -> int | None:
        """Return the first tick at a moment or later."""
        raise NotImplementedError

    def _last(self, moment: int) -> int | None:
        """Return the last tick at a moment or earlier."""
        raise NotImplementedError

    def _number(self, first: int, last: int) -> int:
        """Return the number of ticks between two moments, both included."""
        raise NotImplementedError

    def _stretches(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Yield stretches without a clock change: their first and last moment, and the offset in between."""
        while (change := self._zone.change(first, last)) is not None:
            yield first, change - 1, self._zone.offset(first)
            first = change
        yield first, last, self._zone.offset(first)

    def clock_changes(self, now: int) -> list[str]:
        start = now // _SECOND
        lines: dict[bool, str] = {}
        for first, _, offset in [*self._stretches(start, start + 2 * 366 * _DAY)][1:]:
            before = self._zone.offset(first - 1)
            forward = offset > before
            low, high = sorted((first + before, first + offset))
            affected = self._calendar.count(low, high)
            effect = self._effect(affected, forward) if affected else "No tick is affected."
            lines.setdefault(
                forward,
                f"At {_shown(first + before)} clocks in {self._zone.name} go {'forward' if forward else 'back'} "
                f"to {_shown(first + offset)}. {effect}",
            )
        return [*lines.values()]

    def _effect(self, affected: int, forward: bool) -> str:
        """Return in words what happens to ticks at local times that do not exist, or that come twice."""
        raise NotImplementedError


class _ClockTicks(_CronTicks):
    """Each moment whose local time matches."""

    __slots__ = ()

    def _first(self, moment: int) -> int | None:
        end = moment + _GIVE_UP  # some expressions match only times that a zone leaves out
        while moment < end:
            offset = self._zone.offset(moment)
            if (local := self._calendar.first(moment + offset)) is None:
                return None
            tick = local - offset
            if (change := self._zone.change(moment, tick)) is None:
                return tick
            moment = change
        return None

    def _last(self, moment: int) -> int | None:
        end = moment - _GIVE_UP
        while moment > end:
            offset = self._zone.offset(moment)
            if (local := self._calendar.last(moment + offset)) is None:
                return None
            tick = local - offset
            if (change := self._zone.change_before(moment, tick)) is None:
                return tick
            moment = change - 1
        return None

    def _number(self, first: int, last: int) -> int:
        stretches = self._stretches(first, last)
        return sum(self._calendar.count(low + offset, high + offset + 1) for low, high, offset in stretches)

    def _effect(self, affected: int, forward: bool) -> str:
        times = _matching(affected)
        return f"{times} left out, without a tick." if forward else f"{times} repeated, with a tick each time."


class _TimeTicks(_CronTicks):
    """Each moment at which the local clock first reaches or passes a time that matches."""

    __slots__ = ()

    def _first(self, moment: int) -> int | None:
        local = self._calendar.first(self._reached(moment - 1) + 1)
        return None if local is None else self._moment(local)

    def _last(self, moment: int) -> int | None:
        local = self._calendar.last(self._reached(moment))
        return None if local is None else self._moment(local)

    def _number(self, first: int, last: int) -> int:
        number = self._calendar.count(self._reached(first - 1) + 1, self._reached(last) + 1)
        for change, _, offset in [*self._stretches(first - 1, last)][1:]:
            at_end = self._calendar.count(change + self._zone.offset(change - 1), change + offset + 1)
            number -= max(0, at_end - 1)  # all times in a gap, and the time at its end, are one moment
        return number

    def _reached(self, moment: int) -> int:
        """Return the latest local time so far: later than the local time only after the clock went back."""
        local = self._zone.local(moment)
        change = self._zone.change_before(moment, moment - _DAY)
        return local if change is None else max(local, self._zone.local(change - 1))

    def _moment(self, local: int) -> int:
        """Return the first moment at which the clock shows a local time or a later one."""
        stretches = self._stretches(local - _DAY, local + _DAY)
        return next(at for first, last, offset in stretches if (at := max(first, local - offset)) <= last)

    def _effect(self, affected: int, forward: bool) -> str:
        if forward:
            return f"{_matching(affected)} left out; there is one tick, at the end of the gap."
        return f"{_matching(affected)} repeated, with a tick only the first time."


def _matching(times: int) -> str:
    return "1 matching time is" if times == 1 else f"{times} matching times are"


def _shown(local: int) -> str:
    return f"{datetime(1970, 1, 1) + timedelta(seconds=local):%Y-%m-%d %H:%M}"


def offset(name: str, jitter: float | timedelta) -> int:
    """Return how many microseconds later the tasks of a schedule are due: fixed by its name, and below ``jitter``.

    Raises ValueError unless ``jitter`` is a finite number of seconds, at least 0, or such a timedelta.
    """
    most = round(check_seconds(jitter, "jitter", finite=True) * _SECOND)
    fraction = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
    return most * fraction >> 64


class Plan(NamedTuple):
    """What to do about the ticks that are due. ``missed``: how many are not made. ``missed_at``: the latest of them."""

    ticks: list[int]
    """The ticks to make now, in order. All of them are later than the missed ones."""
    missed: int
    missed_at: int | None
    next_at: int | None
    """The first tick after now; None if there is none."""


def plan(
    timetable: Timetable, next_at: int, now: int, catch_up: CatchUp = "latest", window: float | timedelta = 86400
) -> Plan:
    """Return which of the ticks from ``next_at`` to ``now`` are made, and how many are missed.

    - ``latest``: the newest is made.
    - ``all``: the newest 1,000 are made that are not older than ``window`` (seconds or a timedelta).
    - ``none``: the newest is made if it is at most 60 s old.

    Raises ValueError for another word, or an invalid window.
    """
    if catch_up not in ("latest", "all", "none"):
        raise ValueError(f"catch_up must be latest, all or none, not {shown(catch_up)}")
    oldest, most = next_at, 1
    if catch_up == "all":
        oldest, most = now - round(check_seconds(window, "window", finite=True) * _SECOND), MOST_AT_ONCE
    elif catch_up == "none":
        oldest = now - GRACE
    if next_at > now:
        return Plan([], 0, None, next_at)
    following = timetable.after(now)
    made: list[int] = []
    before: int | None = timetable.latest(now)
    while before is not None and before >= max(next_at, oldest) and len(made) < most:
        made.append(before)
        before = timetable.latest(before - 1)
    if before is None or before < next_at:
        return Plan(made[::-1], 0, None, following)
    return Plan(made[::-1], timetable.count(next_at - 1, before), before, following)

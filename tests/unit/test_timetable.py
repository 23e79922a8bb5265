"""The ticks of schedules: against cronsim, against a slow and simple reading, at clock changes, and after outages.

``--cron-moments=200000`` checks that many random expressions, zones and moments.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from helpers import run_python

from dbtaskqueue._formats import cron as cron_module
from dbtaskqueue._formats.cron import in_words
from dbtaskqueue._formats.timetable import Plan, Timetable, offset, plan
from dbtaskqueue._formats.zone import Zone
from dbtaskqueue._system import clock

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = int(datetime(2026, 1, 15, 12, tzinfo=UTC).timestamp()) * SECOND


def at(text: str) -> int:
    """Return the microseconds of an ISO time with an offset."""
    return clock.from_datetime(datetime.fromisoformat(text))


def iso(tick: int | None, zone: str) -> str:
    """Return a tick as the local time with its offset."""
    assert tick is not None
    return datetime.fromtimestamp(tick // SECOND, ZoneInfo(zone)).isoformat(timespec="minutes")


def ticks(timetable: Timetable, start: int, end: int) -> list[int]:
    """Return the ticks after ``start`` and up to ``end``, found forwards."""
    found = []
    tick = timetable.after(start)
    while tick is not None and tick <= end:
        found.append(tick)
        tick = timetable.after(tick)
    return found


def backwards(timetable: Timetable, start: int, end: int) -> list[int]:
    """Return the same ticks, found backwards."""
    found = []
    tick = timetable.latest(end)
    while tick is not None and tick > start:
        found.append(tick)
        tick = timetable.latest(tick - 1)
    return found[::-1]


# -- random expressions, zones and moments --------------------------------------------------------

WHOLE_HOURS = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Africa/Casablanca")
"""Zones whose clocks change at a full hour, by whole hours, and not at midnight. Only there is cronsim alone right.

It loses the first half hour after a change in Lord Howe, makes ticks of times that do not match in Cairo, and never
gets past 2005-10-30 in St. John's, where the clock went from 00:01 back to 23:01.
"""
ZONES = (
    *WHOLE_HOURS,
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Asia/Gaza",
    "America/St_Johns",
)


def random_field(random: random.Random, low: int, high: int) -> str:
    def term() -> str:
        kind, start = random.random(), random.randint(low, high)
        if kind < 0.6:
            return str(start)
        if kind < 0.8:
            step = f"/{random.randint(1, 5)}" if random.random() < 0.3 else ""
            return f"{start}-{random.randint(start, high)}{step}"
        return f"*/{random.randint(1, max(1, high // 2))}"

    return "*" if random.random() < 0.35 else ",".join(term() for _ in range(random.choice([1, 1, 1, 2, 3])))


def random_expression(random: random.Random) -> str:
    days = [
        random.choice([random_field(random, 1, 31), "*", "*", "*", "L", "LW"]),
        random.choice([random_field(random, 1, 12), "*", "*", "MAR,OCT", "APR-NOV"]),
        random.choice([random_field(random, 0, 7), "*", "*", "MON-FRI", "SUN#2", "7L", "5#5"]),
    ]
    seconds = [random_field(random, 0, 59)] if random.random() < 0.2 else []
    return " ".join([*seconds, random_field(random, 0, 59), random_field(random, 0, 23), *days])


zone_of = cache(Zone)


@cache
def changes_of(zone: str) -> list[int]:
    """Return the clock changes of a zone from 2005 to 2040, in seconds."""
    moment, changes = at("2005-01-01T00:00Z") // SECOND, []
    while (change := zone_of(zone).change(moment, at("2040-01-01T00:00Z") // SECOND)) is not None:
        changes.append(change)
        moment = change
    return changes


def random_moment(random: random.Random, zone: str) -> int:
    """Return a moment, in half of the cases one near a clock change."""
    moment = random.randint(at("2005-01-01T00:00Z"), at("2040-01-01T00:00Z")) // SECOND
    if random.random() < 0.5 and (changes := changes_of(zone)):
        moment = random.choice(changes) + random.randint(-90000, 7200)
    return moment * SECOND + random.choice([0, 0, 1, 500_000, 999_999])


def cronsim_after(expression: str, zone: str, moment: int, number: int) -> list[int]:
    """Return the next ticks as cronsim has them, without those that it gives twice or too late."""
    found: list[int] = []
    last = moment
    for tick in itertools.islice(CronSim(expression, datetime.fromtimestamp(moment // SECOND, ZoneInfo(zone))), 99):
        this = int(tick.timestamp()) * SECOND
        if this > last:
            found.append(this)
            last = this
        if len(found) == number:
            break
    return found


@pytest.mark.parametrize("part", range(10))
def test_random_ticks_agree_forwards_and_backwards_and_with_cronsim(part: int, request: pytest.FixtureRequest) -> None:
    """Check ``--cron-moments`` cases in all ten parts. A case is an expression, a zone and a moment.

    Each random expression is used in five cases, with other zones and moments.
    """
    number = int(request.config.option.cron_moments) // 10
    source = random.Random(part)
    never = 0
    for case in range(number):
        if case % 5 == 0:
            expression = random_expression(source)
        zone = source.choice(ZONES)
        never += not check_random_case(expression, zone, random_moment(source, zone))
    assert never < number / 10 + 5


def check_random_case(expression: str, zone: str, moment: int) -> bool:
    """Check the ticks before and after a moment. Return whether the expression can fire at all."""
    case = f"{expression!r} in {zone} after {moment}"
    try:
        timetable = Timetable(cron=expression, timezone=zone, now=moment)
    except ValueError:
        with pytest.raises((CronSimError, StopIteration)):
            next(CronSim(expression, datetime.fromtimestamp(moment // SECOND, ZoneInfo(zone))))
        return False
    found = [*itertools.islice(forwards(timetable, moment), 4)]
    assert all(early < late for early, late in itertools.pairwise([moment, *found])), case
    assert backwards(timetable, moment, found[-1]) == found, case
    assert timetable.count(moment, found[-1]) == len(found), case
    earlier = timetable.latest(moment)
    assert earlier is None or (earlier <= moment and timetable.after(earlier) == found[0]), case
    if zone in WHOLE_HOURS:
        assert cronsim_after(expression, zone, moment, len(found)) == found, case
    return True


def forwards(timetable: Timetable, moment: int) -> Iterator[int]:
    while (tick := timetable.after(moment)) is not None:
        yield tick
        moment = tick


class Change(NamedTuple):
    zone: str
    forward: str
    """The moment at which the clock goes forward."""
    back: str


CHANGES = (
    Change("Europe/Berlin", "2026-03-29T01:00Z", "2026-10-25T01:00Z"),
    Change("America/New_York", "2026-03-08T07:00Z", "2026-11-01T06:00Z"),
    Change("Australia/Lord_Howe", "2026-10-03T15:30Z", "2026-04-04T15:00Z"),
    Change("Africa/Cairo", "2026-04-23T22:00Z", "2026-10-29T21:00Z"),
    Change("Pacific/Apia", "2011-12-30T10:00Z", "2012-03-31T14:00Z"),
)
EXPRESSIONS = (
    "@daily",
    "@hourly",
    "0 0 * * *",
    "30 0 * * *",
    "30 1 * * *",
    "30 2 * * *",
    "45 1,2 * * *",
    "0,30 0-3 * * *",
    "*/30 * * * *",
    "*/20 1-3 * * *",
    "15 */2 * * *",
    "* 0 30 * *",
    "0 30 2 * * *",
    "0 0 1,30 * *",
    "* * * * *",
)


def slowly(expression: str, zone: str, start: int, end: int) -> list[int]:
    """Return the ticks after ``start`` and up to ``end`` by the rules of Debian's cron, minute for minute."""
    fields = {"@daily": "0 0 * * *", "@hourly": "0 * * * *"}.get(expression, expression).split()
    fixed = len(fields) == 5 and "*" not in (fields[0][0], fields[1][0])
    place = ZoneInfo(zone)
    early, late = (datetime.fromtimestamp(each // SECOND) for each in (start - 4 * DAY, end + 2 * DAY))
    matches = {*itertools.takewhile(lambda local: local < late, CronSim(" ".join(fields), early))}
    minute = timedelta(minutes=1)
    found = []
    reached = datetime.min
    for moment in range(start - 2 * DAY, end + 1, 60 * SECOND):
        local = datetime.fromtimestamp(moment // SECOND, place).replace(tzinfo=None)
        if not fixed:
            fires = local in matches
        else:
            passed = [local] if reached == datetime.min else []
            while reached != datetime.min and reached + minute * (len(passed) + 1) <= local:
                passed.append(reached + minute * (len(passed) + 1))
            fires = any(time in matches for time in passed)
            reached = max(reached, local)
        if fires and moment > start:
            found.append(moment)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("change", [each.forward for each in CHANGES] + [each.back for each in CHANGES])
def test_ticks_near_clock_changes_are_those_of_a_slow_reading(expression: str, change: str) -> None:
    zone = next(each.zone for each in CHANGES if change in each)
    timetable = Timetable(cron=expression, timezone=zone, now=at("2000-01-01T00:00Z"))
    start, end = at(change) - 30 * HOUR, at(change) + 30 * HOUR
    expected = slowly(expression, zone, start, end)
    assert ticks(timetable, start, end) == expected
    assert backwards(timetable, start, end) == expected
    assert timetable.count(start, end) == len(expected)
    for middle in range(at(change) - 3 * HOUR, at(change) + 3 * HOUR, HOUR // 4):  # from any moment in between
        assert timetable.after(middle) == next((tick for tick in expected if tick > middle), timetable.after(end))
        assert timetable.latest(middle) == next(
            (tick for tick in reversed(expected) if tick <= middle), timetable.latest(start)
        )
        assert timetable.count(start, middle) == len([tick for tick in expected if tick <= middle])


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # a time in the gap: at its end
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00Z", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00Z",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
        ),
        ("@daily", "Africa/Cairo", "2026-04-23T12:00Z", ["2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"]),
        # a day that does not exist: at the start of the next, and once
        ("@daily", "Pacific/Apia", "2011-12-29T12:00Z", ["2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"]),
        ("30 2 30 12 *", "Pacific/Apia", "2011-06-01T00:00Z", ["2011-12-31T00:00+14:00", "2012-12-30T02:30+14:00"]),
        # several times in a gap, and the time at its end, are one moment
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:59Z", ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]),
        # a time that comes twice: the first time
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10Z", ["2026-10-26T02:30+01:00"]),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T00:00Z",
            ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"],
        ),
        # more often than each hour: by real time
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:20Z", ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]),
        ("*/30 * * * *", "Pacific/Apia", "2011-12-30T09:20Z", ["2011-12-29T23:30-10:00", "2011-12-31T00:00+14:00"]),
        # where cronsim alone loses a tick, or makes one of a time that does not match
        (
            "56 * * * *",
            "Australia/Lord_Howe",
            "2026-10-03T15:00Z",
            ["2026-10-04T01:56+10:30", "2026-10-04T02:56+11:00"],
        ),
        (
            "* 15 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T15:00Z",
            ["2026-10-04T15:00+11:00", "2026-10-04T15:01+11:00"],
        ),
        ("0 */2 24 4 *", "Africa/Cairo", "2026-04-23T12:00Z", ["2026-04-24T02:00+03:00", "2026-04-24T04:00+03:00"]),
    ],
)
def test_what_fires_at_a_clock_change(expression: str, zone: str, after: str, expected: list[str]) -> None:
    timetable = Timetable(cron=expression, timezone=zone, now=at("2000-01-01T00:00Z"))
    found = itertools.islice(forwards(timetable, at(after)), len(expected))
    assert [iso(tick, zone) for tick in found] == expected


# -- expressions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 29 2 *", "2028-02-29T00:00+00:00"),
        ("0 0 * 2 MON#5", "2044-02-29T00:00+00:00"),
        ("0 0 L * *", "2026-01-31T00:00+00:00"),
        ("0 0 LW 2 *", "2026-02-27T00:00+00:00"),
        ("0 0 * * 5L", "2026-01-30T00:00+00:00"),
        ("0 0 * * MON#5", "2026-03-30T00:00+00:00"),
        ("0 0 1 * FRI", "2026-01-16T00:00+00:00"),  # either of them, as in Debian
        ("0 0 */31 * FRI", "2026-05-01T00:00+00:00"),  # both, since one starts with a star
        ("*/15 9-17 * jan-mar mon-fri", "2026-01-15T12:15+00:00"),
        ("30 0 12 * * *", "2026-01-15T12:00+00:00"),
        ("@hourly", "2026-01-15T13:00+00:00"),
        ("@daily", "2026-01-16T00:00+00:00"),
        ("@midnight", "2026-01-16T00:00+00:00"),
        ("@weekly", "2026-01-18T00:00+00:00"),
        (" @Monthly ", "2026-02-01T00:00+00:00"),
        ("@yearly", "2027-01-01T00:00+00:00"),
        ("@annually", "2027-01-01T00:00+00:00"),
    ],
)
def test_the_next_tick_of_an_expression(expression: str, expected: str) -> None:
    assert iso(Timetable(cron=expression, now=NOW).after(NOW), "UTC") == expected


def test_a_leap_day_that_is_a_monday_comes_again_after_40_years() -> None:
    timetable = Timetable(cron="0 0 * 2 MON#5", now=NOW)
    assert iso(timetable.after(at("2072-02-29T00:00Z")), "UTC") == "2112-02-29T00:00+00:00"
    assert iso(timetable.latest(at("2112-02-28T00:00Z")), "UTC") == "2072-02-29T00:00+00:00"
    assert timetable.count(at("2000-01-01T00:00Z"), at("2112-02-29T00:00Z")) == 4


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "* * * * MON#6",
        "* * * * L",
        "1,, * * * *",
        "@reboot",
        "@",
        "@daily *",
        "-1 * * * *",
        "\u0663 * * * *",
        "* * * * \u00b2L",
        "* " * 200,
        "9" * 5000 + " * * * *",
        "* * * * *\x00",
    ],
)
def test_an_invalid_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"^(invalid cron expression|cron must be text)"):
        Timetable(cron=expression)
    with pytest.raises(ValueError, match=r"^(invalid cron expression|cron must be text)"):
        in_words(expression)


def test_text_of_any_kind_is_either_an_expression_or_refused() -> None:
    source = random.Random(1)
    parts = ["0", "1", "2", "5", "7", "9", "31", "*", "*", ",", "-", "/", "L", "#", "W", "MON", "JAN", "?", "\u00b2"]
    refused: list[str] = []
    for _ in range(3000):
        fields = [source.choice(["*", "".join(source.choices(parts, k=source.randint(1, 4)))]) for _ in range(5)]
        try:
            assert in_words(" ".join(fields))
        except ValueError as error:
            refused.append(str(error))
    assert all(message.startswith("invalid cron expression") for message in refused)
    assert len(refused) < 2900


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("0 0 31 2 *", "UTC"),
        ("0 0 30 2 *", "Europe/Berlin"),
        ("0 0 31 4,6,9,11 *", "UTC"),
        ("0 0 */20 * 1L", "UTC"),
        ("*/10 2 * 3 7L", "Europe/Berlin"),  # the hour that is left out on the last Sunday of March
    ],
)
def test_an_expression_that_can_never_fire_is_refused(expression: str, zone: str) -> None:
    with pytest.raises(ValueError, match="can never fire"):
        Timetable(cron=expression, timezone=zone)


def test_whether_an_expression_can_fire_depends_on_the_zone() -> None:
    assert Timetable(cron="*/10 2 * 3 7L", timezone="UTC").after(NOW)
    later = Timetable(cron="30 2 * 3 7L", timezone="Europe/Berlin")
    assert iso(later.after(NOW), "Europe/Berlin") == "2026-03-29T03:00+02:00"


@pytest.mark.parametrize("options", [{}, {"cron": "* * * * *", "every": 5}])
def test_exactly_one_of_cron_and_every_is_needed(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="exactly one of cron and every"):
        Timetable(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("every", [0, 0.999, -5, float("nan"), float("inf"), "5", True, timedelta(0), 1e15])
def test_an_invalid_interval_is_refused(every: object) -> None:
    with pytest.raises(ValueError, match=r"every|interval"):
        Timetable(every=every)  # type: ignore[arg-type]


def test_a_cron_expression_must_be_text() -> None:
    with pytest.raises(ValueError, match="cron must be text"):
        Timetable(cron=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("zone", ["", "Berlin", "Europe", "Europe/Berln", "../Berlin", "/etc/passwd", "\x00", None, 5])
def test_an_unknown_time_zone_is_refused(zone: object) -> None:
    for options in ({"cron": "* * * * *"}, {"every": 5}):
        with pytest.raises(ValueError, match=r"^unknown time zone .* tzdata$"):
            Timetable(**options, timezone=zone)  # type: ignore[arg-type]


NO_ZONES = """
import sys, zoneinfo
sys.modules["tzdata"] = None
zoneinfo.reset_tzpath(to=[])
from dbtaskqueue._formats.timetable import Timetable
print(Timetable(cron="0 0 * * *").after(0))
try:
    Timetable(cron="0 0 * * *", timezone="Europe/Berlin")
except ValueError as error:
    print(error)
"""


def test_without_a_time_zone_database_utc_works_and_the_error_names_the_package() -> None:
    works, error = run_python(NO_ZONES).splitlines()
    assert works == str(DAY)
    assert error == "unknown time zone 'Europe/Berlin': this machine has no time zones; install the package tzdata"


def test_cronsim_is_imported_only_where_an_expression_is_read() -> None:
    code = """
import sys, dbtaskqueue, dbtaskqueue._formats.timetable as timetable
timetable.Timetable(every=5)
print("cronsim" in sys.modules, "zoneinfo" in sys.modules)
timetable.Timetable(cron="@daily")
print("cronsim" in sys.modules)
"""
    assert run_python(code) == "False False\nTrue\n"


def test_the_last_tick_is_in_the_year_9999() -> None:
    for zone in ("UTC", "America/New_York", "Pacific/Apia"):
        timetable = Timetable(cron="0 0 * * *", timezone=zone, now=NOW)
        last = timetable.latest(clock.LATEST)
        assert last is not None
        assert clock.LATEST - last < 2 * DAY  # none in a year 10000 of the local clock
        assert timetable.after(last) is None
        assert timetable.after(last - 1) == last
        assert timetable.after(clock.LATEST) is timetable.after(2**70) is None
        assert timetable.count(last - 1, 2**70) == 1
        first = timetable.after(-(2**70))
        assert first is not None
        assert first - clock.EARLIEST < 3 * DAY
        assert timetable.latest(-(2**70)) is None
        assert plan(timetable, last, clock.LATEST) == Plan([last], 0, None, None)
    assert Timetable(every=3600).after(clock.LATEST - 1) is None


# -- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 1.5, 7, 300, timedelta(hours=1), 86400, timedelta(days=7)])
def test_ticks_of_an_interval_are_its_multiples_since_1970(every: float | timedelta) -> None:
    timetable = Timetable(every=every)
    step = round((every.total_seconds() if isinstance(every, timedelta) else every) * SECOND)
    tick = timetable.after(NOW)
    assert tick is not None
    assert tick % step == 0
    assert 0 < tick - NOW <= step
    assert timetable.after(tick) == tick + step
    assert timetable.after(tick - 1) == timetable.latest(tick) == timetable.latest(tick + step - 1) == tick
    assert timetable.latest(tick - 1) == tick - step
    assert timetable.count(tick, tick + 1000 * step) == timetable.count(tick - 1, tick + 1000 * step - 1) == 1000
    assert timetable.count(tick, tick) == timetable.count(tick, tick - 5 * step) == 0
    assert timetable.clock_changes(NOW) == []


# -- outages --------------------------------------------------------------------------------------

TIMETABLES = (
    {"every": 60},
    {"cron": "* * * * *"},
    {"cron": "*/5 * * * * *", "timezone": "Europe/Berlin"},
    {"cron": "0,15,30,45 0-23 * * *", "timezone": "America/New_York"},
)


@pytest.mark.parametrize("options", TIMETABLES, ids=str)
@pytest.mark.parametrize("missed", [0, 1, 10_000])
@pytest.mark.parametrize("late", [1, 59, 61])
@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_what_is_made_and_missed_after_an_outage(
    options: dict[str, object], missed: int, late: int, catch_up: str
) -> None:
    timetable = Timetable(**options)  # type: ignore[arg-type]
    newest = timetable.latest(at("2026-06-15T12:00Z"))
    assert newest is not None
    due = [newest]
    while len(due) <= missed:
        due.append(timetable.latest(due[-1] - 1))  # type: ignore[arg-type]
    due.reverse()
    now = newest + late * SECOND
    due += ticks(timetable, newest, now)  # expressions with ticks each 5 s
    window = 86400
    made = {
        "latest": due[-1:],
        "all": [tick for tick in due if tick >= now - window * SECOND][-1000:],
        "none": [tick for tick in due[-1:] if tick >= now - 60 * SECOND],
    }[catch_up]
    rest = due[: len(due) - len(made)]
    expected = Plan(made, len(rest), rest[-1] if rest else None, timetable.after(now))
    assert plan(timetable, due[0], now, catch_up, window) == expected  # type: ignore[arg-type]


def test_nothing_is_due_before_the_next_tick() -> None:
    timetable = Timetable(cron="0 0 * * *")
    following = timetable.after(NOW)
    assert following is not None
    assert plan(timetable, following, NOW) == Plan([], 0, None, following)
    assert plan(timetable, following, following - 1) == Plan([], 0, None, following)
    assert plan(timetable, following, following) == Plan([following], 0, None, following + DAY)


def test_a_next_tick_that_is_no_longer_a_tick_makes_nothing() -> None:
    timetable = Timetable(cron="0 0 * * *")
    assert plan(timetable, NOW - HOUR, NOW) == Plan([], 0, None, timetable.after(NOW))


def test_catch_up_all_has_a_window_and_a_number() -> None:
    timetable = Timetable(every=60)
    start = NOW - 7 * DAY
    few = plan(timetable, start, NOW, "all", timedelta(minutes=10))
    assert (len(few.ticks), few.missed, few.missed_at) == (11, 7 * 1440 - 10, NOW - 11 * 60 * SECOND)
    many = plan(timetable, start, NOW, "all", timedelta(days=30))
    assert (len(many.ticks), many.missed) == (1000, 7 * 1440 + 1 - 1000)
    assert many.missed_at == many.ticks[0] - 60 * SECOND
    assert plan(timetable, start, NOW, "all", 0).ticks == [NOW]


def test_a_year_of_ticks_each_second_is_counted_without_asking_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    original = cron_module._days

    def counted(*args: object, **options: object) -> Iterator[int]:
        nonlocal steps
        for day in original(*args, **options):  # type: ignore[arg-type]
            steps += 1
            yield day

    monkeypatch.setattr(cron_module, "_days", counted)
    for zone in ("UTC", "Europe/Berlin"):
        found = plan(Timetable(cron="* * * * * *", timezone=zone), NOW - 365 * DAY, NOW)
        assert found == Plan([NOW], 365 * 86400, NOW - SECOND, NOW + SECOND)
    assert steps < 2000


@pytest.mark.parametrize("catch_up", ["", "newest", None])
def test_an_unknown_word_for_catch_up_is_refused(catch_up: object) -> None:
    with pytest.raises(ValueError, match="catch_up must be latest, all or none"):
        plan(Timetable(every=5), NOW, NOW, catch_up)  # type: ignore[arg-type]


# -- jitter, and words ----------------------------------------------------------------------------


def test_the_offset_is_fixed_by_the_name_and_below_the_jitter() -> None:
    assert offset("refresh", 30) == 22469222  # the same in every process, on every machine
    offsets = [offset(f"schedule {number}", 30) for number in range(1000)]
    assert all(0 <= each < 30 * SECOND for each in offsets)
    assert len(set(offsets)) > 990
    assert 14 * SECOND < sum(offsets) / 1000 < 16 * SECOND
    assert offset("refresh", 0) == 0
    assert offset("refresh", timedelta(seconds=30)) == offset("refresh", 30.0)


@pytest.mark.parametrize("jitter", [-1, float("nan"), float("inf"), "5"])
def test_an_invalid_jitter_is_refused(jitter: object) -> None:
    with pytest.raises(ValueError, match=r"^jitter must be"):
        offset("refresh", jitter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("30 6 * * 1-5", "At 06:30 on Monday through Friday"),
        ("@daily", "At 00:00 every day"),
        ("*/5 9-17 * * *", "Every fifth minute from 09:00 through 17:59"),
    ],
)
def test_an_expression_in_words(expression: str, words: str) -> None:
    assert in_words(expression) == words


def test_every_valid_expression_has_words() -> None:
    source = random.Random(1)
    for _ in range(2000):
        expression = random_expression(source)
        try:
            assert in_words(expression)
        except ValueError:
            with pytest.raises(CronSimError):
                CronSim(expression, datetime(2000, 1, 1))


def test_what_happens_at_the_next_clock_changes() -> None:
    fixed = Timetable(cron="0,30 2 * * *", timezone="Europe/Berlin")
    assert fixed.clock_changes(NOW) == [
        "At 2026-03-29 02:00 clocks in Europe/Berlin go forward to 2026-03-29 03:00. "
        "2 matching times are left out; there is one tick, at the end of the gap.",
        "At 2026-10-25 03:00 clocks in Europe/Berlin go back to 2026-10-25 02:00. "
        "2 matching times are repeated, with a tick only the first time.",
    ]
    often = Timetable(cron="*/30 * * * *", timezone="Europe/Berlin")
    assert [line.partition(". ")[2] for line in often.clock_changes(NOW)] == [
        "2 matching times are left out, without a tick.",
        "2 matching times are repeated, with a tick each time.",
    ]
    noon = Timetable(cron="0 12 * * *", timezone="Europe/Berlin")
    assert [line.partition(". ")[2] for line in noon.clock_changes(NOW)] == ["No tick is affected."] * 2
    day = Timetable(cron="@daily", timezone="Pacific/Apia")
    assert day.clock_changes(at("2011-12-01T00:00Z"))[0] == (
        "At 2011-12-30 00:00 clocks in Pacific/Apia go forward to 2011-12-31 00:00. "
        "1 matching time is left out; there is one tick, at the end of the gap."
    )
    assert day.clock_changes(NOW) == Timetable(cron="@daily").clock_changes(NOW) == []


@pytest.mark.parametrize("name", ZONES)
def test_a_zone_has_the_changes_that_reading_each_hour_finds(name: str) -> None:
    zone, moment = zone_of(name), at("2025-01-01T00:00Z") // SECOND
    end = moment + 366 * 86400
    expected = [hour for hour in range(moment + 900, end, 900) if zone.offset(hour) != zone.offset(hour - 900)]
    found = []
    while (change := zone.change(moment, end)) is not None:
        found.append(change)
        moment = change
    assert found == expected
    assert all(late - early > 3 * 86400 for early, late in itertools.pairwise(found))


def test_a_change_is_found_backwards_where_it_is_found_forwards() -> None:
    for each in CHANGES:
        zone = zone_of(each.zone)
        for change in (at(each.forward) // SECOND, at(each.back) // SECOND):
            assert zone.offset(change - 1) != zone.offset(change)
            for distance in (1, 5, 86399, 86400, 90000, 3 * 86400):
                assert zone.change(change - distance, change + distance) == change
                assert zone.change(change - distance, change) == change
                assert zone.change(change - distance, change - 1) is None
                assert zone.change_before(change + distance, change - distance) == change
                assert zone.change_before(change, change - distance) == change
                assert zone.change_before(change + distance, change) is None

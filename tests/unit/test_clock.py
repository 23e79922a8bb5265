"""Times as microseconds, datetimes and delays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from dbtaskqueue._system import clock


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ],
)
def test_a_datetime_survives_the_conversion(moment: datetime) -> None:
    assert clock.to_datetime(clock.from_datetime(moment)) == moment


@pytest.mark.parametrize("time", [2**63 - 1, 2**62, -(2**63), clock.LATEST + 1, clock.EARLIEST - 1])
def test_times_out_of_range_are_shown_as_the_nearest_datetime(time: int) -> None:
    end = datetime.max if time > 0 else datetime.min
    assert clock.to_datetime(time) == end.replace(tzinfo=UTC)


def test_none_stays_none() -> None:
    assert clock.to_datetime(None) is None


@pytest.mark.parametrize("moment", [datetime(2020, 1, 1), None, 5, "2020-01-01T00:00:00Z"])
def test_a_naive_moment_is_refused(moment: datetime) -> None:
    with pytest.raises(ValueError, match="aware"):
        clock.from_datetime(moment)


def test_after() -> None:
    assert clock.after(10, 1.5) == 1_500_010
    assert clock.after(10, timedelta(minutes=1)) == 60_000_010
    assert clock.after(10, 0) == 10


@pytest.mark.parametrize(
    "delay", [-0.1, timedelta(microseconds=-1), float("nan"), float("inf"), True, None, "1", 10**400]
)
def test_an_invalid_delay(delay: float) -> None:
    with pytest.raises(ValueError, match="start_in"):
        clock.after(0, delay, "start_in")


@pytest.mark.parametrize("delay", [1, 1e30, 1e300, 10**300, timedelta.max])
def test_a_delay_beyond_the_year_9999_is_shortened(delay: float | timedelta) -> None:
    assert clock.after(clock.LATEST - 1, delay) == clock.LATEST


def test_the_clock_runs() -> None:
    shown = clock.to_datetime(clock.now())
    assert shown is not None
    assert abs(shown - datetime.now(UTC)) < timedelta(minutes=1)

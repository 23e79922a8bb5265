"""Looks that viewers share: how often they ask, and what they show while the database is away."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from dbtaskqueue import StoreUnavailable
from dbtaskqueue.dashboard import charts, looks, words
from dbtaskqueue.dashboard.charts import Bar, Series
from dbtaskqueue.dashboard.looks import Looks


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(looks, "time", clock)
    return clock


def counting(clock: Clock, takes: float = 0.0) -> tuple[list[float], Callable[[], int]]:
    calls: list[float] = []

    def read() -> int:
        calls.append(clock.now)
        clock.now += takes
        return len(calls)

    return calls, read


def test_a_subject_is_read_once_a_second(clock: Clock) -> None:
    calls, read = counting(clock)
    shared = Looks()
    for _ in range(100):
        shared.look("overview", read)
        clock.now += 0.05
    assert 5 <= len(calls) <= 6


def test_nothing_is_read_when_nobody_asks(clock: Clock) -> None:
    calls, read = counting(clock)
    Looks().look("overview", read)
    clock.now += 1000
    assert len(calls) == 1


def test_a_slow_look_rests_four_times_as_long(clock: Clock) -> None:
    calls, read = counting(clock, takes=2.0)
    shared = Looks()
    for _ in range(200):
        shared.look("overview", read)
        clock.now += 0.1
    gaps = [after - before for before, after in itertools.pairwise(calls)]
    assert gaps
    assert all(gap >= 10 for gap in gaps)


def test_the_version_changes_only_with_the_value(clock: Clock) -> None:
    shared, values = Looks(), ["a", "a", "b"]
    versions = []
    for _ in range(3):
        versions.append(shared.look("x", lambda: values.pop(0)).version)
        clock.now += 1
    assert versions[0] == versions[1] != versions[2]


def test_the_last_look_stays_while_the_database_is_away(clock: Clock) -> None:
    shared, is_away = Looks(), False

    def read() -> str:
        if is_away:
            raise StoreUnavailable("no")
        return "value"

    first = shared.look("x", read)
    is_away = True
    clock.now += 1
    old = shared.look("x", read)
    assert (old.value, old.is_old, old.at) == ("value", True, first.at)
    with pytest.raises(StoreUnavailable):
        shared.part("x", read)
    with pytest.raises(StoreUnavailable):
        shared.look("never seen", read)
    is_away = False
    clock.now += 1
    assert not shared.look("x", read).is_old


def test_while_one_reads_others_get_the_last_look() -> None:
    shared = Looks()
    assert shared.look("x", lambda: "first").value == "first"
    shared.forget_all()
    started, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        assert may_end.wait(60)
        return "second"

    reader = threading.Thread(target=shared.look, args=("x", slow))
    reader.start()
    assert started.wait(60)
    assert shared.look("x", slow).value == "first"
    may_end.set()
    reader.join(60)
    assert shared.look("x", slow).value == "second"


def test_what_is_counted_is_read_by_a_thread() -> None:
    shared, may_end = Looks(), threading.Event()
    threads = []

    def read() -> int:
        threads.append(threading.current_thread())
        assert may_end.wait(60)
        return 7

    assert shared.counted("x", read, wait=0.01) is None
    assert shared.counted("x", read, wait=0.01) is None
    may_end.set()
    assert shared.counted("x", read, wait=60) == 7
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_the_number_of_subjects_is_bounded() -> None:
    shared = Looks()
    for number in range(1000):
        shared.look(number, lambda: 0)
    assert len(shared._subjects) <= 200


# -- charts and words ------------------------------------------------------------------------------


def test_a_chart_escapes_its_texts() -> None:
    hostile = '"><script>alert(1)</script>'
    bars = [Bar(0, 10, "done", hostile, hostile)]
    for chart in (
        charts.timeline(hostile, bars, 0, 10),
        charts.stacked(hostile, [Series(hostile, "done", [1])], "1h"),
        charts.lines(hostile, [Series(hostile, "1", [1.0, 2.0])], hostile, "1h"),
    ):
        assert "<script" not in chart


def test_a_hole_in_the_values_is_a_hole_in_the_line() -> None:
    whole = charts.lines("x", [Series("a", "1", [1.0, 2.0, 3.0, 4.0, 5.0])], "5", "1h")
    hole = charts.lines("x", [Series("a", "1", [1.0, 2.0, None, 4.0, 5.0])], "5", "1h")
    assert whole.count('class="l1"') == 4
    assert hole.count('class="l1"') == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0.4s"), (0.012, "12ms"), (59, "59s"), (67, "1m 07s"), (3720, "1h 02m"), (93600, "1d 02h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("function", "payload", "text"),
    [
        ("f", '{"args": ["a"], "kwargs": {"n": 1}}', '"a", n=1'),
        (None, '{"argv": ["ls", "-l"]}', "ls -l"),
        ("f", '{"args": ["' + "x" * 400, '{"args": ["' + "x" * 189 + "…"),
        (None, "null", ""),
    ],
)
def test_a_call_as_people_write_it(function: str | None, payload: str, text: str) -> None:
    assert words.call_text(function, payload) == text


def test_a_thread_that_fails_is_not_started_at_each_request() -> None:
    shared, calls, ended = Looks(), [], threading.Event()

    def read() -> int:
        calls.append(1)
        ended.set()
        raise RuntimeError("a fault")

    for _ in range(20):
        shared.counted("x", read, wait=60)
        assert ended.wait(60)
    assert len(calls) == 1

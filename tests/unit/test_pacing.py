"""Counting takes a share of the time, however long it takes: the clock is the test's own."""

from __future__ import annotations

import pytest

from dbtaskqueue.monitoring import pacing
from dbtaskqueue.monitoring.pacing import Paced, pause_after


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(pacing.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize(("seconds", "share"), [(0.01, 0.05), (2.0, 0.05), (3.0, 0.0125)])
def test_work_takes_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch, seconds: float, share: float) -> None:
    clock, calls = Clock(monkeypatch), 0

    def compute() -> int:
        nonlocal calls
        clock.now += seconds
        calls += 1
        return calls

    paced = Paced(compute, share)
    started, before = clock.now, 0
    while calls < 10:
        before = calls
        assert paced() == calls
        clock.now += seconds / 10
    assert before == 9
    assert paced.spent == pytest.approx(10 * seconds)
    assert 9 * seconds / (clock.now - started - seconds) <= share * 1.2
    assert pause_after(seconds, share) == pytest.approx(seconds / share - seconds)

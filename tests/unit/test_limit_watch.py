"""When a running task exceeds a limit, by the monotonic clock of the worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dbtaskqueue import LimitExceeded
from dbtaskqueue._executors import task_run as work_module
from dbtaskqueue._executors.task_run import TaskRun
from dbtaskqueue._formats.progress import ProgressTracker
from dbtaskqueue._maintenance.limit_watch import LimitWatch
from dbtaskqueue._store.contract import TaskRecord


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(work_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def running(clock: Clock, options: str) -> TaskRun:
    known = {"id": 7, "queue": "q", "state": "running", "token": 3, "attempt": 1, "payload": "null", "options": options}
    record = TaskRecord(**{name: known.get(name) for name in TaskRecord._fields})  # type: ignore[arg-type]
    work = TaskRun(record, start_stored=True)
    work.started = clock.now
    work.tracker = ProgressTracker()
    return work


@pytest.mark.parametrize("name", ["time", "stall"])
def test_a_limit_is_exceeded_after_its_seconds(clock: Clock, name: str) -> None:
    work = running(clock, f'{{"{name}_limit": 10}}')
    watch = LimitWatch(lambda: [work])
    clock.now += 10
    watch()
    assert not work.cancelled
    clock.now += 0.5
    watch()
    assert work.cancelled
    assert isinstance(work.exceeded, LimitExceeded)
    assert f"{name}_limit of 10 s" in str(work.exceeded)


def test_progress_restarts_the_stall_limit_and_not_the_time_limit(clock: Clock) -> None:
    work = running(clock, '{"stall_limit": 10, "time_limit": 25}')
    assert work.tracker is not None
    watch = LimitWatch(lambda: [work])
    for done in range(3):
        clock.now += 8
        work.tracker.update(done, None, None)
        watch()
        assert not work.cancelled
    clock.now += 8
    watch()
    assert "time_limit" in str(work.exceeded)


@pytest.mark.parametrize("name", ["time", "stall"])
def test_the_time_that_a_task_is_suspended_does_not_count(clock: Clock, name: str) -> None:
    work = running(clock, f'{{"{name}_limit": 10}}')
    watch = LimitWatch(lambda: [work])
    clock.now += 5
    work.note_suspended(True)
    clock.now += 60
    watch()
    assert not work.cancelled, "while it is suspended"
    work.note_suspended(False)
    clock.now += 4
    watch()
    assert not work.cancelled, "after it continued"
    clock.now += 2
    watch()
    assert work.cancelled


def test_a_task_that_has_not_started_exceeds_no_limit(clock: Clock) -> None:
    work = running(clock, '{"time_limit": 10}')
    work.started = 0.0
    LimitWatch(lambda: [work])()
    assert not work.cancelled

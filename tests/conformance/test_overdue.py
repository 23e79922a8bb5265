"""Overdue and stalled tasks: exactly by the definition, and from figures that are at most a minute old."""

from __future__ import annotations

import pytest
from engines import execute, schema_of

from dbtaskqueue import TaskQueue, overdue
from dbtaskqueue._store.contract import Claim, End, HistoryRecord, NewTask, Note
from dbtaskqueue._system import clock
from dbtaskqueue.overdue import overdue_ids, stalled, unusual

SECOND = 1_000_000


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "_KEPT", 0.0)
    monkeypatch.setattr(overdue, "_UNKNOWN_KEPT", 0.0)


def start(queue: TaskQueue, function: str | None, ago: float, *, command: int = 0) -> tuple[int, int]:
    """Start a task so many seconds ago; return its id and token."""
    now = clock.now() - round(ago * SECOND)
    new = NewTask(queue.name, 0, now, 10, now, None, function, None, "1", command=command)
    [id] = queue.store.enqueue([[new]]).ids
    claim = Claim([queue.name], 1, now, start=True, commands=True)
    [record] = queue.store.exchange(queue._membership.join(), claim=claim).claimed
    assert record.id == id
    return id, record.token


def known(queue: TaskQueue, function: str | None, *seconds: float, command: int = 0) -> None:
    """Let attempts of a function take so many seconds each."""
    for each in seconds:
        id, token = start(queue, function, each + 1, command=command)
        record = queue.store.get(id)
        assert record is not None
        assert record.started_at is not None
        end = End("finish", id, token, record.started_at + round(each * SECOND))
        queue.store.exchange(queue._membership.join(), ends=[end])


def reports(queue: TaskQueue, id: int, token: int, *ago: float) -> None:
    """Store a report of progress at each of these times."""
    for each in ago:
        note = Note(id, token, "progress", f"[{each}, null, null, null]", clock.now() - round(each * SECOND))
        queue.store.exchange(queue._membership.join(), notes=[note])


# -- overdue ---------------------------------------------------------------------------------------


def test_a_task_that_takes_much_longer_than_its_function_usually_does(queue: TaskQueue) -> None:
    known(queue, "f", *[100] * 20)
    start(queue, "f", 140)
    late, _ = start(queue, "f", 160)
    start(queue, "new", 10_000)
    [found] = overdue.overdue(queue.store)
    assert (found.id, found.queue, found.function, found.trouble, found.expected) == (
        late,
        "default",
        "f",
        "overdue",
        150,
    )
    assert 160 <= found.seconds < 220
    assert "running for" in found.text
    assert "1 min" in found.text or "100 s" in found.text
    assert overdue_ids(queue.store) == [late]
    assert overdue_ids(queue.store, ["default"]) == [late]
    assert overdue_ids(queue.store, ["other"]) == []


@pytest.mark.parametrize(("attempts", "is_overdue"), [(4, False), (5, True)])
def test_five_attempts_must_be_known(queue: TaskQueue, attempts: int, is_overdue: bool) -> None:
    known(queue, "f", *[10] * attempts)
    start(queue, "f", 100)
    assert bool(overdue_ids(queue.store)) == is_overdue


def test_no_attempt_is_overdue_within_a_minute(queue: TaskQueue) -> None:
    known(queue, "f", *[0.001] * 10)
    start(queue, "f", 30)
    late, _ = start(queue, "f", 61)
    assert overdue_ids(queue.store) == [late]


def test_callbacks_and_commands_are_told_apart(queue: TaskQueue) -> None:
    known(queue, None, *[1] * 5)
    known(queue, None, *[1000] * 5, command=1)
    late, _ = start(queue, None, 100)
    start(queue, None, 100, command=1)
    assert [(task.id, task.function) for task in overdue.overdue(queue.store)] == [(late, "(callback)")]


def test_another_queue_has_figures_of_its_own(queue: TaskQueue) -> None:
    lane = queue.lane("other")
    known(queue, "f", *[1] * 5)
    known(lane, "f", *[1000] * 5)
    late, _ = start(queue, "f", 100)
    start(lane, "f", 100)
    assert overdue_ids(queue.store) == [late]


def test_figures_of_the_history_are_used_if_too_few_attempts_are_known(queue: TaskQueue) -> None:
    now = clock.now()
    row = HistoryRecord(60, now - now % (60 * SECOND), 1, "default", "f", done=5, run_times='{"6": 5}')
    queue.store.write_history([row])
    start(queue, "f", 64)
    late, _ = start(queue, "f", 97)
    assert overdue_ids(queue.store) == [late]
    known(queue, "f", *[200] * 5)
    assert overdue_ids(queue.store) == [], "the newest attempts are exact"
    queue.store.write_history([row._replace(function="g", done=4, run_times='{"6": 4}')])
    start(queue, "g", 97)
    assert overdue_ids(queue.store) == []


@pytest.mark.one_engine("decided in Python")
def test_figures_are_remembered_for_a_minute(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "_KEPT", 60.0)
    known(queue, "f", *[1] * 5)
    late, _ = start(queue, "f", 100)
    asked = []
    read = queue.store.ended
    monkeypatch.setattr(queue.store, "ended", lambda *values: asked.append(values) or read(*values))
    for _ in range(3):
        assert overdue_ids(queue.store) == [late]
    assert len(asked) == 1
    start(queue, "new", 100)
    overdue_ids(queue.store)
    assert len(asked) == 2, "a function that was unknown may be known by now"


# -- stalled ---------------------------------------------------------------------------------------


def test_a_task_without_progress_for_ten_minutes(queue: TaskQueue) -> None:
    id, token = start(queue, "f", 2000)
    reports(queue, id, token, *range(1990, 1000, -50), 590)
    assert stalled(queue.store) == []
    late, token = start(queue, "f", 2000)
    reports(queue, late, token, *range(1990, 1000, -50), 700)
    start(queue, "silent", 100_000)
    [found] = stalled(queue.store)
    assert (found.id, found.trouble) == (late, "stalled")
    assert 700 <= found.seconds < 760
    assert found.expected == 600


def test_a_task_that_reports_rarely_has_five_of_its_gaps(queue: TaskQueue) -> None:
    """With a report each hour, ten minutes without one are usual."""
    hour = 3600
    id, token = start(queue, "f", 10 * hour)
    reports(queue, id, token, *range(9 * hour, 3 * hour, -hour))
    assert stalled(queue.store) == []
    late, token = start(queue, "f", 10 * hour)
    reports(queue, late, token, 9 * hour, 8 * hour)
    assert [task.id for task in stalled(queue.store)] == [late]


def test_progress_of_an_earlier_attempt_does_not_count(queue: TaskQueue) -> None:
    id, token = start(queue, "f", 5000)
    reports(queue, id, token, 4000)
    queue.store.exchange(queue._membership.join(), ends=[End("release", id, token, clock.now(), clock.now())])
    [again] = queue.fetch()
    again.start()
    assert again.id == id
    assert stalled(queue.store) == []


def test_a_suspended_task_is_not_stalled(queue: TaskQueue) -> None:
    id, token = start(queue, "f", 5000)
    reports(queue, id, token, 4000)
    schema = f"{schema_of(queue.url)}." if queue.url.startswith("postgresql") else ""
    execute(queue.url, f"UPDATE {schema}dbtaskqueue_task SET suspended = token WHERE id = %s", id)
    assert stalled(queue.store) == []
    assert [(task.id, task.trouble) for task in unusual(queue.store)] == [(id, "suspended")]


def test_all_kinds_in_their_order(queue: TaskQueue) -> None:
    known(queue, "f", *[1] * 5)
    asked, _ = start(queue, "asked", 10)
    queue.cancel(asked)
    silent, token = start(queue, "g", 5000)
    reports(queue, silent, token, *range(4990, 3990, -10))
    late, later = start(queue, "f", 100)[0], start(queue, "f", 200)[0]
    found = [(task.trouble, task.id) for task in unusual(queue.store)]
    assert found == [("overdue", later), ("overdue", late), ("stalled", silent), ("ending", asked)]
    assert unusual(queue.store, ["other"]) == []

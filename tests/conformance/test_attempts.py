"""``attempts(limit=…)``: the newest attempts of a task that has many, page by page."""

from __future__ import annotations

from typing import Any

import pytest

from dbtaskqueue import Task, TaskQueue
from dbtaskqueue._store.contract import Note


@pytest.fixture
def many(queue: TaskQueue) -> Task[Any]:
    """Return a task with six failed attempts and one that is done; the third and the last have an output."""
    queue.enqueue(1, retry=None, max_attempts=None)
    for number in range(1, 8):
        [task] = queue.fetch(1)
        task.start()
        if number in (3, 7):
            note = Note(task.id, task.token, "output", f"line {number}", number)
            queue.store.exchange(task.worker or 0, notes=[note])
        if number == 7:
            task.finish()
        else:
            task.fail(f"error {number}")
            queue.retry(task.id)
    return queue.get(1)


def test_the_newest_attempts_come_oldest_first(many: Task[Any]) -> None:
    every = many.attempts()
    assert [attempt.number for attempt in every] == [1, 2, 3, 4, 5, 6, 7]
    assert many.attempts(limit=7, output=True) == every
    assert many.attempts(limit=100, output=True) == every
    assert [attempt.number for attempt in many.attempts(limit=3)] == [5, 6, 7]
    assert [attempt.outcome for attempt in many.attempts(limit=2)] == ["failed", "done"]


def test_pages_go_back_to_the_first_attempt(many: Task[Any]) -> None:
    numbers, before = [], None
    while page := many.attempts(limit=2, before=before):
        numbers.append([attempt.number for attempt in page])
        before = page[0].token
    assert numbers == [[6, 7], [4, 5], [2, 3], [1]]


def test_outputs_are_read_on_request(many: Task[Any]) -> None:
    assert [attempt.output for attempt in many.attempts(limit=7)] == [None] * 7
    shown = many.attempts(limit=2, before=many.attempts()[3].token, output=True)
    assert [(attempt.number, attempt.output) for attempt in shown] == [(2, None), (3, "line 3")]


@pytest.mark.one_engine("checked before the database is asked")
def test_invalid_pages_are_refused(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    assert task.attempts(limit=1, before=10**30) == task.attempts(limit=1, before=-1) == []
    wrong: list[dict[str, Any]] = [{"limit": 0}, {"limit": True}, {"before": 3}, {"limit": 1, "before": "x"}]
    for given in wrong:
        with pytest.raises(ValueError, match=r"limit|before"):
            task.attempts(**given)

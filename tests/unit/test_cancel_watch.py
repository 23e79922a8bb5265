"""How a worker reacts to the claims that the database lists for it."""

from __future__ import annotations

import pytest

from dbtaskqueue._executors.task_run import TaskRun
from dbtaskqueue._maintenance.cancel_watch import CancelWatch
from dbtaskqueue._store.contract import Held, TaskRecord

TOKEN = 3
CLAIM = Held(id=7, token=TOKEN, state="running", cancel_requested=0, suspended=0)


def running() -> TaskRun:
    known = {"id": 7, "queue": "q", "state": "running", "token": TOKEN, "attempt": 1, "payload": "null"}
    record = TaskRecord(**{name: known.get(name) for name in TaskRecord._fields})  # type: ignore[arg-type]
    return TaskRun(record, start_stored=True)


@pytest.mark.parametrize(
    ("held", "cancelled"),
    [
        ([CLAIM], False),
        ([CLAIM._replace(cancel_requested=1)], True),
        ([], True),
        ([CLAIM._replace(token=TOKEN + 1)], True),  # another claim of this worker on the same task
        ([CLAIM._replace(id=8)], True),
    ],
)
def test_a_task_is_cancelled_when_its_claim_is_lost_or_on_request(held: list[Held], cancelled: bool) -> None:
    work = running()
    CancelWatch(lambda: held, lambda: [work])()
    assert work.cancelled is cancelled


def test_a_task_that_ends_while_the_database_answers_is_left_alone() -> None:
    work = running()
    works = [work]

    def held() -> list[Held]:
        works.clear()
        return []

    CancelWatch(held, lambda: works)()
    assert not work.cancelled


def test_a_task_whose_start_is_not_stored_is_not_checked() -> None:
    work = running()
    work.start_stored = False
    CancelWatch(lambda: pytest.fail("the database was asked"), lambda: [work])()
    assert not work.cancelled


def test_a_task_is_suspended_and_continued_once() -> None:
    work, suspensions = running(), list[bool]()
    rows = [CLAIM._replace(suspended=1)]

    def suspend(suspended: bool) -> None:
        suspensions.append(suspended)
        work.note_suspended(suspended)

    work.suspend = suspend
    watch = CancelWatch(lambda: rows, lambda: [work])
    watch()
    watch()
    rows[:] = [CLAIM]
    watch()
    watch()
    assert suspensions == [True, False]

"""``tasks()`` lists the newest tasks of a queue, however many tasks wait there or in other queues."""

from __future__ import annotations

import itertools
import random
import sqlite3

import pytest
from engines import execute

from dbtaskqueue import TaskQueue
from dbtaskqueue._store.verbs import listing
from dbtaskqueue.states import FINAL, TaskState

SHAPE = random.Random(13)


Tasks = dict[int, tuple[str, str]]
"""Queue and state of each task, by its id."""


def store(url: str, tasks: Tasks) -> None:
    """Store tasks with plain SQL, without the library."""
    columns = "id, queue, state, rank, due, due_set_at, created_at, finished_at, worker"
    rows = [
        (id, name, state, -1, 1, 1, 1, id if state in FINAL else None, 7 if state in ("reserved", "running") else None)
        for id, (name, state) in tasks.items()
    ]
    marks = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows))
    execute(url, f"INSERT INTO dbtaskqueue_task ({columns}) VALUES {marks}", *(value for row in rows for value in row))


def newest_first(tasks: Tasks, queue: str, state: str | None, before: int | None) -> list[int]:
    """Return what a list of a queue should contain: the newest ids below ``before`` in this state."""
    return [
        id
        for id, (name, word) in sorted(tasks.items(), reverse=True)
        if name == queue and state in (None, word) and (before is None or id < before)
    ]


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("walk", [1, 4, 10_000])
def test_a_list_has_the_newest_tasks(queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch, walk: int) -> None:
    monkeypatch.setattr(listing, "_WALK", walk)
    tasks = {
        id: (
            "other" if (15 < id <= 30 and SHAPE.random() < 0.5) or id > 50 else "default",
            SHAPE.choice(["pending", "pending", *map(str, TaskState)]),
        )
        for id in range(1, 61)
        if id not in (5, 6, 7, 33)  # removes them as a prune would
    }
    store(url, tasks)
    befores = [None, -5, 0, 1, 2, 20, 41, 61, 10**30]
    for state, limit, before in itertools.product([None, *TaskState], [1, 5, 100], befores):
        found = [task.id for task in queue.tasks(state=state, limit=limit, before=before)]
        assert found == newest_first(tasks, "default", state, before)[:limit], (state, limit, before)


def test_pages_have_no_gaps_and_no_overlaps(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_WALK", 3)
    ids = [task.id for task in queue.enqueue_many([None] * 25)]
    pages, before = [], None
    while page := queue.tasks(limit=4, before=before):
        pages += [task.id for task in page]
        before = page[-1].id
    assert pages == ids[::-1]


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize(
    "blocks",
    [
        [(20_000, "default", "pending")],
        [(3, "default", "pending"), (20_000, "default", "done")],
        [(300, "default", "pending"), (20_000, "other", "pending")],
        [(20_000, "default", "pending"), (500, "other", "done")],
        [(20_000, "other", "pending")],
    ],
    ids=["many wait", "few wait below done ones", "few wait below others", "many wait below others", "none"],
)
@pytest.mark.parametrize("state", [None, *TaskState])
def test_a_list_does_not_read_all_waiting_tasks(
    queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch, blocks: list[tuple[int, str, str]], state: str | None
) -> None:
    monkeypatch.setattr(listing, "_WALK", 100)
    with sqlite3.connect(queue.store.path) as connection:  # type: ignore[attr-defined]
        for number, name, word in blocks:
            finished = 1 if word == "done" else None
            connection.execute(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
                " INSERT INTO dbtaskqueue_task (queue, state, rank, due, due_set_at, created_at, finished_at)"
                " SELECT ?, ?, 0, 1, 1, 1, ? FROM numbers",
                (number, name, word, finished),
            )
    connection.close()
    queue.tasks(limit=1)
    reader = queue.store._connections._reader.connection  # type: ignore[attr-defined]
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 100

    reader.set_progress_handler(count, 100)
    try:
        queue.tasks(state=state, limit=10)
    finally:
        reader.set_progress_handler(None, 0)
    assert steps < 60_000  # sorting 20,000 tasks takes 200,000 steps

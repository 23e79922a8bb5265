"""What is pruned in the background: the right final tasks, and never what is unfinished or still needed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from engines import execute, schema_of
from helpers import Background, until

from dbtaskqueue import Retention, Task, TaskQueue, Worker
from dbtaskqueue._store.contract import RetentionRecord
from dbtaskqueue._system import clock

DAY = 86_400_000_000


def end(queue: TaskQueue, state: str, *, ago: int = 0, created: int | None = None) -> Task:
    """Return a task that ended in this state so many days ago, and was created on the same day or earlier."""
    task = queue.enqueue()
    if state == "cancelled":
        queue.cancel(task.id)
    else:
        [held] = queue.fetch()
        held.start()
        if state == "done":
            held.finish()
        else:
            held.fail("x", retry=False)
    moment = clock.now() - ago * DAY
    created_at = moment if created is None else clock.now() - created * DAY
    schema = f"{schema_of(queue.url)}." if queue.url.startswith("postgresql") else ""
    execute(
        queue.url,
        f"UPDATE {schema}dbtaskqueue_task SET finished_at = %s, created_at = %s WHERE id = %s",
        *(moment, created_at, task.id),
    )
    return task


def apply(queue: TaskQueue, **limits: int | None) -> int:
    return sum(queue.store.apply_retention(RetentionRecord(queue.name, **limits), clock.now()))


def left(queue: TaskQueue) -> list[int]:
    return sorted(task.id for task in queue.tasks(limit=1000))


def test_nothing_is_pruned_by_default(queue: TaskQueue) -> None:
    assert queue.retention() == Retention(None, None, None, None)
    assert queue.store.retentions() == []


def test_retention_is_stored_for_each_queue(queue: TaskQueue) -> None:
    queue.set_retention(done=timedelta(days=30), cancelled=0, most=100)
    assert queue.retention() == Retention(30 * 86400.0, 0.0, None, 100)
    assert queue.lane("other").retention() == Retention()
    queue.set_retention(abandoned=1.5)
    assert queue.retention() == Retention(abandoned=1.5)
    queue.set_retention(actor="alice")
    assert queue.store.retentions() == []
    queue.set_retention(done=5, actor="alice")
    found = [(action.who, action.verb, action.queue, action.detail) for action in queue.audit()]
    assert found == [("alice", "retention", "default", {"done": "5"}), ("alice", "retention", "default", None)]


@pytest.mark.one_engine("checked in Python")
@pytest.mark.parametrize(
    "limits", [{"done": -1}, {"done": "30d"}, {"cancelled": float("nan")}, {"most": -1}, {"most": 1.5}, {"most": True}]
)
def test_invalid_limits_are_refused(queue: TaskQueue, limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        queue.set_retention(**limits)
    assert queue.store.retentions() == []


def test_tasks_are_deleted_by_state_and_age(queue: TaskQueue) -> None:
    kept, other = [], queue.lane("other")
    for state in ("done", "cancelled", "abandoned"):
        kept += [end(queue, state, ago=1).id, end(other, state, ago=9) and 0]
    old = {state: end(queue, state, ago=9).id for state in ("done", "cancelled", "abandoned")}
    waiting = queue.enqueue()
    kept = [id for id in kept if id] + [waiting.id]
    assert apply(queue, done=5 * DAY) == 1
    assert left(queue) == sorted([*kept, old["cancelled"], old["abandoned"]])
    assert apply(queue, cancelled=5 * DAY, abandoned=5 * DAY) == 2
    assert left(queue) == sorted(kept)
    assert len(left(other)) == 3, "another queue"
    assert apply(queue, done=0, cancelled=0, abandoned=0) == 3
    assert left(queue) == [waiting.id]


def test_an_old_task_behind_many_newer_ones_is_found(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search stops at tasks that were all created too late, not at the first one that is too young."""
    monkeypatch.setattr("dbtaskqueue._store.verbs.history._STEP", 3)
    young = [end(queue, "done", ago=1).id]  # created while the clock was ahead
    young += [end(queue, "done", ago=1, created=20).id for _ in range(7)]
    old = end(queue, "done", ago=9, created=10)
    new = [end(queue, "done", ago=1).id for _ in range(5)]
    assert apply(queue, done=5 * DAY) == 1
    assert left(queue) == sorted([*young, *new])
    assert old.id not in left(queue)


@pytest.mark.one_engine("decided in Python")
def test_a_search_stops_at_tasks_that_were_created_too_late(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbtaskqueue._store.verbs.history._STEP", 3)
    for _ in range(10):
        end(queue, "done")
    asked: list[str] = []
    query = queue.store._connections.query  # type: ignore[attr-defined]

    def ask(name: str, *values: Any) -> Any:
        asked.append(name)
        return query(name, *values)

    monkeypatch.setattr(queue.store._connections, "query", ask)  # type: ignore[attr-defined]
    assert apply(queue, done=DAY) == 0
    assert asked == ["oldest_ended"]


def test_the_oldest_are_deleted_if_there_are_too_many(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbtaskqueue._store.verbs.history._STEP", 2)
    ended = [end(queue, state).id for state in ["done", "abandoned", "cancelled"] * 3]
    waiting = [queue.enqueue().id for _ in range(5)]
    assert apply(queue, most=20) == 0
    assert apply(queue, most=4) == 5
    assert left(queue) == sorted([*ended[-4:], *waiting])
    assert apply(queue, most=0) == 4
    assert left(queue) == waiting


def test_what_an_unfinished_child_needs_is_kept(queue: TaskQueue) -> None:
    parent, single = end(queue, "done", ago=9), end(queue, "done", ago=9)
    open_parent = queue.enqueue()
    child = queue.enqueue(after=[parent, open_parent])
    assert apply(queue, done=0, most=0) == 1
    assert left(queue) == sorted([parent.id, open_parent.id, child.id])
    assert single.id not in left(queue)
    queue.cancel(open_parent.id)
    assert apply(queue, done=0, cancelled=0) == 3
    assert left(queue) == []


def test_a_worker_of_another_queue_prunes(queue: TaskQueue, url: str) -> None:
    """Any worker of the database does it, and it survives being told to do it twice."""
    ended, waiting = end(queue, "done", ago=2), queue.enqueue()
    queue.set_retention(done=86400)
    workers = [Worker(url, queues=["other"]) for _ in range(2)]
    running = [Background(lambda worker=worker: worker.run(lambda payload: payload)) for worker in workers]
    until(lambda: left(queue) == [waiting.id], within=90)
    for worker in workers:
        worker.stop()
    for each in running:
        each.join()
    assert ended.id not in left(queue)

"""Guards that only a race would reach, tested at the store: another process has changed the row since it was read.

The public interface cannot be made to write at such a moment on purpose; ``make mutants`` removes each guard.
"""

from __future__ import annotations

import pytest

from dbtaskqueue import TaskQueue, clock, ends
from dbtaskqueue._store.base import Claim, End, WorkerRecord

LOST = "the worker was lost"


def _worker(queue: TaskQueue) -> WorkerRecord:
    """The worker that this queue's first fetch registered."""
    [worker] = queue.store.workers()
    return worker


def _rescue(queue: TaskQueue, worker: WorkerRecord) -> int | None:
    return queue.store.rescue(worker.id, worker.beat, LOST, clock.now(), ends.retry_time)


def test_a_worker_that_sent_a_heartbeat_since_it_was_read_is_not_marked_lost(queue: TaskQueue) -> None:
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    before = _worker(queue)
    assert queue.store.beat(before.id)
    assert _worker(queue).beat == before.beat + 1
    assert _rescue(queue, before) is None
    assert _worker(queue).lost_at is None
    assert task.start()


def test_a_worker_is_marked_lost_once(queue: TaskQueue) -> None:
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    worker = _worker(queue)
    assert _rescue(queue, worker) == 1
    assert task.refresh().state == "pending"
    lost_at = _worker(queue).lost_at
    assert _rescue(queue, worker) is None
    assert _worker(queue).lost_at == lost_at


def test_a_lost_worker_sends_no_heartbeat_and_claims_nothing(queue: TaskQueue) -> None:
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    worker = _worker(queue)
    assert _rescue(queue, worker) == 1
    assert not queue.store.beat(worker.id)
    assert queue.store.exchange(worker.id, claim=Claim([queue.name], 1, clock.now())).claimed == []
    assert task.refresh().state == "pending"


@pytest.mark.parametrize("late", ["with the token of an earlier claim", "of a task that was not started"])
def test_a_batch_stores_only_what_its_claims_allow(queue: TaskQueue, late: str) -> None:
    queue.enqueue_many(range(3))
    tasks = queue.fetch(3, timeout=10)
    for task in tasks[:2] if late.startswith("of a task") else tasks:
        task.start()
    old = 0 if late.startswith("of a task") else 1
    tokens = [task.token for task in tasks[:2]] + [tasks[2].token - old]
    finishes = [End("finish", task.id, token, clock.now()) for task, token in zip(tasks, tokens, strict=True)]
    verdicts = queue.store.exchange(tasks[0].worker or 0, ends=finishes).ended
    assert [verdict.stored for verdict in verdicts] == [True, True, False]
    assert [queue.get(task.id).state for task in tasks[:2]] == ["done", "done"]
    assert queue.get(tasks[2].id).state != "done"


def test_a_task_retried_while_it_is_pruned_stays(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    task.start()
    task.finish()
    connections = queue.store._connections  # type: ignore[attr-defined]
    query = connections.query

    def retry_behind_it(name: str, *values: object) -> object:
        rows = query(name, *values)
        if name == "prunable" and rows:
            monkeypatch.undo()
            queue.retry(task.id)
        return rows

    monkeypatch.setattr(connections, "query", retry_behind_it)
    assert queue.prune(0) == 0
    assert task.refresh().state == "pending"

"""Guards against races, tested at the store: another process has changed the row since it was read.

The public interface gives no control over such moments. ``make mutants`` removes each guard and expects a failure here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from engines import execute
from helpers import Background, until

from dbtaskqueue import TaskQueue, outcomes
from dbtaskqueue._maintenance.rescuer import Rescuer
from dbtaskqueue._store.contract import Claim, End, WorkerRecord
from dbtaskqueue._system import clock

T = TypeVar("T")

LOST = "the worker was lost"


def _worker(queue: TaskQueue) -> WorkerRecord:
    """Return the worker that the first fetch of this queue registered."""
    [worker] = queue.store.workers()
    return worker


def _rescue(queue: TaskQueue, worker: WorkerRecord) -> int | None:
    rescued = queue.store.rescue(worker.id, worker.beat, LOST, clock.now(), outcomes.retry_time)
    return None if rescued is None else rescued.tasks


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


@pytest.mark.parametrize("runs", [False, True])
def test_a_rescue_gives_a_new_token(queue: TaskQueue, runs: bool) -> None:
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    if runs:
        task.start()
    token = task.token
    assert _rescue(queue, _worker(queue)) == 1
    assert (task.refresh().state, task.token) == ("failed" if runs else "pending", token + 1)


def test_tasks_of_a_worker_without_a_row_are_returned_to_the_queue(queue: TaskQueue, other: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    running, reserved = queue.fetch(2, timeout=10)
    running.start()
    worker = _worker(queue)
    [held] = other.fetch(timeout=10)  # by a live worker
    queue.store.deregister(worker.id)
    Rescuer(queue.store, None, queue.events).check()  # the maintenance thread may have done it already
    assert (running.refresh().state, reserved.refresh().state) == ("failed", "pending")
    assert held.start()


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


def test_a_task_that_is_retried_during_a_prune_is_kept(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
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


# -- locks on a server -----------------------------------------------------------------------------

_WAITING = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    "mariadb": "SELECT 1 FROM information_schema.innodb_trx JOIN information_schema.processlist"
    " ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()",
}


def _waits(url: str) -> bool:
    """Return whether a statement waits for a lock in this database."""
    time.sleep(0.2)  # MariaDB refreshes innodb_trx only if it was not read for 0.1 s
    return bool(execute(url, _WAITING[url.partition(":")[0]]))


def _start_and_wait_for_lock(url: str, act: Callable[[], T]) -> Background[T]:
    """Start ``act`` in a thread. Return when it has ended or waits for a lock."""
    thread = Background(act)
    until(lambda: not thread.runs or _waits(url), what="the end of the thread or its wait for a lock")
    return thread


def _claim(queue: TaskQueue, worker: int) -> list[int]:
    """Claim one task and return its id."""
    claim = Claim([queue.name], 1, clock.now())
    return [task.id for task in queue.store.exchange(worker, claim=claim).claimed]


def _transaction(queue: TaskQueue) -> Any:
    return queue.store._connections.own_transaction()  # type: ignore[attr-defined]


@pytest.mark.engine("postgresql", "mariadb")
def test_a_claim_waits_for_the_transaction_that_marks_its_worker_lost(
    queue: TaskQueue, other: TaskQueue, url: str
) -> None:
    """Otherwise it would claim for a worker whose tasks have already been rescued."""
    queue.enqueue_many(range(2))
    queue.fetch(timeout=10)
    worker = _worker(queue)
    with _transaction(other) as tx:
        assert tx.change("mark_lost", {"worker": worker.id, "beat": worker.beat, "now": clock.now()}) == 1
        claiming = _start_and_wait_for_lock(url, lambda: _claim(queue, worker.id))
    assert claiming.join() == []


@pytest.mark.engine("postgresql", "mariadb")
def test_a_claim_skips_a_task_that_another_worker_is_claiming(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    first, second = queue.enqueue_many(range(2))
    worker = queue._membership.join()
    with _transaction(other) as tx:
        assert tx.change("cancel", {"id": first.id, "now": clock.now(), "running": 1}) == 1
        claiming = _start_and_wait_for_lock(url, lambda: _claim(queue, worker))
        assert not claiming.runs, "the claim waits for the lock"
        assert claiming.join() == [second.id]


@pytest.mark.engine("postgresql", "mariadb")
def test_an_enqueue_waits_for_the_transaction_that_stores_a_task_with_its_key(
    queue: TaskQueue, other: TaskQueue, url: str
) -> None:
    """It reads the key before the commit, waits, and reads it again after the commit."""
    with _transaction(other) as tx:
        first = other.enqueue("first", key="k", connection=tx.connection)
        enqueuing = _start_and_wait_for_lock(url, lambda: queue.enqueue("second", key="k"))
    task = enqueuing.join()
    assert (task.id, task.refresh().payload) == (first.id, "first")


@pytest.mark.engine("postgresql", "mariadb")
def test_an_enqueue_does_not_wait_for_a_claim(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(3))
    worker = other._membership.join()
    with _transaction(other) as tx:
        claimed = other.store._claim(tx, worker, Claim([queue.name], 5, clock.now()))  # type: ignore[attr-defined]
        assert len(claimed) == 3
        enqueuing = _start_and_wait_for_lock(url, queue.enqueue)
        assert not enqueuing.runs, "the enqueue waits for the lock"


@pytest.mark.engine("postgresql", "mariadb")
def test_a_transaction_is_retried_after_a_deadlock(queue: TaskQueue, other: TaskQueue) -> None:
    one, two = (task.id for task in queue.enqueue_many(range(2)))
    both_have_one = threading.Barrier(2)
    tries: list[int] = []

    def cancel_both(handle: TaskQueue, first: int, second: int) -> None:
        def work(tx: Any) -> None:
            tries.append(first)
            tx.change("cancel", {"id": first, "now": clock.now(), "running": 1})
            if tries.count(first) == 1:
                both_have_one.wait(30)
            tx.change("cancel", {"id": second, "now": clock.now(), "running": 1})

        handle.store._connections.write(work)  # type: ignore[attr-defined]

    threads = [
        Background(lambda: cancel_both(queue, one, two)),
        Background(lambda: cancel_both(other, two, one)),
    ]
    for thread in threads:
        thread.join()
    assert len(tries) == 3
    assert queue.stats().cancelled == 2

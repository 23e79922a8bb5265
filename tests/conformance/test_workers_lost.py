"""How many workers were marked lost: a count that never falls, in the transaction of the rescue."""

from __future__ import annotations

from helpers import die_holding

from dbtaskqueue import TaskQueue
from dbtaskqueue._store.contract import TaskRecord
from dbtaskqueue._system import clock


def due_now(record: TaskRecord, lost_before: int, now: int) -> int:
    return now


def test_each_lost_worker_is_counted_once(queue: TaskQueue, url: str) -> None:
    store = queue.store
    assert store.workers_lost() == 0
    for number in (1, 2):
        queue.enqueue(number)
        die_holding(url)
        [worker] = [each for each in store.workers() if each.lost_at is None]
        for expected in (1, None):  # None: it was marked lost before
            rescued = store.rescue(worker.id, worker.beat, "lost", clock.now(), due_now)
            assert (rescued and rescued.tasks) == expected
        assert store.workers_lost() == number


def test_tasks_of_workers_that_are_lost_already_do_not_count(queue: TaskQueue, url: str) -> None:
    store = queue.store
    queue.enqueue("x")
    die_holding(url)
    [worker] = store.workers()
    store.deregister(worker.id)
    rescued = store.rescue(None, 0, "lost", clock.now(), due_now)
    assert rescued is not None
    assert rescued.tasks == 1
    assert store.workers_lost() == 0


def test_a_worker_that_leaves_is_not_lost(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url) as other:
        other.enqueue("x")
        [task] = other.fetch()
        task.start()
        task.finish("y")
    assert queue.store.workers_lost() == 0

"""Many threads share one handle."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from helpers import Background

from dbtaskqueue import TaskQueue, TaskState

pytestmark = pytest.mark.pooled("many concurrent transactions")

THREADS = 64


def test_64_threads_on_one_handle(queue: TaskQueue) -> None:
    """Each thread enqueues, fetches, starts and finishes. Every task is run once and none is left."""
    together = threading.Barrier(THREADS, timeout=30)

    def work(number: int) -> list[int]:
        together.wait()
        done = []
        for n in range(4):
            queue.enqueue({"by": number, "n": n})
            [task] = queue.fetch(timeout=60)
            with task:
                task.result = number
            done.append(task.id)
        return done

    threads = [Background(lambda number=number: work(number)) for number in range(THREADS)]
    done = Counter(id for thread in threads for id in thread.join(120))
    assert set(done.values()) == {1}
    assert len(done) == THREADS * 4
    stats = queue.stats()
    assert (stats.pending, stats.reserved, stats.running, stats.workers) == (0, 0, 0, 1)
    for id in done:
        task = queue.get(id)
        assert (task.state, task.token, task.attempt) == ("done", 1, 1)


def test_two_handles_in_many_threads(queue: TaskQueue, other: TaskQueue) -> None:
    queue.enqueue_many(range(400))

    def consume(handle: TaskQueue) -> list[int]:
        seen = []
        while tasks := handle.fetch(3, timeout=0):
            for task in tasks:
                with task:
                    seen.append(task.payload)
        return seen

    threads = [Background(lambda handle=handle: consume(handle)) for handle in (queue, other) * 8]
    assert sorted(n for thread in threads for n in thread.join()) == list(range(400))


def test_many_threads_open_a_new_database_concurrently(url: str) -> None:
    together = threading.Barrier(16, timeout=30)

    def work() -> int:
        together.wait()
        with TaskQueue(url) as queue:
            return queue.enqueue().id

    ids = [thread.join() for thread in [Background(work) for _ in range(16)]]
    assert sorted(ids) == list(range(1, 17))


@pytest.mark.parametrize("threads", [8])
def test_close_while_other_threads_use_the_queue(url: str, threads: int) -> None:
    queue = TaskQueue(url)
    queue.enqueue_many(range(200))

    def consume() -> int:
        count = 0
        while tasks := queue.fetch(2):
            for task in tasks:
                try:
                    with task:
                        count += 1
                except Exception:  # released by the close
                    assert queue.fetch() == []
        return count

    consumers = [Background(consume) for _ in range(threads)]
    with TaskQueue(url) as watcher:
        while watcher.stats().done < 20:
            pass
        queue.close()
        for consumer in consumers:
            consumer.join()
        counts = watcher.store.count("default", final=True)  # final counts of stats() may be ten seconds old
        assert counts[TaskState.PENDING] + counts[TaskState.DONE] == 200
        assert watcher.stats().workers == 0

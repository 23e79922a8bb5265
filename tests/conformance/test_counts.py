"""What the dashboard reads in one statement: counts of many queues, and the tasks that run longest."""

from __future__ import annotations

from dbtaskqueue import TaskQueue
from dbtaskqueue.states import TaskState


def test_the_final_counts_of_many_queues_are_those_of_each(queue: TaskQueue) -> None:
    held = []  # a task that nothing refers to is released
    names = ["a", "..", "empty"]
    for name in names[:2]:
        lane = queue.lane(name)
        parent = lane.enqueue(0)
        lane.enqueue(1, after=parent)
        lane.enqueue_many(range(5))
        first, second, third, *_ = found = lane.fetch(4, timeout=10)
        held += found
        assert first.start()
        assert second.start()
        second.finish()
        assert third.start()
        third.fail("no", retry=False)
        lane.enqueue(2, start_in=60).cancel()
    queue.lane("a").pause()
    final = {record.name: record for record in queue.store.final_counts(names)}
    assert set(final) == set(names)
    for name in names:
        count = queue.store.count(name, final=True)
        assert final[name][1:] == tuple(count[s] for s in (TaskState.DONE, TaskState.CANCELLED, TaskState.ABANDONED))
    assert queue.store.paused_queues() == {"a"}
    assert final["a"].done == final["a"].abandoned == final["a"].cancelled == 1


def test_the_tasks_that_run_longest_come_first(queue: TaskQueue) -> None:
    queue.enqueue_many(["x" * 1000, "second"])
    queue.lane("other").enqueue("third")
    tasks = [*queue.fetch(2, timeout=10), *queue.lane("other").fetch(timeout=10)]
    for task in tasks:
        assert task.start()
    found = queue.store.longest_running(10)
    assert [record.id for record in found] == [task.id for task in tasks]
    assert len(found[0].payload or "") == 300
    assert found[2].queue == "other"
    assert [record.id for record in queue.store.longest_running(2)] == [task.id for task in tasks[:2]]

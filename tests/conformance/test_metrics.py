"""What the metrics count in a database, against what other parts of the library say about it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from helpers import Background, die_holding, until

from dbtaskqueue import RetryPolicy, Task, TaskQueue, TaskState, Worker, current_task, overdue
from dbtaskqueue._system import clock
from dbtaskqueue.metrics.census import OUTCOMES, Census, Counting, Ended
from dbtaskqueue.metrics.exposition import expose
from dbtaskqueue.metrics.families import Families
from dbtaskqueue.monitoring import probe

DAY = 86_400_000_000


def count(queue: TaskQueue) -> Census:
    """Count as ``dbtaskqueue metrics`` does."""
    found = Counting(queue.store)()
    assert b"dbtaskqueue_up 1.0" in expose(Families().of(found)).text
    return found


def outcomes(found: Census, queue: str, function: str) -> dict[str, int]:
    """Return the outcomes of a function's attempts, without zeros."""
    ended = found.ended[queue, function]
    assert sum(ended.runs) == ended.attempts
    return {word: number for word, number in zip(OUTCOMES, ended.outcomes, strict=True) if number}


def act(payload: str) -> str:
    if payload == "fail":
        raise ValueError("no luck")
    return payload


def test_an_empty_database(queue: TaskQueue) -> None:
    assert count(queue) == Census([], {}, {}, Counter(), 0, [])


def test_queues_are_counted_as_in_their_statistics(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many(["x", "x", "fail", "give up"], retry=RetryPolicy(delay=3600))
    parent = queue.enqueue("parent", start_in=60)
    queue.enqueue("child", after=parent)
    Worker(queue).run(act, burst=True)
    queue.cancel(queue.enqueue("y").id)
    with TaskQueue(url, "other") as other:
        other.enqueue("z")
        other.pause()
        found = {each.name: each for each in count(queue).queues}
        for each in (queue, other):
            stats = each.stats()
            mine = found[each.name]
            assert mine.counts == {state: getattr(stats, state) for state in TaskState}
            assert (mine.paused, mine.blocked) == (stats.paused, stats.blocked)
            assert (mine.waited is None) == (stats.oldest_due is None)
    assert found["default"].counts[TaskState.DONE] == 3
    assert found["default"].blocked == 1


def test_attempts_are_counted_by_function_and_outcome(queue: TaskQueue) -> None:
    @queue.task(name="app.fetch")
    def fetch(page: int) -> int:
        return page

    for page in range(4):
        fetch.enqueue(page)
    queue.enqueue_many(["x", "fail"], retry=RetryPolicy(max_attempts=1))
    Worker(queue).run(act, burst=True)
    found = count(queue)
    assert outcomes(found, "default", "app.fetch") == {"done": 4}
    assert outcomes(found, "default", "(callback)") == {"done": 1, "abandoned": 1}


def test_a_lost_worker_and_its_attempt_are_counted_once(queue: TaskQueue, url: str) -> None:
    queue.enqueue("x")
    die_holding(url)
    [task] = queue.fetch(timeout=60)
    task.start()
    task.finish()
    queue.close()
    with TaskQueue(url) as again:
        found = count(again)
    assert (found.lost, found.workers["lost"]) == (1, 1)
    assert outcomes(found, "default", "(callback)") == {"lost": 1, "done": 1}


@pytest.fixture
def running(queue: TaskQueue) -> Iterator[list[Task]]:
    """Two tasks that run until the end of the test, of which the second one reports progress."""
    go, tasks = threading.Event(), [queue.enqueue("silent"), queue.enqueue("report")]

    def wait(payload: str) -> None:
        if payload == "report":
            current_task().progress(1, 2)
        go.wait(60)

    worker = Worker(queue, executor="thread", concurrency=2)
    runs = Background(lambda: worker.run(wait))
    until(lambda: tasks[1].refresh().progress is not None and tasks[0].refresh().state == "running", what="progress")
    yield tasks
    go.set()
    worker.stop()
    runs.join()


def test_running_tasks_are_counted_by_function(queue: TaskQueue, running: list[Task]) -> None:
    found = count(queue)
    [(pair, both)] = found.running.items()
    assert pair == ("default", "(callback)")
    assert (both.tasks, both.overdue, both.stalled) == (2, 0, 0)
    assert both.longest > 0
    assert found.workers == {"alive": 1}


def test_overdue_and_stalled_tasks(queue: TaskQueue, running: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    with TaskQueue(queue.url) as other:
        other.enqueue_many(["quick"] * overdue.LEAST_KNOWN, priority=9)
        for task in other.fetch(overdue.LEAST_KNOWN):
            task.start()
            task.finish()
    for name in ("LEAST_OVERDUE", "LEAST_STALLED", "FACTOR", "GAPS"):
        monkeypatch.setattr(overdue, name, 0.0)
    until(lambda: count(queue).running["default", "(callback)"][2:] == (2, 1), what="both overdue, one stalled")


# -- counters --------------------------------------------------------------------------------------


def fallen(before: dict[tuple[str, str], Ended], after: dict[tuple[str, str], Ended]) -> list[object]:
    """Return the counters that have fallen."""
    return [
        (pair, name)
        for pair, old in before.items()
        for name, smaller, larger in (
            ("outcomes", old.outcomes, after[pair].outcomes),
            ("microseconds", [old.microseconds], [after[pair].microseconds]),
            ("runs", old.runs, after[pair].runs),
            ("waits", old.waits, after[pair].waits),
        )
        if any(one > other for one, other in zip(smaller, larger, strict=True))
    ]


def test_counters_never_fall_when_tasks_are_pruned_and_history_is_folded(queue: TaskQueue) -> None:
    before: dict[tuple[str, str], Ended] = {}
    for step, days in enumerate((0, 1, 8, 35, 500)):
        queue.enqueue_many(["x", "fail"], retry=RetryPolicy(max_attempts=1))
        Worker(queue).run(act, burst=True)
        queue.prune(older_than=0, states=["done", "abandoned"])
        while queue.store.fold_history(clock.now() + days * DAY, 100):
            pass
        after = count(queue).ended
        assert fallen(before, after) == []
        assert sum(each.attempts for each in after.values()) == 2 * (step + 1)
        before = after


def test_counters_never_fall_while_the_history_is_folded(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many(["x"] * 30)
    Worker(queue).run(act, burst=True)
    done = threading.Event()

    def fold() -> None:
        with TaskQueue(url) as other:
            for days in (1, 8, 35, 500):
                for _ in range(3):
                    other.store.fold_history(clock.now() + days * DAY, 1)
        done.set()

    folding, attempts = Background(fold), []
    while not done.is_set():
        attempts.append(sum(each.attempts for each in count(queue).ended.values()))
    folding.join()
    assert set(attempts) == {30}


# -- health ----------------------------------------------------------------------------------------


def test_a_healthy_database_has_no_problems(queue: TaskQueue, running: list[Task]) -> None:
    assert probe.problems(queue.store, 900, 1) == []
    assert probe.problems(queue.store, 900, 1, "default") == []


def test_problems_are_named(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, "other") as other:
        for each in (queue, other):
            each.enqueue("x")
        queue.enqueue("later", start_in=3600)
        assert probe.problems(queue.store, 3600, 0) == []
        first, second, workers = until(
            lambda: found if len(found := probe.problems(queue.store, 0, 2)) == 3 else None, what="both wait"
        )
        assert first.startswith("queue default: a due task has waited ")
        assert second.startswith("queue other: a due task has waited ")
        assert workers == "0 live workers, at least 2 required"
        other.pause()
        [only] = probe.problems(queue.store, 0, 0)
        assert only.startswith("queue default: ")
        assert probe.problems(queue.store, 0, 0, "other") == []


def test_workers_of_another_queue_do_not_count(queue: TaskQueue, running: list[Task]) -> None:
    assert probe.problems(queue.store, 900, 1, "other") == ["queue other: 0 live workers, at least 1 required"]

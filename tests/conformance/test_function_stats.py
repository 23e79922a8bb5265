"""Statistics of the latest attempts of each task function."""

from __future__ import annotations

import pytest

from dbtaskqueue import FunctionStats, RetryPolicy, TaskQueue
from dbtaskqueue._formats.task_options import encode
from dbtaskqueue._store.contract import Claim, End, EndedRecord, NewTask
from dbtaskqueue._system import clock
from dbtaskqueue.overview import percentile, summarize

AGO = 10**9


def ran(
    queue: TaskQueue, function: str | None, verb: str, seconds: int, *, command: int = 0, cpu: int | None = None
) -> int:
    """Run an attempt that starts now and ends after this many seconds. Return the task's id."""
    now = clock.now() - AGO
    options = encode({"retry": RetryPolicy(delay=3600)})
    new = NewTask(queue.name, 0, now, 10, now, None, function, options, "1", command=command)
    [id] = queue.store.enqueue([[new]]).ids
    worker = queue._membership.join()
    [record] = queue.store.exchange(worker, claim=Claim([queue.name], 1, now, start=True, commands=True)).claimed
    assert record.id == id
    end = End(verb, id, record.token, now + seconds * 1_000_000, due=now + 2 * AGO, error="x", cpu=cpu, memory=cpu)
    assert queue.store.exchange(worker, ends=[end]).ended[0].stored
    return id


def test_figures_of_each_function(queue: TaskQueue) -> None:
    assert queue.function_stats() == []
    for seconds in range(1, 21):
        ran(queue, "f", "finish", seconds, cpu=seconds * 1_000_000)
    for verb in ("fail", "release"):
        ran(queue, "g", verb, 3)
    queue.cancel(ran(queue, "g", "fail", 5))
    ran(queue, None, "finish", 7)
    ran(queue, None, "finish", 8, command=1)
    with TaskQueue(queue.url, queue="other") as other:
        ran(other, "f", "finish", 100)
    assert queue.function_stats() == [
        FunctionStats("(callback)", 1, 0, 7, 7, None, None),
        FunctionStats("(commands)", 1, 0, 8, 8, None, None),
        FunctionStats("f", 20, 0, 10, 19, 10, 20_000_000),
        FunctionStats("g", 2, 2, 3, 5, None, None),
    ]


def test_the_newest_attempts_of_every_kind_count(queue: TaskQueue) -> None:
    wanted = [(verb, ran(queue, verb, verb, seconds)) for seconds, verb in enumerate(["finish", "fail", "release"], 1)]
    done = queue.get(wanted[0][1])
    queue.retry(done.id)  # a done attempt of a task that was retried
    found = queue.store.ended(queue.name, 10)
    assert {(each.function, each.outcome) for each in found} == {
        ("finish", "done"),
        ("fail", "failed"),
        ("release", "released"),
    }
    ends = [each.finished_at or 0 for each in found]
    assert ends == sorted(ends, reverse=True)
    assert [each.outcome for each in queue.store.ended(queue.name, 2)] == ["released", "failed"]


def test_a_failed_attempt_counts_during_and_after_the_next_one(queue: TaskQueue) -> None:
    queue.enqueue(1, retry=RetryPolicy(delay=0))
    for count in (1, 2, 3):
        [task] = queue.fetch(timeout=10)
        task.start()
        assert len(queue.store.ended(queue.name, 10)) == count - 1
        if count < 3:
            task.fail("x")
    task.finish()
    assert [each.outcome for each in queue.store.ended(queue.name, 10)] == ["done", "failed", "failed"]
    [figures] = queue.function_stats()
    assert (figures.count, figures.failures) == (3, 2)


@pytest.mark.parametrize(
    ("values", "of_hundred", "wanted"),
    [([], 50, None), ([7], 50, 7), ([7], 95, 7), ([4, 1, 3, 2], 50, 2), ([*range(1, 101)], 95, 95), ([1, 2], 95, 2)],
)
def test_percentiles_are_nearest_rank(values: list[float], of_hundred: int, wanted: float | None) -> None:
    assert percentile(values, of_hundred) == wanted


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    [figures] = summarize([EndedRecord("f", 0, "done", 9, 1, None, None)])
    assert (figures.p50, figures.p95) == (0, 0)

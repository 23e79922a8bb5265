"""Old rows of the history are added up to longer periods. The sum over the table never changes by that."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import pytest
from attempts import OUTCOMES, outcomes_of
from helpers import Background

from dbtaskqueue import TaskQueue
from dbtaskqueue._formats import buckets
from dbtaskqueue._store.contract import HistoryRecord, SampleRecord
from dbtaskqueue._store.verbs.history import FOLDS

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = 1_800_000_000 * SECOND + 123_456_789


def some_rows(seed: int, number: int = 300) -> list[HistoryRecord]:
    """Return rows of minutes within 500 days, of several writers and functions."""
    dice = random.Random(seed)
    found: dict[tuple[Any, ...], HistoryRecord] = {}
    for _ in range(number):
        age = int(dice.choice([HOUR, DAY, 10 * DAY, 100 * DAY, 500 * DAY]) * dice.random())
        at = NOW - age
        key = (60, at - at % (60 * SECOND), dice.randint(1, 3), dice.choice("ab"), dice.choice(["f", "g", "é😀"]))
        times = [0] * buckets.SIZE
        times[dice.randrange(buckets.SIZE)] = 6
        found[key] = HistoryRecord(
            *key,
            *[1] * 6,
            seconds=dice.randrange(10**9),
            cpu=5,
            memory=dice.choice([None, dice.randrange(10**9)]),
            run_times=buckets.encode(times),
            wait_times=buckets.encode(times),
        )
    return list(found.values())


def sums(rows: list[HistoryRecord]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return the figures of each queue and function."""
    found = {}
    for pair in sorted({(row.queue, row.function) for row in rows}):
        mine = [row for row in rows if (row.queue, row.function) == pair]
        run, wait = [0] * buckets.SIZE, [0] * buckets.SIZE
        for row in mine:
            run = buckets.added(run, buckets.decode(row.run_times))
            wait = buckets.added(wait, buckets.decode(row.wait_times))
        counts = [sum(getattr(row, name) for row in mine) for name in (*OUTCOMES, "seconds", "cpu")]
        found[pair] = (*counts, max((row.memory or 0 for row in mine), default=0), run, wait)
    return found


def fold_all(queue: TaskQueue, now: int, limit: int = 100) -> None:
    while queue.store.fold_history(now, limit):
        pass


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_each_attempt_stays_in_exactly_one_row(queue: TaskQueue, limit: int) -> None:
    rows = some_rows(limit, 60 if limit == 1 else 300)
    queue.store.write_history(rows)
    before = sums(rows)
    fold_all(queue, NOW, limit)
    after = queue.store.history(0)
    assert sums(after) == before == sums(queue.store.history_totals())
    assert len(after) < len(rows)
    for fold in FOLDS:
        ages = [NOW - row.at for row in after if row.period == fold.period]
        assert max(ages, default=0) <= fold.age + (fold.longer or 86400) * SECOND
    assert all(row.worker == 0 for row in after if row.period != 60)
    assert all(row.at % (row.period * SECOND) == 0 for row in after if row.period)


def test_late_rows_are_folded_next_time(queue: TaskQueue) -> None:
    rows = some_rows(1, 50)
    queue.store.write_history(rows)
    fold_all(queue, NOW)
    late = [row._replace(worker=9) for row in some_rows(2, 50)]
    queue.store.write_history(late)
    fold_all(queue, NOW)
    assert sums(queue.store.history(0)) == sums([*rows, *late])


def test_totals_never_fall_while_others_fold_and_write(queue: TaskQueue, url: str) -> None:
    """Two programs fold at the same time, one writes, and a reader sees each sum at least as large as before."""
    rows = some_rows(3, 200)
    queue.store.write_history(rows)
    is_over = threading.Event()

    def fold() -> None:
        with TaskQueue(url) as mine:
            fold_all(mine, NOW, 5)

    def write() -> None:
        with TaskQueue(url) as mine:
            for number in range(50):
                new = rows[0]._replace(at=NOW - NOW % (60 * SECOND), worker=77, done=number)
                mine.store.write_history([new])

    def read() -> int:
        reads, seen = 0, Counter[str]()
        with TaskQueue(url) as mine:
            while not is_over.is_set() or not reads:
                found = Counter(
                    {name: sum(getattr(row, name) for row in mine.store.history_totals()) for name in OUTCOMES}
                )
                assert found >= seen
                reads, seen = reads + 1, found
        return reads

    reading = Background(read)
    for each in [Background(fold), Background(fold), Background(write)]:
        each.join(120)
    is_over.set()
    assert reading.join(60) > 0
    new = rows[0]._replace(at=NOW, worker=77, done=49)
    expected, found = sums([*rows, new]), sums(queue.store.history(0))
    assert found == expected


def test_samples_keep_their_largest_values(queue: TaskQueue) -> None:
    at = NOW - 10 * DAY
    at -= at % (3600 * SECOND)
    samples = [
        SampleRecord(60, at + minute * 60 * SECOND, "default", minute, 1, 2, 100 - minute, 0, waited, 1)
        for minute, waited in enumerate([None, 5, 3, None, 7])
    ]
    queue.store.write_samples(samples)
    fold_all(queue, NOW, 2)
    assert queue.store.samples(0) == [SampleRecord(3600, at, "default", 4, 1, 2, 100, 0, 7, 1)]
    fold_all(queue, NOW + 1000 * DAY)
    assert queue.store.samples(0) == [], "there is no total of samples"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("text", ["", "x", "[]", "{", '{"a": 1}', '{"1": "x"}', '{"1": null}'])
def test_a_damaged_row_does_not_stop_folding(queue: TaskQueue, text: str) -> None:
    rows = [row._replace(run_times=text) if row.worker == 1 else row for row in some_rows(4, 50)]
    queue.store.write_history(rows)
    fold_all(queue, NOW + DAY)
    assert sum(row.done for row in queue.store.history_totals()) == len(rows)


@pytest.mark.one_engine("decided in Python")
def test_the_oracle_notices_a_missing_bucket() -> None:
    rows = some_rows(5, 3)
    assert outcomes_of(rows).total() == 6 * len(rows)
    with pytest.raises(AssertionError, match="run_times"):
        outcomes_of([rows[0]._replace(run_times="{}"), *rows[1:]])

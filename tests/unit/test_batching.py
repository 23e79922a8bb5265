"""How many tasks a worker claims at once."""

from __future__ import annotations

import itertools

import pytest

from dbtaskqueue._worker.batching import BatchSize


def learned(*lessons: tuple[int, float, float], concurrency: int = 1) -> BatchSize:
    size = BatchSize("auto", concurrency)
    for lesson in lessons:
        size.learn(*lesson)
    return size


def test_tasks_are_claimed_one_by_one_at_first() -> None:
    size = BatchSize("auto", 1)
    for _ in range(9):
        assert size.next() == 1
        size.learn(1, 0.0001, 0.0001)
    assert size.next() == 1
    size.learn(1, 0.0001, 0.0001)
    assert size.next() > 1


def test_batches_double_up_to_a_tenth_of_a_second_of_work() -> None:
    size = learned((20, 20 * 0.001, 0.001))
    sizes = [size.next() for _ in range(12)]
    assert sizes == sorted(sizes)
    assert all(after <= 2 * before for before, after in itertools.pairwise(sizes))
    assert 1 < sizes[-1] <= 100  # a millisecond each: at most about a tenth of a second


def test_batches_have_an_upper_bound() -> None:
    size = learned((100, 0.0, 0.0))
    assert max(size.next() for _ in range(30)) <= 500


def test_more_threads_allow_larger_batches() -> None:
    one, four = learned((20, 0.1, 0.005)), learned((20, 0.1, 0.005), concurrency=4)
    assert max(four.next() for _ in range(20)) == 4 * max(one.next() for _ in range(20))


def test_one_long_task_resets_the_size() -> None:
    size = learned((100, 0.01, 0.0001))
    assert max(size.next() for _ in range(5)) > 1
    size.learn(10, 1.0, 0.9)
    assert size.next() == 1
    size.learn(9, 0.001, 0.0001)
    assert size.next() == 1


def test_long_tasks_are_claimed_one_by_one() -> None:
    size = learned(*[(1, 0.5, 0.5)] * 50)
    assert size.next() == 1


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_given_size_is_kept(batch: int) -> None:
    size = BatchSize(batch, 3)
    size.learn(50, 0.001, 0.0001)
    assert size.next() == batch
    size.learn(1, 100, 100)
    assert size.next() == batch


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "all", None, ""])
def test_an_invalid_size(batch: int) -> None:
    with pytest.raises(ValueError, match="batch"):
        BatchSize(batch, 1)

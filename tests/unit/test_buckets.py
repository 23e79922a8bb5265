"""Buckets of durations: their bounds, how they are stored, and percentiles."""

from __future__ import annotations

import random

import pytest

from dbtaskqueue._formats import buckets
from dbtaskqueue._formats.function_names import counted_as


@pytest.mark.parametrize("index", range(buckets.SIZE))
def test_a_bound_belongs_to_the_lower_bucket(index: int) -> None:
    largest = buckets.LARGEST[index]
    assert largest / 1e6 <= buckets.BOUNDS[index]
    assert buckets.index_of(largest) == index
    assert buckets.index_of(largest + 1) == min(index + 1, buckets.SIZE - 1)


def test_every_duration_has_a_bucket() -> None:
    assert buckets.index_of(0) == buckets.index_of(-(10**18)) == 0
    assert buckets.index_of(10**30) == buckets.SIZE - 1


def test_counts_are_stored_by_exponent() -> None:
    counts = [0] * buckets.SIZE
    counts[buckets.index_of(1_000_000)] = 3  # one second is 2^0
    counts[0] = 1
    assert buckets.encode(counts) == '{"-10": 1, "0": 3}'
    assert buckets.decode(buckets.encode(counts)) == counts
    assert buckets.decode('{"99": 1, "-99": 2}') == [2, *[0] * (buckets.SIZE - 2), 1]


def test_percentiles_are_in_the_right_bucket() -> None:
    dice = random.Random(7)
    for _ in range(50):
        times = [int(dice.lognormvariate(14, 2)) + 1 for _ in range(dice.randrange(1, 200))]
        counts = [0] * buckets.SIZE
        for time in times:
            counts[buckets.index_of(time)] += 1
        for of_hundred in (1, 50, 95, 100):
            exact = sorted(times)[-(-len(times) * of_hundred // 100) - 1]
            found = buckets.percentile(counts, of_hundred)
            assert found is not None
            bound = buckets.BOUNDS[buckets.index_of(exact)]
            assert found <= bound
            assert found >= (bound / 2 if bound > buckets.BOUNDS[0] else 0)
    assert buckets.percentile([0] * buckets.SIZE, 50) is None


def test_further_functions_are_counted_for_their_queue_and_at_last_together() -> None:
    known: set[tuple[str, str]] = set()
    for number in range(1000):
        known.add(counted_as((f"queue {number % 300}", f"f{number}"), known, 100))
    assert len(known) <= 100
    assert ("queue 0", "f0") in known
    assert ("queue 80", "(other)") in known
    assert ("(other)", "(other)") in known
    assert counted_as(("queue 0", "f0"), known, 100) == ("queue 0", "f0")

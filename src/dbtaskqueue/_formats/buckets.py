"""Counts of durations in buckets whose bounds are powers of two, from 2^-10 s to 2^22 s (49 days). Pure.

A list has a count for each bucket: the first one for durations up to 2^-10 s, the last one for all that are longer than
2^21 s. Stored, it is a JSON object from exponents to counts, without the zeros.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

LOWEST, HIGHEST = -10, 22
SIZE = HIGHEST - LOWEST + 1
BOUNDS = [2.0**exponent for exponent in range(LOWEST, HIGHEST + 1)]
"""The upper bounds of the buckets, in seconds."""
LARGEST = [math.floor(bound * 1_000_000) for bound in BOUNDS]
"""The longest durations of the buckets, in microseconds."""


def index_of(microseconds: int) -> int:
    """Return the position of the bucket that a duration belongs to. A negative duration counts as 0."""
    if microseconds <= 0:  # the clock may have been set back
        return 0
    # the duration in units of 2^-10 s, rounded up, is at most 2^n if and only if this has at most n bits
    return min((((microseconds << 10) - 1) // 1_000_000).bit_length(), SIZE - 1)


def encode(counts: Sequence[int]) -> str:
    """Return counts as they are stored."""
    return json.dumps({str(index + LOWEST): count for index, count in enumerate(counts) if count})


def decode(*texts: str) -> list[int]:
    """Return stored counts, or their sums. What cannot be read counts as zero: a damaged row spoils no sum."""
    counts = [0] * SIZE
    for text in texts:
        try:
            for exponent, count in json.loads(text).items():
                counts[min(max(int(exponent), LOWEST), HIGHEST) - LOWEST] += max(0, int(count))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            pass
    return counts


def added(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """Return the sums of the counts of each bucket."""
    return [one + other for one, other in zip(some, others, strict=True)]


def percentile(counts: Sequence[int], of_hundred: float) -> float | None:
    """Return about the duration in seconds that ``of_hundred`` percent do not exceed; None without any.

    Durations count as spread evenly over their bucket, so the value is wrong by less than a factor of two.
    """
    total = sum(counts)
    if not total:
        return None
    rank, before = total * of_hundred / 100, 0
    for index, count in enumerate(counts):
        if count and before + count >= rank:
            lower = BOUNDS[index - 1] if index else 0.0
            return lower + (BOUNDS[index] - lower) * max(0.0, rank - before) / count
        before += count
    return math.nan  # not reached: the rank is at most the total

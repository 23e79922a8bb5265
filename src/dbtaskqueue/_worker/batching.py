"""How many tasks a worker claims at once: long ones one by one, short ones in batches. Pure.

A batch saves transactions, at the price that its starts are stored with its ends. So only tasks that
were seen to be short are batched, and a batch is as much as runs in a fraction of a tenth of a second.
"""

from __future__ import annotations

from ..checks import MOST, is_count, shown

_SHORT = 0.01
"""Seconds on average over which tasks are long and run one by one."""
_BATCH_SECONDS = 0.05
_LARGEST = 500
_PROVEN = 10
"""Short tasks that must have been seen in a row before any is batched."""


class BatchSize:
    """Learns from how long tasks took."""

    def __init__(self, batch: int | str, concurrency: int) -> None:
        if batch != "auto" and (not is_count(batch) or batch > MOST):
            raise ValueError(f"batch is 'auto' or a whole number of at least 1, not {shown(batch)}")
        self._fixed = batch if isinstance(batch, int) else None
        self._concurrency = concurrency
        self._average = 0.0
        self._seen = 0
        self._last = 1

    def learn(self, tasks: int, seconds: float, longest: float) -> None:
        """Take note of how long some tasks took together, and the longest of them."""
        if longest > _SHORT:
            self._seen, self._last = 0, 1
        self._seen += tasks
        mean = max(seconds / tasks, longest if longest > _SHORT else 0.0)
        self._average = mean if mean > self._average else 0.8 * self._average + 0.2 * mean

    def next(self) -> int:
        """How many to claim as one batch; 1 means one by one."""
        if self._fixed is not None:
            return self._fixed
        if self._seen < _PROVEN or self._average > _SHORT:
            return 1
        fitting = int(_BATCH_SECONDS / max(self._average, 1e-6)) * self._concurrency
        self._last = max(1, min(fitting, self._last * 2, _LARGEST))
        return self._last

"""Values that are expensive to compute, and are computed only as often as a share of the time allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SHARE = 0.05
"""The largest share of the time that counting may take: if it is slow, it is done less often."""


class Paced(Generic[T]):
    """A value that is computed only as often as ``share``, a part of the time, allows.

    ``spent``: the seconds that it has taken so far.
    """

    def __init__(self, compute: Callable[[], T], share: float = SHARE) -> None:
        self._compute = compute
        self._share = share
        self._known: list[T] = []
        self._next_at = 0.0
        self.spent = 0.0

    def __call__(self) -> T:
        started = time.monotonic()
        if not self._known or started >= self._next_at:
            self._known = [self._compute()]
            now = time.monotonic()
            self.spent += now - started
            self._next_at = now + pause_after(now - started, self._share)
        return self._known[0]


def pause_after(seconds: float, share: float) -> float:
    """Return how long to pause after work that took ``seconds``, so that it takes ``share`` of the time."""
    return seconds * (1 / share - 1)

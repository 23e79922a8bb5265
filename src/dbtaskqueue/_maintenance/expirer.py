"""Abandons tasks that have expired, also those of queues that no worker serves, and those that are blocked."""

from __future__ import annotations

from .._store.contract import Store
from .._system import clock


class Expirer:
    """Abandons expired tasks. A claim never hands them out, so this may come later."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> int:
        """Abandon all tasks that have expired; return how many."""
        return self._store.expire(clock.now())

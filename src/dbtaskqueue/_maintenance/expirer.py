"""Abandons tasks that have expired, including blocked tasks, and tasks of queues that no worker serves."""

from __future__ import annotations

import logging

from .._store.contract import Store
from .._system import clock
from .._system.log import event


class Expirer:
    """Abandons expired tasks. This may be late, since a claim never hands out an expired task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> int:
        """Abandon all tasks that have expired; return how many."""
        count = self._store.expire(clock.now())
        if count:
            event(logging.WARNING, "tasks have expired and are abandoned", tasks=count)
        return count

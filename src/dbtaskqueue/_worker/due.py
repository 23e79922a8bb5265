"""Sleeping until a task may be due: for workers and for ``fetch``."""

from __future__ import annotations

import queue
from collections.abc import Sequence

from .._store.contract import Store
from .._system import clock


def wait_until_due(
    store: Store,
    queues: Sequence[str],
    seconds: float,
    *,
    commands: bool,
    bell: queue.SimpleQueue[None] | None = None,
) -> bool:
    """Return True if a task of these queues is due; else sleep until one may be, and return False.

    ``seconds``: the longest time to sleep; with 0 or less, only check. The sleep ends with any change of the database,
    with ``ring()``, and when something is put on ``bell``. Then call it again, and claim only after True, since a claim
    takes the write lock. ``commands``: whether command lines count. Raises StoreUnavailable.
    """
    with store.wakeups.waiting(tuple(queues)) as ticket:
        due = store.next_due(queues, commands=commands)
        until_due = None if due is None else (due - clock.now()) / 1e6
        if until_due is not None and until_due <= 0:
            return True
        pause = seconds if until_due is None else min(seconds, until_due)
        if pause > 0:
            if bell is None:
                store.wakeups.wait(ticket, pause)
            else:
                store.wakeups.wait_on(bell, ticket, pause)
        return False

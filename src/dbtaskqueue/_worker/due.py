"""Sleeping until a task may be due: for workers and for ``fetch``."""

from __future__ import annotations

import queue
import time

from .._store.contract import Store
from .._system import clock
from .served import ServedQueues


def wait_until_due(
    store: Store,
    queues: ServedQueues,
    seconds: float,
    *,
    commands: bool,
    bell: queue.SimpleQueue[None] | None = None,
) -> bool:
    """Return True if a task of these queues is due; else sleep until one may be, and return False.

    ``seconds``: the longest time to sleep; with 0 or less, only check. The sleep ends with any change of the database,
    with ``ring()``, when something is put on ``bell``, and when ``queues`` has a new one. Then call it again, and claim
    only after True, since a claim takes the write lock. ``commands``: whether command lines count. Raises
    StoreUnavailable.
    """
    with store.wakeups.waiting(tuple(queues.names)) as ticket:
        has_new = queues.read_if_due()  # after taking the ticket, so that a queue that appears now ends the sleep
        due = store.next_due(queues.names, commands=commands)
        until_due = None if due is None else (due - clock.now()) / 1e6
        if until_due is not None and until_due <= 0:
            return True
        pause = seconds if until_due is None else min(seconds, until_due)
        if pause > 0 and not has_new:  # a new queue needs a ticket that names it
            _wait(store, queues, pause, ticket, bell or queue.SimpleQueue())
        return False


def _wait(store: Store, queues: ServedQueues, pause: float, ticket: object, bell: queue.SimpleQueue[None]) -> None:
    wakeups = store.wakeups
    if ticket is None or wakeups.sees_all_queues or not queues.have_patterns:
        wakeups.wait_on(bell, ticket, pause)
        return
    deadline = time.monotonic() + pause
    while (left := deadline - time.monotonic()) > 0:
        if wakeups.wait_on(bell, ticket, min(left, max(0.0, queues.seconds_to_read))) or queues.read_if_due():
            return

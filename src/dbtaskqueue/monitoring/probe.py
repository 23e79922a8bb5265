"""Health checks for containers, load balancers and monitoring: what is wrong with the queues now, in a few lines."""

from __future__ import annotations

from collections.abc import Iterable

from .._formats.display import short_duration
from .._store.contract import Store
from ..checks import counted
from ..overview import live_workers, seconds_waited, serves


def problems(store: Store, max_wait: float, min_workers: int, queue: str | None = None) -> list[str]:
    """Return a line for each problem of a database, or of one queue; none if it is healthy.

    ``max_wait``: the most seconds that a due task may have waited, except in a paused queue.
    ``min_workers``: the fewest live workers; of a queue, those that serve it. Raises StoreUnavailable.
    """
    names = store.queues() if queue is None else [queue]
    return [*_waits(store, max_wait, names), *_workers(store, min_workers, queue)]


def _waits(store: Store, max_wait: float, names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        waited = seconds_waited(store, name)
        if waited is not None and waited > max_wait and not store.is_paused(name):
            times = f"{short_duration(waited)}, at most {short_duration(max_wait)} allowed"
            found.append(f"queue {name}: a due task has waited {times}")
    return found


def _workers(store: Store, fewest: int, queue: str | None) -> list[str]:
    alive = live_workers(store)
    if queue is not None:
        alive = [worker for worker in alive if serves(worker, queue) is not False]
    if len(alive) >= fewest:
        return []
    which = "" if queue is None else f"queue {queue}: "
    return [f"{which}{counted(len(alive), 'live worker')}, at least {fewest} required"]

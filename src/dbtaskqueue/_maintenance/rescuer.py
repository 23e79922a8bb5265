"""Giving back the tasks of workers that are gone.

In the same place a worker is gone when its process is: pid and start time decide, at once. Elsewhere it
is gone when its counter stood still for a whole lease of *this* process's monotonic clock, during which
this process looked all the time: no two clocks are ever compared, and an outage robs nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .. import outcomes
from .._store.contract import Store, WorkerRecord
from .._system import clock
from .._system.place import Place, exists
from ..events import Events, WorkerLost

_SELDOM = 10.0
"""Seconds between two looks for tasks whose worker has no row, while no row goes away."""


class Rescuer:
    """A duty: look at all workers of the database, and rescue what the dead ones held."""

    interval = 1.0

    def __init__(self, store: Store, place: Place | None, events: Events) -> None:
        self._store = store
        self._events = events
        self._place = place
        self._lock = threading.Lock()
        self._silent_since: dict[int, tuple[int, float]] = {}
        self._last_check = time.monotonic()
        self._known: set[int] = set()
        self._next_orphans = 0.0
        self.on_workers: Callable[[list[WorkerRecord]], None] = lambda workers: None

    def __call__(self) -> int:
        """Look once; how many tasks were given back. A look that another thread is at is not repeated."""
        return self.check(at_orphans=time.monotonic() >= self._next_orphans)

    def check(self, *, at_orphans: bool = True) -> int:
        """The same; ``at_orphans``: even if no worker's row has gone away, look for tasks of workers without one."""
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            return self._check(at_orphans)
        except BaseException:
            self._silent_since.clear()
            raise
        finally:
            self._lock.release()

    def is_elsewhere(self, worker: WorkerRecord) -> bool:
        """Whether only its heartbeat can say that the worker lives."""
        return self._place is None or (worker.boot, worker.namespace) != (self._place.boot, self._place.namespace)

    def is_gone(self, worker: WorkerRecord) -> bool | None:
        """Whether the worker's process is gone, as far as pids can tell; None where they cannot."""
        if self.is_elsewhere(worker) or worker.started is None:
            return None
        alive = exists(worker.pid, worker.started)
        return None if alive is None else not alive

    def _check(self, at_orphans: bool) -> int:
        now = time.monotonic()
        if now - self._last_check > 3 * self.interval:
            self._silent_since.clear()  # this process slept: the silence of the others proves nothing
        self._last_check = now
        workers = self._store.workers()
        self._silent_since = {key: self._silent_since[key] for key in {w.id for w in workers} & set(self._silent_since)}
        gone = [worker for worker in workers if worker.lost_at is None and self._is_silent(worker, now)]
        count = sum(self._rescue(worker) for worker in gone)
        known, self._known = self._known, {worker.id for worker in workers if worker.lost_at is None}
        if at_orphans or known - self._known:
            count += self._store.rescue(None, 0, _error("without a row"), clock.now(), outcomes.retry_time) or 0
            self._next_orphans = now + _SELDOM
        self.on_workers(workers)
        return count

    def _is_silent(self, worker: WorkerRecord, now: float) -> bool:
        gone = self.is_gone(worker)
        if gone is not None:
            return gone
        beat, since = self._silent_since.get(worker.id, (-1, now))
        if beat != worker.beat:
            self._silent_since[worker.id] = worker.beat, now
            return False
        return now - since >= worker.lease

    def _rescue(self, worker: WorkerRecord) -> int:
        name = f"{worker.id} (process {worker.pid} on {worker.host})"
        count = self._store.rescue(worker.id, worker.beat, _error(name), clock.now(), outcomes.retry_time)
        if count is None:
            return 0
        self._events.emit(WorkerLost(worker.id, count))
        return count


def _error(worker: str) -> str:
    return f"the worker {worker} was lost while it ran this attempt"

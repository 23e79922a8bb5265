"""Rescue: tasks of dead workers are returned to the queue.

On the same machine, a worker is dead when its process does not exist, which pid and start time show immediately. On
another one, it is presumed dead when its counter ``beat`` has not changed for a whole lease. This process measures that
with its own monotonic clock, while it reads the counter regularly. So two clocks are never compared, and an outage
causes no false rescue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .. import outcomes
from .._store.contract import Rescued, Store, WorkerRecord
from .._system import clock
from .._system.place import Place, is_elsewhere, is_gone
from ..events import AttemptLost, Events, WorkerLost

_SELDOM = 15.0
"""Seconds until a search for tasks whose worker has no row, if no row has disappeared and nobody has called ``see``.

The ticker does so every 10 s, with what it has read anyway.
"""


class Rescuer:
    """A duty: read the rows of all workers, and rescue what the dead ones held."""

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
        """Check once. Return how many tasks were rescued; 0 if another thread is checking at this moment."""
        return self.check(at_orphans=time.monotonic() >= self._next_orphans)

    def check(self, *, at_orphans: bool = True) -> int:
        """Check once. ``at_orphans``: search for tasks of workers without a row, even if no row has disappeared."""
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            return self._check(at_orphans)
        except BaseException:
            self._silent_since.clear()
            raise
        finally:
            self._lock.release()

    def see(self, orphaned: int | None) -> None:
        """Search soon for tasks of workers without a row, if there is such a worker."""
        self._next_orphans = 0.0 if orphaned is not None else time.monotonic() + _SELDOM

    def is_elsewhere(self, worker: WorkerRecord) -> bool:
        """Return whether only its heartbeat can show that the worker is alive."""
        return is_elsewhere(worker, self._place)

    def is_gone(self, worker: WorkerRecord) -> bool | None:
        """Return whether the worker's process no longer exists; None if its pid cannot be checked here."""
        return is_gone(worker, self._place)

    def _check(self, at_orphans: bool) -> int:
        now = time.monotonic()
        if now - self._last_check > 3 * self.interval:
            self._silent_since.clear()  # this process was stopped meanwhile, so the silence of others proves nothing
        self._last_check = now
        workers = self._store.workers()
        self._silent_since = {key: self._silent_since[key] for key in {w.id for w in workers} & set(self._silent_since)}
        gone = [worker for worker in workers if worker.lost_at is None and self._is_silent(worker, now)]
        count = sum(self._rescue(worker) for worker in gone)
        known, self._known = self._known, {worker.id for worker in workers if worker.lost_at is None}
        if at_orphans or known - self._known:
            rescued = self._store.rescue(None, 0, _error("without a row"), clock.now(), outcomes.retry_time)
            count += self._report(rescued)
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
        rescued = self._store.rescue(worker.id, worker.beat, _error(name), clock.now(), outcomes.retry_time)
        if rescued is not None:
            self._events.emit(WorkerLost(worker.id, rescued.tasks))
        return self._report(rescued)

    def _report(self, rescued: Rescued | None) -> int:
        """Emit which attempts were lost. Return how many tasks were rescued."""
        if rescued is None:
            return 0
        if self._events.wants(AttemptLost):
            for record in rescued.lost:
                self._events.emit(AttemptLost(record))
        return rescued.tasks


def _error(worker: str) -> str:
    return f"the worker {worker} was lost while it ran this attempt"

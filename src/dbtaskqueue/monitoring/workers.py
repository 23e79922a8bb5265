"""The states of workers, as they are seen from outside: alive, silent or lost."""

from __future__ import annotations

import time
from typing import NamedTuple

from .._store.contract import Store, WorkerRecord
from .._system.place import here, is_gone


class WorkerSnapshot(NamedTuple):
    """A worker. ``state``: alive, lost, or silent (it runs elsewhere and has sent no heartbeat for its lease)."""

    id: int
    state: str
    executor: str | None
    host: str
    pid: int
    created_at: int


class WorkerWatch:
    """Reads the workers again and again. Only from its second reading on, it can tell that a worker is silent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._place = here()
        self._beats: dict[int, tuple[int, float]] = {}

    def read(self) -> list[WorkerSnapshot]:
        """Return all workers, including those lost within the last day."""
        workers = [self._read_one(record) for record in self._store.workers()]
        self._beats = {worker.id: self._beats[worker.id] for worker in workers}
        return workers

    def _read_one(self, record: WorkerRecord) -> WorkerSnapshot:
        gone, is_silent = is_gone(record, self._place), self._is_silent(record)
        state = "alive"
        if record.lost_at is not None or gone:
            state = "lost"
        elif gone is None and is_silent:
            state = "silent"
        return WorkerSnapshot(record.id, state, record.executor, record.host, record.pid, record.created_at)

    def _is_silent(self, record: WorkerRecord) -> bool:
        now = time.monotonic()
        beat, since = self._beats.get(record.id, (None, now))
        if beat != record.beat:
            since = now
        self._beats[record.id] = record.beat, since
        return now - since >= record.lease

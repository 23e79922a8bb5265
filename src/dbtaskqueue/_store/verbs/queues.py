"""The queues of a SQL database."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..connections import Transaction
from ..contract import FinalRecord, NewAction, QueueRecord, Queues
from .base import SqlFacet, log


class SqlQueues(SqlFacet, Queues):
    """See Queues."""

    def queues(self) -> list[str]:
        return sorted(row[0] for row in self._connections.query("queues"))

    def set_paused(self, queue: str, paused: bool, action: NewAction | None = None) -> None:
        def run(tx: Transaction) -> None:
            tx.change("set_paused", {"queue": queue, "paused": int(paused)})
            if not paused:
                self._wake(tx, queue, None)
            if action is not None:
                log(tx, action, 1)

        self._connections.write(run)

    def queue_counts(self, queues: Sequence[str]) -> list[QueueRecord]:
        return [QueueRecord(*row) for row in self._connections.query("queue_counts", {"queues": json.dumps(queues)})]

    def final_counts(self, queues: Sequence[str]) -> list[FinalRecord]:
        return [FinalRecord(*row) for row in self._connections.query("final_counts", {"queues": json.dumps(queues)})]

    def is_paused(self, queue: str) -> bool:
        return bool(self._connections.query("is_paused", {"queue": queue}))

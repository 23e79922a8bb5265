"""The queues of a SQL database."""

from __future__ import annotations

from ..connections import Transaction
from ..contract import NewAction, Queues
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

    def is_paused(self, queue: str) -> bool:
        return bool(self._connections.query("is_paused", {"queue": queue}))

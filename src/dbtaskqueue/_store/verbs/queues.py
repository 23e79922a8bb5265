"""The queues of a SQL database."""

from __future__ import annotations

from collections import defaultdict

from ..connections import Transaction
from ..contract import QueueCounts, Queues
from .base import SqlFacet


class SqlQueues(SqlFacet, Queues):
    """See Queues."""

    def queues(self) -> list[str]:
        return sorted(row[0] for row in self._connections.query("queues"))

    def queue_counts(self) -> dict[str, QueueCounts]:
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for queue, kind, count in self._connections.query("queue_counts"):
            found[queue][kind] = count
        return {queue: counts for queue in sorted(found) if any(counts := _counts(**found[queue]))}

    def set_paused(self, queue: str, paused: bool) -> None:
        def run(tx: Transaction) -> None:
            tx.change("set_paused", {"queue": queue, "paused": int(paused)})
            if not paused:
                self._wake(tx, queue, None)

        self._connections.write(run)

    def is_paused(self, queue: str) -> bool:
        return bool(self._connections.query("is_paused", {"queue": queue}))


def _counts(*, waiting: int = 0, blocked: int = 0, failed: int = 0, reserved: int = 0, running: int = 0) -> QueueCounts:
    return QueueCounts(waiting + blocked - failed, failed, reserved, running, blocked)

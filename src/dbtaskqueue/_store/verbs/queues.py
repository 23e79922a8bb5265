"""The queues of a SQL database."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from ..connections import Transaction
from ..contract import FinalRecord, NewAction, QueueCounts, Queues
from .base import SqlFacet, log


class SqlQueues(SqlFacet, Queues):
    """See Queues."""

    def queues(self) -> list[str]:
        return sorted(row[0] for row in self._connections.query("queues"))

    def queue_counts(self) -> dict[str, QueueCounts]:
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for queue, kind, count in self._connections.query("queue_counts"):
            found[queue][kind] = count
        return {queue: counts for queue in sorted(found) if any(counts := _counts(**found[queue]))}

    def set_paused(self, queue: str, paused: bool, action: NewAction | None = None) -> None:
        def run(tx: Transaction) -> None:
            tx.change("set_paused", {"queue": queue, "paused": int(paused)})
            if not paused:
                self._wake(tx, queue, None)
            if action is not None:
                log(tx, action, 1)

        self._connections.write(run)

    def paused_queues(self) -> set[str]:
        return {row[0] for row in self._connections.query("paused_queues")}

    def final_counts(self, queues: Sequence[str]) -> list[FinalRecord]:
        return [FinalRecord(*row) for row in self._connections.query("final_counts", {"queues": json.dumps(queues)})]

    def is_paused(self, queue: str) -> bool:
        return bool(self._connections.query("is_paused", {"queue": queue}))


def _counts(*, waiting: int = 0, blocked: int = 0, failed: int = 0, reserved: int = 0, running: int = 0) -> QueueCounts:
    return QueueCounts(waiting + blocked - failed, failed, reserved, running, blocked)

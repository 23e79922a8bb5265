"""How all tasks of a database come into another one: rows are read and stored as they are, in batches."""

from __future__ import annotations

import abc
from typing import Any

from .connections import Connections, Transaction
from .contract import ExportBatch, Movable

OLDEST = 3
"""The oldest version that a program may know and still use this program's schema."""
SEALED = 2_000_000_000
"""As the oldest version that a program may know: none may use this database, it is being filled."""
COLUMNS = {
    "queue": ("name", "paused"),
    "worker": (
        "id",
        "host",
        "pid",
        "boot",
        "namespace",
        "started",
        "lease",
        "beat",
        "created_at",
        "lost_at",
        "executor",
        "queues",
        "functions",
    ),
    "task": (
        *(
            "id",
            "queue",
            "state",
            "rank",
            "due",
            "due_set_at",
            "token",
            "attempt",
            "budget",
            "retry_base",
            "retry_token",
        ),
        *(
            "worker",
            "batched",
            "isolated",
            "cancel_requested",
            "created_at",
            "started_at",
            "finished_at",
            "key",
            "function",
        ),
        *("options", "meta", "payload", "result", "command", "suspended", "cpu", "memory"),
    ),
    "large": ("task", "name", "value"),
    "note": ("task", "token", "name", "value"),
    "attempt": (
        "task",
        "token",
        "number",
        "worker",
        "started_at",
        "finished_at",
        "outcome",
        "error",
        "error_type",
        "cpu",
        "memory",
    ),
}
"""What the queries export_… read, in their order, and what load_… store under these names."""
_LOADING = ("load_queue", "load_worker", "load_task", "load_large", "load_note", "load_attempt")


class SqlMovable(Movable):
    """A database that speaks SQL, as the source or the target of a move."""

    schema_version: int
    _connections: Connections

    @abc.abstractmethod
    def _versions(self) -> tuple[int, int]:
        """Version of the schema that is there and the oldest that a program may know; zeros without a schema."""

    def export(self, after: int, limit: int) -> ExportBatch:
        def run(tx: Transaction) -> ExportBatch:
            tasks = tx.rows("export_task", {"after": after, "limit": limit})
            values = {"after": after, "last": tasks[-1][0] if tasks else after}
            found = {
                "task": tasks,
                "large": tx.rows("export_large", values),
                "note": tx.rows("export_note", values),
                "attempt": tx.rows("export_attempt", values),
            }
            if after == 0:
                found |= {"queue": tx.rows("export_queue"), "worker": tx.rows("export_worker")}
            rows = {table: [dict(zip(COLUMNS[table], row, strict=True)) for row in found[table]] for table in found}
            return ExportBatch(rows, self._highest_id(tx))

        return self._connections.read(run)

    def load(self, batch: ExportBatch) -> None:
        def run(tx: Transaction) -> None:
            for query in _LOADING:
                if rows := batch.rows.get(query.removeprefix("load_")):
                    tx.change_each(query, rows)

        self._connections.write(run)

    def seal(self, highest: int | None) -> None:
        def run(tx: Transaction) -> None:
            if highest is not None:
                self._use_no_id_up_to(tx, highest)
            tx.change("set_oldest", {"oldest": SEALED if highest is None else OLDEST})

        self._connections.write(run)

    def is_sealed(self) -> bool:
        return self._versions()[1] == SEALED

    @abc.abstractmethod
    def _highest_id(self, tx: Any) -> int:
        """The highest id that a task ever had here."""

    @abc.abstractmethod
    def _use_no_id_up_to(self, tx: Any, highest: int) -> None:
        """Give the next task an id above ``highest``; what was loaded with ids of its own counts, too."""

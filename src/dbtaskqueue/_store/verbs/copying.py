"""Copying all tasks of a SQL database to another one, in batches. Rows are stored as they were read."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any

from ..connections import Row, Transaction
from ..contract import ActionRecord, Copying, ExportBatch, OperationRecord
from ..records import TABLES
from .database import IMPORTING, SqlDatabase

_OF_TASKS = ("large", "note", "attempt", "edge", "gate", "undecided", "expiry")
"""Tables whose rows belong to a task."""
_OTHERWISE_STORED = ("attempt", "edge", "gate", "expiry", "schedule", "tick")
_OVERWRITTEN = {"history": "write_history", "sample": "write_sample", "retention": "set_retention"}
LOADING = {
    table: _OVERWRITTEN.get(table, f"insert_{table}" if table in _OTHERWISE_STORED else f"load_{table}")
    for table in TABLES
}
"""For each table, in order, the query that stores one row."""


class SqlCopying(SqlDatabase, Copying):
    """See Copying. Each engine has its own way to know the highest id that was ever used."""

    @abc.abstractmethod
    def _highest_id(self, tx: Any) -> int:
        """Return the highest id that a task of this database has ever had."""

    @abc.abstractmethod
    def _use_no_id_up_to(self, tx: Any, highest: int) -> None:
        """Give the next task an id above ``highest`` and above the ids of loaded tasks."""

    def export(self, after: int, limit: int) -> ExportBatch:
        def run(tx: Transaction) -> ExportBatch:
            tasks = tx.rows("export_task", {"after": after, "limit": limit})
            values = {"after": after, "last": tasks[-1][0] if tasks else after}
            found = {"task": tasks}
            found |= {table: tx.rows(f"export_{table}", values) for table in _OF_TASKS}
            if after == 0:
                found |= {"queue": tx.rows("export_queue"), "worker": tx.rows("workers")}
                found |= {"schedule": tx.rows("export_schedule")}
            return ExportBatch({table: _named(table, found[table]) for table in found}, self._highest_id(tx))

        return self._connections.read(run)

    def export_ticks(self, after: int, limit: int) -> list[dict[str, Any]]:
        def run(tx: Transaction) -> list[dict[str, Any]]:
            last = tx.rows("first_ticks", {"after": after, "limit": limit})[0][0]
            return [] if last is None else _named("tick", tx.rows("export_tick", {"after": after, "last": last}))

        return self._connections.read(run)

    def load_ticks(self, ticks: Sequence[dict[str, Any]]) -> None:
        self._connections.write(lambda tx: tx.change_each("insert_tick", ticks))

    def load_actions(self, actions: Sequence[ActionRecord], operations: Sequence[OperationRecord]) -> None:
        def run(tx: Transaction) -> None:
            tx.change_each("load_action", [action._asdict() for action in actions])
            tx.change_each("load_operation", [operation._asdict() for operation in operations])

        self._connections.write(run)

    def begin_import(self) -> None:
        self._connections.write(lambda tx: tx.change("set_oldest", {"oldest": IMPORTING}))

    def load(self, batch: ExportBatch) -> None:
        def run(tx: Transaction) -> None:
            for table, query in LOADING.items():
                if rows := batch.rows.get(table):
                    tx.change_each(query, rows)

        self._connections.write(run)

    def end_import(self, highest: int) -> None:
        def run(tx: Transaction) -> None:
            self._use_no_id_up_to(tx, highest)
            tx.change("set_oldest", {"oldest": self.oldest})

        self._connections.write(run)

    def is_importing(self) -> bool:
        return self._versions()[1] == IMPORTING


def _named(table: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [dict(zip(TABLES[table], row, strict=True)) for row in rows]

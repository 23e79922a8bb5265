"""What the facets of a SQL store have in common: connections, how engines differ, small helpers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..._formats.url import Target
from ...states import TaskState
from ..attempt_counts import EndedHere, merged, row_of, sum_of
from ..connections import NOTHING, Connections, Row, Transaction, Values
from ..contract import End, HistoryRecord, NewAction, NewTask, TaskRecord, Verdict

INLINE = 256
"""The most characters of JSON that are stored in the task's own row; longer values go to dbtaskqueue_large."""
DONE_TEXT = "done"
"""The outcome of an action that was not refused."""
CHUNK = 1000
"""Tasks that one transaction or query takes at most."""
_SOON = 5_000_000
"""Microseconds: waiting workers poll this often anyway, so a task that is due later need not wake any of them."""


class SqlFacet:
    """The base of the facets: connections, and what an engine does in its own way for several of them."""

    def __init__(self, target: Target, connections: Connections) -> None:
        self._target = target
        self._connections = connections
        self.max_payload = target.max_payload

    _from_the_start: Values = NOTHING
    """Parameters of the query ``ranks`` that include all waiting tasks."""

    def _wake(self, tx: Any, queue: str, tasks: int | None) -> None:
        """At the commit, wake ``tasks`` waiting workers of the queue (None: all), if the engine can."""

    def _wake_for(self, tx: Any, tasks: Sequence[int], now: int) -> None:
        """Do the same for existing tasks of any queues: for each one due soon, wake a waiting worker of its queue."""

    def _log(self, tx: Transaction, action: NewAction | None, verdict: Verdict) -> None:
        """Add a row to the audit log, in the transaction of the change or of its refusal."""
        if action is not None:
            log(tx, action, int(verdict.stored), DONE_TEXT if verdict.stored else verdict.refusal)

    def _change_alone(self, query: str, values: Values) -> int:
        """Run a single statement that writes; return the number of rows that it changed."""

        def run(tx: Transaction) -> int:
            return tx.change(query, values)

        return self._connections.write(run, alone=True)


def log(tx: Transaction, action: NewAction, changed: int, outcome: str = DONE_TEXT) -> None:
    """Add a row to the audit log."""
    detail = None if not action.detail else json.dumps(action.detail)
    tx.change("insert_action", {**action._asdict(), "detail": detail, "changed": changed, "outcome": outcome})


def is_large(value: str | None) -> bool:
    """Return whether a value has a row of its own."""
    return value is not None and len(value) > INLINE


def inline(value: str | None) -> str | None:
    """Return a value as the task's own row stores it: None if it is too large for the row."""
    return None if value is None or len(value) > INLINE else value


def is_soon(due: int | None, now: int) -> bool:
    """Return whether a task that is due at ``due`` is worth waking a waiting worker."""
    return due is None or due <= soon_after(now)


def soon_after(now: int) -> int:
    """Return the latest due time of a task for which a waiting worker is woken."""
    return now + _SOON


def wakes(tasks: Sequence[NewTask]) -> int | None:
    """Return how many waiting workers to wake for new tasks; None for all, since not all of them run commands."""
    return None if tasks[0].command else len(tasks)


def large_row(task: int, name: str, value: str | None) -> dict[str, object]:
    """Return the row of a large value."""
    return {"task": task, "name": name, "value": value}


def insert_large(tx: Transaction, ids: Sequence[int], tasks: Sequence[NewTask]) -> None:
    """Store the payloads that are not in their tasks' own rows."""
    pairs = zip(ids, tasks, strict=True)
    large = [large_row(id, "payload", task.payload) for id, task in pairs if is_large(task.payload)]
    if large:
        tx.change_each("insert_large", large)


def standing(tx: Transaction, task: int, *, stored: bool) -> Verdict:
    """Return a verdict with the state and the token that the task has now."""
    row = tx.row("standing", {"id": task})
    return Verdict(stored, TaskState(row[0]), row[1]) if row else Verdict(False, None, None)


def insert_attempt(
    tx: Transaction, end: End, worker: int | None, number: int, started_at: int | None, outcome: str
) -> None:
    """Store an attempt that has ended."""
    values = {
        **end._asdict(),
        "task": end.id,
        "worker": worker,
        "number": number,
        "started_at": started_at,
        "finished_at": end.at,
        "outcome": outcome,
    }
    tx.change("insert_attempt", values)


def count_attempts(tx: Transaction, attempts: Iterable[EndedHere], at: int) -> None:
    """Add attempts to the history that this transaction has ended, such as those of a lost worker.

    Workers count their own attempts, and overwrite their own rows. These have no writer: any process adds to their row,
    in the transaction that ends them, so each counts exactly once.
    """
    add_history(tx, merged(row_of(each, at) for each in attempts))


def add_history(tx: Transaction, rows: Iterable[HistoryRecord]) -> None:
    """Add to rows of the history, or make them; in the order of their keys, which avoids deadlocks."""
    for row in sorted(rows, key=lambda row: row[:5]):
        tx.change("new_history", HistoryRecord(*row[:5])._asdict())
        found = tx.row("lock_history", row._asdict())
        stored = HistoryRecord(*row[:5]) if found is None else HistoryRecord(*found)
        tx.change("write_history", sum_of(stored, row)._asdict())


def rows_of(connections: Connections, query: str, tasks: Sequence[int]) -> list[Row]:
    """Return what a query reads about these tasks, on one snapshot."""

    def run(tx: Transaction) -> list[Row]:
        parts = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
        return [row for part in parts for row in tx.rows(query, {"ids": tx.array(part)})]

    return connections.read(run) if tasks else []


def records(tx: Transaction, query: str, values: Values) -> list[TaskRecord]:
    """Return the tasks that a query reads."""
    return [TaskRecord(*row) for row in tx.rows(query, values)]

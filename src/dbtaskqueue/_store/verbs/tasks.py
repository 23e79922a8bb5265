"""What producers and operators do with tasks, on a SQL database."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ...states import RUNNING, TaskState
from ..connections import Conflict, Row, Transaction
from ..contract import End, Enqueued, NewTask, Standing, TaskRecord, Tasks, Verdict
from .base import CHUNK, SqlFacet, insert_attempt, is_large, is_soon, standing, wakes

_NONE: frozenset[int] = frozenset()


class SqlTasks(SqlFacet, Tasks):
    """See Tasks. Each engine has its own way to insert tasks and to use a user's connection."""

    @abc.abstractmethod
    def _insert(self, tx: Any, tasks: Sequence[NewTask]) -> list[int]:
        """Store tasks in one transaction. Return their ids in ascending order, or none if the key is taken."""

    @abc.abstractmethod
    def _borrow(self, connection: object) -> Transaction:
        """Return a user's connection in its transaction. Raises ConfigurationError for a different database."""

    def enqueue(self, groups: Sequence[Sequence[NewTask]], connection: object = None) -> Enqueued:
        if connection is None:
            first = groups[0]
            if len(groups) == 1 and first[0].key is None:  # the usual case, which must be fast
                ids = self._connections.write(partial(self._store, first), alone=self._is_one_statement(first))
                return Enqueued(ids, _NONE)
            return self._connections.write(partial(self._enqueue, groups))
        with self._connections.translated():
            return self._enqueue(groups, self._borrow(connection))

    def _is_one_statement(self, tasks: Sequence[NewTask]) -> bool:
        """Return whether ``_store`` needs only one statement for these tasks, and so no BEGIN and COMMIT around it."""
        return len(tasks) == 1 and not is_large(tasks[0].payload)

    def _store(self, tasks: Sequence[NewTask], tx: Any) -> list[int]:
        """Store tasks without a key, and wake waiting workers; return the ids."""
        ids = self._insert(tx, tasks)
        if is_soon(tasks[0].due, tasks[0].created_at):
            self._wake(tx, tasks[0].queue, wakes(tasks))
        return ids

    def _enqueue(self, groups: Sequence[Sequence[NewTask]], tx: Transaction) -> Enqueued:
        if len(groups) == 1 and groups[0][0].key is None:
            return Enqueued(self._insert_and_wake(tx, groups[0]))
        ids: list[int] = []
        existing: set[int] = set()
        for tasks in groups:
            first = tasks[0]
            taken = None if first.key is None else tx.row("unfinished_with_key", first._asdict())
            stored = [] if taken else self._insert_and_wake(tx, tasks)
            while not taken and not stored:  # another task got the key; it may end before it is read
                taken = self._with_key(tx, first)
                stored = [] if taken else self._insert_and_wake(tx, tasks)
            if taken:
                existing.add(len(ids))
                stored = [int(taken[0])]
            ids += stored
        return Enqueued(ids, existing)

    def _insert_and_wake(self, tx: Transaction, tasks: Sequence[NewTask]) -> list[int]:
        ids = self._insert(tx, tasks)
        first = tasks[0]
        if ids and is_soon(first.due, first.created_at):
            self._wake(tx, first.queue, wakes(tasks))
        return ids

    def _with_key(self, tx: Any, task: NewTask) -> Row | None:
        """Return the id of the unfinished task whose key kept ``task`` from being stored."""
        row: Row | None = tx.row("unfinished_with_key", task._asdict())
        return row

    def get(self, task: int, connection: object = None) -> TaskRecord | None:
        if connection is None:
            rows = self._connections.query("get", {"id": task})
        else:
            with self._connections.translated():
                rows = self._borrow(connection).rows("get", {"id": task})
        return TaskRecord(*rows[0]) if rows else None

    def standings(self, tasks: Sequence[int]) -> dict[int, Standing]:
        def run(tx: Transaction) -> dict[int, Standing]:
            parts = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
            rows = [row for part in parts for row in tx.rows("standings", {"ids": tx.array(part)})]
            return {id: Standing(TaskState(state), token) for id, state, token in rows}

        return self._connections.read(run)

    def cancel(self, task: int, now: int, *, running: bool = True) -> Verdict:
        return self._connections.write(partial(_change, "cancel", {"id": task, "now": now, "running": int(running)}))

    def suspend(self, task: int, suspended: bool) -> Verdict:
        values = {"id": task, "suspended": int(suspended)}

        def run(tx: Transaction) -> Verdict:
            is_possible = tx.row("suspendable", values) is not None
            if is_possible:
                tx.change("suspend", values)
            return standing(tx, task, stored=is_possible)

        return self._connections.write(run)

    def retry(self, task: int, now: int) -> Verdict:
        def run(tx: Transaction) -> Verdict:
            if tx.row("key_is_taken", {"id": task}):
                return standing(tx, task, stored=False)
            was_done = tx.change("insert_done_attempt", {"id": task})
            verdict = _change("retry", {"id": task, "now": now}, tx)
            if verdict.stored and was_done:
                tx.change("delete_results", {"id": task})
            if verdict.stored:
                self._wake_for(tx, [task], now)
            return verdict

        try:
            return self._connections.write(run)
        except Conflict:  # another task has taken the key since it was checked
            return self._connections.read(lambda tx: standing(tx, task, stored=False))

    def purge(self, queue: str, now: int) -> Iterator[int]:
        highest = self._connections.query("highest_id")[0][0]
        values = {"queue": queue, "highest": highest, "now": now, "limit": CHUNK}

        def run(tx: Transaction) -> int:
            held = tx.rows("purgeable_held", values)
            for id, token, state, number, worker, started_at in held:
                if state == RUNNING:
                    end = End("purge", id, token, now, error="purged while it ran")
                    insert_attempt(tx, end, worker, number, started_at, "abandoned")
            ids = [row[0] for row in held] + [row[0] for row in tx.rows("purgeable", values)]
            return tx.change("purge", {"now": now, "ids": tx.array(ids)}) if ids else 0

        yield self._connections.write(run)
        # a task may be claimed or released between the two queries of a transaction; a single statement sees it
        while self._connections.query("is_left", values)[0][0]:
            yield self._connections.write(run)

    def prune(self, queue: str, before: int, states: Iterable[TaskState]) -> Iterator[int]:
        for state in states:
            values: dict[str, Any] = {"queue": queue, "before": before, "state": state, "limit": CHUNK, "after": 0}
            while rows := self._connections.query("prunable", values):
                ids = [row[0] for row in rows]
                values["after"] = ids[-1]
                yield self._connections.write(partial(self._delete, ids))

    def _delete(self, ids: Sequence[int], tx: Any) -> int:
        final = [row[0] for row in tx.rows("lock_final", {"ids": tx.array(ids)})]
        if final:
            for query in ("delete_large", "delete_notes", "delete_attempts", "delete_tasks"):
                tx.change(query, {"ids": tx.array(final)})
        return len(final)

    def fix_due_after_clock_change(self, now: int) -> int:
        return self._change_alone("fix_due_after_clock_change", {"now": now})


def _change(query: str, values: dict[str, int], tx: Transaction) -> Verdict:
    changed = tx.change(query, values)
    return standing(tx, values["id"], stored=bool(changed))

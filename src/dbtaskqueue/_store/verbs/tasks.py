"""What producers and operators do with tasks, on a SQL database."""

from __future__ import annotations

import abc
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ...states import ABANDONED, CANCELLED, FINAL, PENDING, RUNNING, TaskState, sources
from ..attempt_counts import EndedHere
from ..borrowed import lend
from ..connections import Conflict, Row, Transaction
from ..contract import (
    IS_REQUESTED,
    KEY_IS_TAKEN,
    End,
    Enqueued,
    NewAction,
    NewTask,
    Refusal,
    Standing,
    TaskRecord,
    Tasks,
    Verdict,
    Waits,
)
from ..records import EXPIRED, HAS_CHILDREN
from .base import CHUNK, DONE_TEXT, count_attempts, insert_attempt, is_large, is_soon, log, standing, wakes
from .dependencies import Decided, Purge, SqlDependencies, as_child, resolved

TRIES = 3
"""How often a transaction is run that a unique index refuses."""
_NONE: frozenset[int] = frozenset()
_plainly_enqueued = partial(tuple.__new__, Enqueued)  # takes half the time of calling the class
_DELETIONS = (
    *("delete_large", "delete_notes", "delete_attempts", "delete_expiries", "delete_undecided"),
    *("delete_edges_of_children", "delete_gates", "delete_tasks"),
)


class SqlTasks(SqlDependencies, Tasks):
    """See Tasks. Each engine has its own way to insert tasks and to use a user's connection."""

    @abc.abstractmethod
    def _insert(self, tx: Any, tasks: Sequence[NewTask]) -> list[int]:
        """Store tasks in one transaction. Return their ids in ascending order, or none if the key is taken.

        Leaves out the columns SET_AFTERWARDS.
        """

    @abc.abstractmethod
    def _borrow(self, connection: object, *, reads: bool = False) -> Transaction:
        """Return a user's connection, as ``lend`` has it. Raises ConfigurationError for a different database.

        ``reads``: it is used for reading only, which needs no transaction.
        """

    def enqueue(
        self,
        groups: Sequence[Sequence[NewTask]],
        connection: object = None,
        waits: Sequence[Waits | None] = (),
        action: NewAction | None = None,
    ) -> Enqueued:
        if action is not None:
            return self._connections.write(partial(self._enqueue_logged, groups, waits, action))
        if connection is None:
            first = groups[0]
            if len(groups) == 1 and not waits and first[0].key is None and first[0].expires is None:
                # the usual case, which must be fast
                ids = self._connections.write(partial(self._store, first), alone=self._is_one_statement(first))
                return _plainly_enqueued((ids, _NONE, _NONE, _NONE, None))
            return self._connections.write(partial(self._enqueue, groups, waits))
        self._connections.prepare_to_borrow()
        with self._connections.translated_for_user():
            return lend(connection, lambda lent: self._enqueue(groups, waits, self._borrow(lent)))

    def _enqueue_logged(
        self,
        groups: Sequence[Sequence[NewTask]],
        waits: Sequence[Waits | None],
        action: NewAction,
        tx: Transaction,
    ) -> Enqueued:
        enqueued = self._enqueue(groups, waits, tx)
        new = len(enqueued.ids) - len(enqueued.existing)
        outcome = DONE_TEXT if new else KEY_IS_TAKEN if enqueued.refusal is None else enqueued.refusal.why
        log(tx, action._replace(task=enqueued.ids[0] if len(enqueued.ids) == 1 else None), new, outcome)
        return enqueued

    def _is_one_statement(self, tasks: Sequence[NewTask]) -> bool:
        """Return whether ``_store`` needs only one statement for these tasks, and so no BEGIN and COMMIT around it."""
        return len(tasks) == 1 and not is_large(tasks[0].payload)

    def _store(self, tasks: Sequence[NewTask], tx: Any) -> list[int]:
        """Store tasks without a key, and wake waiting workers; return the ids."""
        ids = self._insert(tx, tasks)
        if is_soon(tasks[0].due, tasks[0].created_at):
            self._wake(tx, tasks[0].queue, wakes(tasks))
        return ids

    def _enqueue(self, groups: Sequence[Sequence[NewTask]], waits: Sequence[Waits | None], tx: Transaction) -> Enqueued:
        states = self._lock_parents(tx, groups, waits) if waits else {}
        if isinstance(states, Refusal):
            return Enqueued([], refusal=states)
        ids: list[int] = []
        existing: set[int] = set()
        blocked: set[int] = set()
        ended: set[int] = set()
        for tasks, wait in itertools.zip_longest(groups, waits):
            parents = {} if wait is None else resolved(wait.links, states, ids)
            if wait is not None:
                tasks = [as_child(task, parents, wait) for task in tasks]
            stored, is_new = self._insert_unless_taken(tx, tasks)
            if not is_new:
                existing.add(len(ids))
                if waits:  # it may be the parent of a later one
                    states |= self._states_of(tx, stored)
            else:
                state = self._store_expiry(tx, stored, tasks[0])
                if wait is not None:
                    state = self._store_links(tx, stored, wait, parents, tasks[0].created_at, state)
                if state is not None:
                    states |= dict.fromkeys(stored, state)
                if state is not None or tasks[0].blocked:
                    (blocked if state is None else ended).update(range(len(ids), len(ids) + len(stored)))
            ids += stored
        return Enqueued(ids, existing, blocked, ended)

    def _insert_unless_taken(self, tx: Transaction, tasks: Sequence[NewTask]) -> tuple[list[int], bool]:
        """Store tasks; return their ids, or the id of the task that has the key, and whether they were stored."""
        first = tasks[0]
        taken = None if first.key is None else tx.row("unfinished_with_key", first._asdict())
        stored = [] if taken else self._insert_and_wake(tx, tasks)
        while not taken and not stored:  # another task got the key; it may end before it is read
            taken = self._with_key(tx, first)
            stored = [] if taken else self._insert_and_wake(tx, tasks)
        return ([int(taken[0])], False) if taken else (stored, True)

    def _insert_any(self, tx: Transaction, tasks: Sequence[NewTask]) -> list[int]:
        """Store tasks with any options. Return their ids in ascending order, or none if the key is taken."""
        ids, first = self._insert(tx, tasks), tasks[0]
        if ids and (first.flow or first.blocked or first.expires is not None):
            tx.change("set_new", {**first._asdict(), "ids": tx.array(ids)})
        return ids

    def _insert_and_wake(self, tx: Transaction, tasks: Sequence[NewTask]) -> list[int]:
        ids = self._insert_any(tx, tasks)
        first = tasks[0]
        if ids and not first.blocked and is_soon(first.due, first.created_at):
            self._wake(tx, first.queue, wakes(tasks))
        return ids

    def _store_expiry(self, tx: Transaction, ids: Sequence[int], task: NewTask) -> TaskState | None:
        """Store when new tasks expire; return the state of those that have expired already."""
        if task.expires is None:
            return None
        if task.expires > task.created_at:
            tx.change_each("insert_expiry", [{"task": id, "expires": task.expires} for id in ids])
            return None
        values = {"ids": tx.array(list(ids)), "now": task.created_at, "reason": EXPIRED}
        tx.change("expire", values)
        return ABANDONED

    def _with_key(self, tx: Any, task: NewTask) -> Row | None:
        """Return the id of the unfinished task whose key kept ``task`` from being stored."""
        row: Row | None = tx.row("unfinished_with_key", task._asdict())
        return row

    def get(self, task: int, connection: object = None) -> TaskRecord | None:
        if connection is None:
            rows = self._connections.query("get", {"id": task})
        else:
            self._connections.prepare_to_borrow()
            with self._connections.translated_for_user():
                rows = lend(connection, lambda lent: self._borrow(lent, reads=True).rows("get", {"id": task}))
        return TaskRecord(*rows[0]) if rows else None

    def standings(self, tasks: Sequence[int]) -> dict[int, Standing]:
        def run(tx: Transaction) -> dict[int, Standing]:
            parts = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
            rows = [row for part in parts for row in tx.rows("standings", {"ids": tx.array(part)})]
            return {id: Standing(TaskState(state), token) for id, state, token in rows}

        return self._connections.read(run)

    def cancel(self, task: int, now: int, *, running: bool = True, action: NewAction | None = None) -> Verdict:
        values = {"id": task, "now": now, "running": int(running)}

        def run(tx: Transaction) -> tuple[Verdict, Decided]:
            changed = tx.change("cancel", values)
            row = tx.row("standing", values)
            if row is None:
                verdict, decided = Verdict(False, None, None), Decided()
            else:
                state, token, flow = row
                has_children = changed and state == CANCELLED and flow & HAS_CHILDREN
                decided = self._decide(tx, {task: CANCELLED}, now) if has_children else Decided()
                verdict = Verdict(bool(changed), TaskState(state), token)
            if action is not None:
                is_requested = running and verdict.state == RUNNING
                self._log(tx, action, verdict._replace(why=IS_REQUESTED if is_requested else None))
            return verdict, decided

        verdict, decided = self._connections.write(run)
        self._decide_left_over(decided, now)
        return verdict

    def suspend(self, task: int, suspended: bool, action: NewAction | None = None) -> Verdict:
        values = {"id": task, "suspended": int(suspended)}

        def run(tx: Transaction) -> Verdict:
            is_possible = tx.row("suspendable", values) is not None
            if is_possible:
                tx.change("suspend", values)
            verdict = standing(tx, task, stored=is_possible)
            self._log(tx, action, verdict)
            return verdict

        return self._connections.write(run)

    def retry(self, task: int, now: int, action: NewAction | None = None) -> Verdict:
        def run(tx: Transaction) -> Verdict:
            verdict, _ = self._retry(tx, task, now, now)
            self._log(tx, action, verdict)
            return verdict

        return self._unless_taken(run, task, action)

    def _unless_taken(self, run: Callable[[Transaction], Verdict], task: int, action: NewAction | None) -> Verdict:
        """Run a transition that gives a task its key. Another task may take the key after it was checked."""

        def refuse(tx: Transaction) -> Verdict:
            verdict = standing(tx, task, stored=False)._replace(why=KEY_IS_TAKEN)
            self._log(tx, action, verdict)
            return verdict

        for _ in range(TRIES):
            with contextlib.suppress(Conflict):
                return self._connections.write(run)
        return self._connections.write(refuse)

    def _retry(self, tx: Transaction, task: int, now: int, due: int) -> tuple[Verdict, str | None]:
        """Retry a task; return the verdict and, if its parents or children forbid it, why: a text without ids."""
        if tx.row("key_is_taken", {"id": task}):
            verdict = standing(tx, task, stored=False)
            return verdict._replace(why=KEY_IS_TAKEN if verdict.state in sources("retry") else None), None
        row = tx.row("lock_task", {"id": task})
        state, flow = (TaskState(row[0]), row[1]) if row else (PENDING, 0)
        others = flow if state in FINAL else 0
        if (why := self._why_not_retried(tx, task, state, others)) is not None:
            return standing(tx, task, stored=False)._replace(why=why.text), why.reason
        was_done = tx.change("insert_done_attempt", {"id": task})
        verdict = _change("retry", {"id": task, "now": now, "due": due}, tx)
        if verdict.stored and was_done:
            tx.change("delete_results", {"id": task})
        if verdict.stored:
            self._wait_again(tx, task, others)
            self._wake_for(tx, [task], now)
        return verdict, None

    def purge(self, queue: str, now: int, action: NewAction | None = None) -> Iterator[int]:
        highest = self._connections.query("highest_id")[0][0]
        values = {"queue": queue, "highest": highest, "now": now, "limit": CHUNK}
        purge = Purge(queue, highest)

        def run(tx: Transaction) -> int:
            # blocked tasks first, newest first: then no parent that ends here has a child in this queue left
            blocked = [row[0] for row in tx.rows("purgeable_blocked", values)]
            held = [] if blocked else tx.rows("purgeable_held", values)
            ended: list[EndedHere] = []
            for id, token, state, number, worker, started_at, function, command, due, created_at in held:
                if state == RUNNING:
                    end = End("purge", id, token, now, error="purged while it ran")
                    insert_attempt(tx, end, worker, number, started_at, "abandoned")
                    ended.append(EndedHere(queue, function, command, "abandoned", started_at, max(due, created_at)))
            count_attempts(tx, ended, now)
            ids = blocked or [row[0] for row in held] + [row[0] for row in tx.rows("purgeable", values)]
            count = 0
            if ids:
                count = tx.change("purge", {"now": now, "ids": tx.array(ids)})
                parents = [row[0] for row in tx.rows("with_children", {"ids": tx.array(ids)})]
                count += self._decide(tx, dict.fromkeys(parents, ABANDONED), now, purge).abandoned
            if action is not None:
                log(tx, action, count)
            return count

        yield self._connections.write(run)
        # a task may be claimed or released between the two queries of a transaction; a single statement sees it
        while self._connections.query("is_left", values)[0][0]:
            yield self._connections.write(run)
        self.decide_children(now)

    def prune(
        self, queue: str, before: int, states: Iterable[TaskState], action: NewAction | None = None
    ) -> Iterator[int]:
        is_logged = action is None
        for state in states:
            values: dict[str, Any] = {"queue": queue, "before": before, "state": state, "limit": CHUNK, "after": 0}
            while rows := self._connections.query("prunable", values):
                ids = [row[0] for row in rows]
                values["after"] = ids[-1]
                yield self._connections.write(partial(self._prune, ids, action))
                is_logged = True
        if not is_logged:
            yield self._connections.write(partial(self._prune, [], action))

    def _prune(self, ids: Sequence[int], action: NewAction | None, tx: Any) -> int:
        count = len(self._delete(tx, ids)) if ids else 0
        if action is not None:
            log(tx, action, count)
        return count

    def _delete(self, tx: Any, ids: Sequence[int]) -> list[int]:
        """Delete those of these tasks that are final and not needed by others; return their ids."""
        final = [row[0] for row in tx.rows("lock_final", {"ids": tx.array(ids)})]
        if final:  # a later statement: see sql/dependencies.sql
            needed = {row[0] for row in tx.rows("needed_parents", {"ids": tx.array(final)})}
            final = [id for id in final if id not in needed]
        if final:
            for query in _DELETIONS:
                tx.change(query, {"ids": tx.array(final)})
        return final

    def expire(self, now: int) -> int:
        count = 0
        while rows := self._connections.query("expirable", {"now": now, "limit": CHUNK}):
            ids = [row[0] for row in rows]
            expired, decided = self._connections.write(partial(self._expire, ids, now))
            self._decide_left_over(decided, now)
            count += expired
        return count

    def _expire(self, ids: Sequence[int], now: int, tx: Any) -> tuple[int, Decided]:
        rows = tx.rows("lock_expired", {"ids": tx.array(ids), "now": now})
        if rows:
            tx.change("expire", {"ids": tx.array([row[0] for row in rows]), "now": now, "reason": EXPIRED})
        kept = {row[0] for row in tx.rows("may_expire", {"ids": tx.array(ids)})}
        if done := [id for id in ids if id not in kept]:
            tx.change("delete_expiries", {"ids": tx.array(done)})
        parents = [id for id, flow in rows if flow & HAS_CHILDREN]
        return len(rows), self._decide(tx, dict.fromkeys(parents, ABANDONED), now) if parents else Decided()

    def fix_due_after_clock_change(self, now: int) -> int:
        return self._change_alone("fix_due_after_clock_change", {"now": now})


def _change(query: str, values: dict[str, int], tx: Transaction) -> Verdict:
    changed = tx.change(query, values)
    return standing(tx, values["id"], stored=bool(changed))

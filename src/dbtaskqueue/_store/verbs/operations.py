"""What operators do with single tasks and with many, and the audit log of it, on a SQL database.

A task of a bulk action takes the same transition as by hand: the same guards, and the same reasons to refuse it.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ...errors import StoreUnavailable
from ...states import CANCELLED, DONE, RUNNING, TaskState, sources
from ..connections import Conflict, Transaction
from ..contract import (
    IS_NEEDED,
    IS_REQUESTED,
    KEY_IS_TAKEN,
    NO_CHANGE,
    Acted,
    ActionRecord,
    BulkStep,
    Change,
    NewAction,
    OperationRecord,
    Operations,
    Verdict,
)
from ..records import HAS_CHILDREN
from .base import DONE_TEXT, log, standing
from .dependencies import Decided
from .tasks import TRIES, SqlTasks

_LAST_ID = 2**63 - 1
_SILENT = 30_000_000
"""Microseconds after which another runner may take over an operation."""


class _Row(NamedTuple):
    """What decides whether a task is refused."""

    id: int
    state: str
    cancel_requested: int
    flow: int
    has_key: int


class SqlOperations(SqlTasks, Operations):
    """See Operations."""

    def reschedule(self, task: int, change: Change, now: int, action: NewAction | None = None) -> Verdict:
        def run(tx: Transaction) -> Verdict:
            refused = _refused(tx, "reschedule", [task], change, locks=True)
            if not refused:
                self._reschedule(tx, [task], change, now)
            verdict = standing(tx, task, stored=not refused)
            if refused.get(task) == KEY_IS_TAKEN:
                verdict = verdict._replace(why=KEY_IS_TAKEN)
            self._log(tx, action, verdict)
            return verdict

        return self._unless_taken(run, task, action)

    def _reschedule(self, tx: Transaction, ids: Sequence[int], change: Change, now: int) -> None:
        has_due = int(change.due is not None)
        tx.change("reschedule_many", {**change._asdict(), "has_due": has_due, "now": now, "ids": tx.array(ids)})
        if change.due is not None:
            tx.change("fix_gates", {"ids": tx.array(ids)})
        self._wake_for(tx, ids, now)

    def delete(self, task: int, action: NewAction | None = None) -> Verdict:
        def run(tx: Transaction) -> Verdict:
            refused = _refused(tx, "delete", [task], NO_CHANGE, locks=True)
            verdict = standing(tx, task, stored=not refused)
            if refused.get(task) == IS_NEEDED:
                verdict = verdict._replace(why=IS_NEEDED)
            if not refused:
                self._delete(tx, [task])
            self._log(tx, action, verdict)
            return verdict

        return self._connections.write(run)

    # -- many tasks --------------------------------------------------------------------------------

    def act(self, step: BulkStep) -> Acted:
        for _ in range(TRIES):
            with contextlib.suppress(Conflict):  # another program has taken a key since it was checked
                acted, decided = self._connections.write(partial(self._act, step))
                self._decide_left_over(decided, step.now)
                return acted
        raise StoreUnavailable(f"{self._target.text}: other programs enqueue tasks with these keys; try again")

    def _act(self, step: BulkStep, tx: Transaction) -> tuple[Acted, Decided]:
        known = self._lock_operation(tx, step)
        if known is None:
            return Acted(0, {}, is_current=False), Decided()
        refused = _refused(tx, step.verb, step.tasks, step.change, step.states, locks=True)
        ids = [id for id in step.tasks if id not in refused]
        decided = Decided()
        if ids and step.verb == "cancel":
            decided = self._cancel_many(tx, ids, step.now)
        elif ids and step.verb == "retry":
            refused |= self._retry_many(tx, ids, step)
        elif ids and step.verb == "reschedule":
            refused |= self._reschedule_many(tx, ids, step)
        elif ids:
            self._delete(tx, ids)
        acted = Acted(len(step.tasks) - len(refused), dict(Counter(refused.values())))
        self._store_step(tx, step, acted, known)
        return acted, decided

    def _cancel_many(self, tx: Transaction, ids: Sequence[int], now: int) -> Decided:
        tx.change("cancel_many", {"ids": tx.array(ids), "now": now})
        parents = [row[0] for row in tx.rows("with_children", {"ids": tx.array(ids)})]
        if not parents:
            return Decided()
        ended = [id for id, state in self._states_of(tx, parents).items() if state == CANCELLED]
        return self._decide(tx, dict.fromkeys(ended, CANCELLED), now) if ended else Decided()

    def _retry_many(self, tx: Transaction, ids: Sequence[int], step: BulkStep) -> dict[int, str]:
        """Retry tasks, those that have nothing to check together; return why others were refused."""
        rows = _rows(tx, "read_bulk", ids)
        plain = [row.id for row in rows if not (row.flow or row.has_key or row.state == DONE)]
        spread = max(1, step.spread)
        if plain:
            tx.change("retry_many", {"ids": tx.array(plain), "now": step.now, "spread": spread})
            self._wake_for(tx, plain, step.now)
        refused: dict[int, str] = {}
        for id in set(ids) - set(plain):
            verdict, why = self._retry(tx, id, step.now, step.now + id * 618033989 % spread)
            if not verdict.stored:
                refused[id] = why or verdict.refusal
        return refused

    def _reschedule_many(self, tx: Transaction, ids: Sequence[int], step: BulkStep) -> dict[int, str]:
        """Reschedule tasks; return why others were refused. Two of them may have one key, in different queues."""
        moved = [] if step.change.queue is None else [row.id for row in _rows(tx, "read_bulk", ids) if row.has_key]
        others = [id for id in ids if id not in set(moved)]
        if others:
            self._reschedule(tx, others, step.change, step.now)
        refused: dict[int, str] = {}
        for id in moved:
            if tx.rows("taken_in_queue", {"ids": tx.array([id]), "queue": step.change.queue}):
                refused[id] = KEY_IS_TAKEN
            else:
                self._reschedule(tx, [id], step.change, step.now)
        return refused

    def _lock_operation(self, tx: Transaction, step: BulkStep) -> dict[str, int] | None:
        """Return what the step's operation has refused so far; None if the runner may not continue it."""
        if step.operation is None:
            return {}
        row = tx.row("lock_operation", {"id": step.operation.id})
        if row is None or row[0] != "running" or row[1] != step.operation.runner:
            return None
        known: dict[str, int] = json.loads(row[4])
        return known

    def _store_step(self, tx: Transaction, step: BulkStep, acted: Acted, known: Mapping[str, int]) -> None:
        if step.operation is not None:
            refused = Counter(known) + Counter(acted.refused)
            values = {**step.operation._asdict(), "changed": acted.changed, "refused": json.dumps(refused)}
            tx.change("store_step", {**values, "now": step.now})
        if step.action is not None and step.tasks:
            detail: dict[str, object] = {**(step.action.detail or {}), "ids": [min(step.tasks), max(step.tasks)]}
            if acted.refused:
                detail["refused"] = acted.refused
            outcome = DONE_TEXT if acted.changed else next(iter(acted.refused))
            log(tx, step.action._replace(detail=detail), acted.changed, outcome)

    def preview(self, step: BulkStep) -> Acted:
        def run(tx: Transaction) -> Acted:
            refused = _refused(tx, step.verb, step.tasks, step.change, step.states, locks=False)
            return Acted(len(step.tasks) - len(refused), dict(Counter(refused.values())))

        return self._connections.read(run)

    # -- the audit log -----------------------------------------------------------------------------

    def log_action(self, action: NewAction, changed: int, outcome: str) -> None:
        self._connections.write(lambda tx: log(tx, action, changed, outcome))

    def actions(self, limit: int, before: int | None, wanted: Mapping[str, str | int]) -> list[ActionRecord]:
        names = ("who", "verb", "queue", "task")
        values = {**{name: wanted.get(name) for name in names}, "limit": limit, "before": before or _LAST_ID}
        rows = self._connections.query("actions" if values["task"] is None else "actions_of_task", values)
        return [ActionRecord(*row) for row in rows]

    def prune_actions(self, before: int, most: int, limit: int) -> int:
        def run(tx: Transaction) -> int:
            last = tx.row("action_to_keep", {"most": most})
            rows = tx.rows("old_actions", {"limit": limit})
            ids = [id for id, at in rows if at < before or (last is not None and id <= last[0])]
            return tx.change("delete_actions", {"ids": tx.array(ids)}) if ids else 0

        return self._connections.write(run)

    # -- operations --------------------------------------------------------------------------------

    def create_operation(self, operation: OperationRecord, action: NewAction) -> int:
        def run(tx: Transaction) -> int:
            newest = tx.rows("highest_id")[0][0]
            highest = min(newest, operation.highest or newest)
            [[id]] = tx.rows("insert_operation", operation._replace(highest=highest)._asdict())
            log(tx, action._replace(detail={**(action.detail or {}), "operation": id}), 0, "started")
            return int(id)

        return self._connections.write(run)

    def operations(self, limit: int, before: int | None = None, *, open_only: bool = False) -> list[OperationRecord]:
        query = "open_operations" if open_only else "operations"
        rows = self._connections.query(query, {"limit": limit, "before": before or _LAST_ID})
        return [OperationRecord(*row) for row in rows]

    def set_operation(
        self, id: int, *, runner: str, now: int, end: str | None = None, action: NewAction | None = None
    ) -> bool:
        def run(tx: Transaction) -> bool:
            row = tx.row("lock_operation", {"id": id})
            is_open = row is not None and row[0] == "running"
            if row is None or not is_open:
                can = False
            elif end is None:
                can = row[1] is None or row[1] == runner or row[2] <= now - _SILENT
            else:
                can = action is not None or row[1] == runner
            if can:
                query = "take_operation" if end is None else "end_operation"
                tx.change(query, {"id": id, "runner": runner, "now": now, "state": end})
            if action is not None:
                log(tx, action, int(can), DONE_TEXT if can else f"it is {row[0]}" if row else "it does not exist")
            return can

        return self._connections.write(run)


def _rows(tx: Transaction, query: str, ids: Sequence[int]) -> list[_Row]:
    return [_Row(*row) for row in tx.rows(query, {"ids": tx.array(ids)})] if ids else []


def _refused(
    tx: Transaction, verb: str, ids: Sequence[int], change: Change, states: Sequence[str] = (), *, locks: bool
) -> dict[int, str]:
    """Return why tasks are refused, by id. ``locks``: keep them as they are until the end of the transaction."""
    found = {row.id: row for row in _rows(tx, "lock_bulk" if locks else "read_bulk", ids)}
    reasons = {id: _why_not(verb, found.get(id), states) for id in ids}
    refused = {id: why for id, why in reasons.items() if why is not None}
    left = [id for id in ids if id not in refused]
    if left and verb == "delete" and any(found[id].flow & HAS_CHILDREN for id in left):
        needed = tx.rows("needed_parents", {"ids": tx.array(left)})  # a later statement: see sql/dependencies.sql
        refused |= {row[0]: IS_NEEDED for row in needed}
    if left and verb == "reschedule" and change.queue is not None:
        taken = tx.rows("taken_in_queue", {"ids": tx.array(left), "queue": change.queue})
        refused |= {row[0]: KEY_IS_TAKEN for row in taken}
    if not locks and verb == "retry":
        refused |= {id: KEY_IS_TAKEN for id in left if found[id].has_key and tx.row("key_is_taken", {"id": id})}
    return refused


def _why_not(verb: str, row: _Row | None, states: Sequence[str]) -> str | None:
    """Return why the state of a task forbids an action, or None."""
    if row is None:
        return Verdict(False, None, None).refusal
    state = TaskState(row.state)
    if verb == "cancel" and state == RUNNING and row.cancel_requested:
        return IS_REQUESTED
    is_meant = not states or state in states
    return None if is_meant and state in sources(verb) else Verdict(False, state, None).refusal

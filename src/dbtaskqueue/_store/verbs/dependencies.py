"""Parents and children on a SQL database: storing what waits for what, and deciding children when a parent ends.

A child does not read the states of its parents. Its gate counts the parents that have not ended. The transaction that
ends a parent lowers that count. So two last parents that end at the same moment cannot both overlook that they were the
last. ``sql/dependencies.sql`` has the rule about locks that this needs on PostgreSQL.

One transaction decides at most CHUNK children. It lists parents with more children in dbtaskqueue_undecided. Later
transactions decide those: of the same process, or of any worker's maintenance.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ...errors import StoreUnavailable
from ...states import ABANDONED, CANCELLED, DONE, FINAL, PENDING, TaskState
from ..connections import Transaction, Values
from ..contract import Dependencies, Link, ParentState, Refusal, Waits
from ..records import (
    BY_PARENTS,
    HAS_CHILDREN,
    HAS_PARENTS,
    MAX_PARENTS,
    WANTS_DONE,
    WANTS_ENDED,
    WANTS_FAILED,
    EdgeRecord,
    GateRecord,
    NewTask,
)
from .base import CHUNK, SqlFacet, rows_of

_LAST_ID = 2**63 - 1


class Decided(NamedTuple):
    """What the ends of parents have decided.

    ``released``: children that may start. ``abandoned``: how many a purge has abandoned. ``is_partial``: some children
    are not decided yet.
    """

    released: Sequence[int] = ()
    abandoned: int = 0
    is_partial: bool = False


class Forbidden(NamedTuple):
    """Why a task is not retried: a short text without ids, and one with them."""

    reason: str
    text: str


class Purge(NamedTuple):
    """A purge in progress. Children in its queue with ids up to ``highest`` are abandoned, not cancelled."""

    queue: str
    highest: int


class SqlDependencies(SqlFacet, Dependencies):
    """See Dependencies, and what the other facets need when tasks are stored, end, or are retried."""

    def parents(self, task: int, limit: int) -> list[EdgeRecord]:
        return [EdgeRecord(*row) for row in self._connections.query("parents", {"id": task, "limit": limit})]

    def children(self, task: int, after: int, limit: int) -> list[EdgeRecord]:
        values = {"id": task, "after": after, "limit": limit}
        return [EdgeRecord(*row) for row in self._connections.query("children", values)]

    def gate(self, task: int) -> GateRecord | None:
        rows = self._connections.query("gate", {"id": task})
        return GateRecord(*rows[0]) if rows else None

    def gates(self, tasks: Sequence[int]) -> dict[int, GateRecord]:
        rows = rows_of(self._connections, "gates", tasks)
        return {row[0]: GateRecord(*row) for row in rows}

    def open_parents(self, task: int, limit: int) -> list[EdgeRecord]:
        return [EdgeRecord(*row) for row in self._connections.query("open_parents", {"id": task, "limit": limit})]

    def parent_states(self, task: int) -> list[ParentState]:
        return [ParentState(*row) for row in self._connections.query("parent_states", {"id": task})]

    def decide_children(self, now: int, *, search: bool = False) -> int:
        while search:
            rows = [{"parent": row[0]} for row in self._connections.query("overlooked", {"limit": CHUNK})]
            if rows:
                self._connections.write(partial(self._list_undecided, rows))
            search = len(rows) == CHUNK
        count = 0
        while self._connections.query("undecided", {"limit": 1}):
            count += self._connections.write(lambda tx: self._decide_rest(tx, now))
        return count

    def _list_undecided(self, rows: Sequence[Values], tx: Transaction) -> None:
        tx.change_each("insert_undecided", rows)

    def _decide_rest(self, tx: Transaction, now: int) -> int:
        parents = [row[0] for row in tx.rows("undecided", {"limit": CHUNK})]
        if not parents:
            return 0
        states = self._states_of(tx, parents)
        tx.change("delete_undecided", {"ids": tx.array(parents)})
        return len(self._decide(tx, {id: state for id, state in states.items() if state in FINAL}, now).released)

    def _states_of(self, tx: Transaction, parents: Sequence[int]) -> dict[int, TaskState]:
        """Lock tasks, by id, and return the states of those that exist."""
        rows = tx.rows("lock_parents", {"ids": tx.array(parents)}) if parents else []
        return {id: TaskState(state) for id, state in rows}

    # -- the ends of parents -----------------------------------------------------------------------

    def _decide(self, tx: Transaction, ended: Mapping[int, TaskState], now: int, purge: Purge | None = None) -> Decided:
        """Decide the children of tasks that this transaction has just ended, and wake workers for released ones."""
        decided = _decide(tx, ended, now, purge)
        if decided.released:
            self._wake_for(tx, decided.released, now)
        return decided

    def _decide_left_over(self, decided: Decided, now: int) -> int:
        """Decide the children that a committed transaction has left undecided; return how many were released.

        The transaction is stored, so an outage is not raised. A worker's maintenance decides the rest later.
        """
        if decided.is_partial:
            with contextlib.suppress(StoreUnavailable):
                return self.decide_children(now)
        return 0

    # -- new children ------------------------------------------------------------------------------

    def _lock_parents(
        self, tx: Transaction, groups: Sequence[Sequence[NewTask]], waits: Sequence[Waits | None]
    ) -> dict[int, TaskState] | Refusal:
        """Lock all parents that exist already and return their states, or why not to store. Writes nothing."""
        given = [each for each in waits if each is not None]
        parents = sorted({link.parent for each in given for link in each.links if not link.is_new})
        states = self._states_of(tx, parents)
        if len(states) < len(parents):
            return Refusal("missing", next(id for id in parents if id not in states))
        more = Counter[int]()
        for tasks, each in zip(groups, waits, strict=True):
            if each is not None and each.before is not None:
                more[each.before] += len(tasks)
        for child, number in sorted(more.items()):
            gates = tx.rows("lock_gates", {"ids": tx.array([child])})
            if not gates or not gates[0][_OPEN] or not tx.rows("lock_blocked", {"ids": tx.array([child])}):
                return Refusal("not waiting", child)
            if gates[0][_TOTAL] + number > MAX_PARENTS:
                return Refusal("full", child)
        return states

    def _store_links(
        self,
        tx: Transaction,
        children: Sequence[int],
        waits: Waits,
        parents: Mapping[int, tuple[TaskState, str | None]],
        now: int,
        ended: TaskState | None,
    ) -> TaskState | None:
        """Store that new tasks wait for ``parents``. If their condition cannot be met, they are cancelled.

        ``ended``: the state of tasks that have expired already. Returns their state if they have ended.
        """
        if waits.before is not None:
            self._store_before(tx, children, waits.before)
            if ended is not None:
                self._decide(tx, dict.fromkeys(children, ended), now)
        if parents:
            edges = [
                EdgeRecord(parent, child, place, waits.wants, _met(waits.wants, state), arguments)._asdict()
                for child in children
                for place, (parent, (state, arguments)) in enumerate(parents.items())
            ]
            tx.change_each("insert_edge", edges)
            open_parents = sum(state not in FINAL for state, _ in parents.values())
            gate = GateRecord(0, waits.wants, len(parents), open_parents, waits.delay)._asdict()
            tx.change_each("insert_gate", [{**gate, "task": child} for child in children])
            tx.change("mark_parents", {"ids": tx.array(list(parents))})
            states = {id: state for id, (state, _) in parents.items()}
            if ended is None and (reason := _why_impossible(waits.wants, states)) is not None:
                ids = tx.array(list(children))
                tx.change("end_children", {"ids": ids, "now": now, "reason": reason, "state": CANCELLED})
                return CANCELLED
        return ended

    def _store_before(self, tx: Transaction, parents: Sequence[int], child: int) -> None:
        """Store that an existing task, which is blocked, waits for new tasks, too."""
        wants = tx.rows("lock_gates", {"ids": tx.array([child])})[0][_WANTS]
        first = tx.rows("next_place", {"task": child})[0][0] or 0
        edges = [EdgeRecord(id, child, first + at, wants, None, None)._asdict() for at, id in enumerate(parents)]
        tx.change_each("insert_edge", edges)
        tx.change("widen_gate", {"task": child, "number": len(parents)})

    # -- an operator's retry -----------------------------------------------------------------------

    def _why_not_retried(self, tx: Transaction, task: int, state: TaskState, flow: int) -> Forbidden | None:
        """Return why the parents or the children of a final task forbid its retry, or None. Writes nothing."""
        if flow & HAS_PARENTS and (why := self._why_parents_forbid(tx, task)) is not None:
            return why
        if flow & HAS_CHILDREN and state == DONE and (started := _started(_settled_children(tx, task))):
            text = f"its child, task {min(started)}, has started and is unfinished"
            return Forbidden("a child has started and is unfinished", text)
        return None

    def _why_parents_forbid(self, tx: Transaction, task: int) -> Forbidden | None:
        found = tx.rows("forbidding_parents", {"ids": tx.array([task])})
        if found:
            text = f"it waits for task {found[0][1]}, which was {found[0][2]}; retry task {found[0][1]} instead"
            return Forbidden(f"it waits for a task that was {found[0][2]}", text)
        gate = next(iter(tx.rows("lock_gates", {"ids": tx.array([task])})), None)
        is_decided = gate is not None and gate[_WANTS] == WANTS_FAILED and not gate[_OPEN]
        if is_decided and not tx.rows("with_met_edge", {"ids": tx.array([task])}):
            text = "it waits for a parent to fail, and all its parents are done"
            return Forbidden(text, text)
        return None

    def _wait_again(self, tx: Transaction, task: int, flow: int) -> None:
        """Block a task that was just retried until its parents have ended, and its children until it has ended."""
        if flow & HAS_PARENTS:
            gates = tx.rows("lock_gates", {"ids": tx.array([task])})
            tx.change("block", {"id": task, "blocked": int(bool(gates) and gates[0][_OPEN] > 0)})
        if flow & HAS_CHILDREN:
            self._reopen(tx, task)

    def _reopen(self, tx: Transaction, task: int) -> None:
        """Block the children of a retried task again, and revive those that were cancelled because of it.

        Children that have started and are unfinished are left alone.
        """
        revived = [task]
        while revived:
            parent = revived.pop()
            found = _settled_children(tx, parent)
            tx.change("delete_undecided", {"ids": tx.array([parent])})
            started = _started(found)
            again = [child for child in found if child.id not in started]
            if not again:
                continue
            ids = tx.array([child.id for child in again])
            tx.change("reopen_edges", {"parent": parent, "ids": ids})
            tx.change("reopen_gates", {"ids": ids})
            tx.change("block_children", {"ids": ids})
            revived += self._revive(tx, [child for child in again if child.has_reason and child.state == CANCELLED])

    def _revive(self, tx: Transaction, children: Sequence[_Child]) -> list[int]:
        """Revive children that no parent forbids any longer; return those that have children of their own."""
        if not children:
            return []
        ids = tx.array([child.id for child in children])
        forbidden = {row[0] for row in tx.rows("forbidding_parents", {"ids": ids})}
        free = [child for child in children if child.id not in forbidden]
        revived = [child for child in free if child.key is None]
        if revived:
            tx.change("revive_children", {"ids": tx.array([child.id for child in revived])})
        for child in free:  # one by one: two of them may have the same key
            if child.key is not None and not tx.row("key_is_taken", {"id": child.id}):
                tx.change("revive_children", {"ids": tx.array([child.id])})
                revived.append(child)
        return [child.id for child in revived if child.flow & HAS_CHILDREN]


class _Child(NamedTuple):
    """A row of lock_children."""

    id: int
    state: str
    started: int
    has_reason: int
    flow: int
    key: str | None


def _settled_children(tx: Transaction, parent: int) -> list[_Child]:
    """Lock the children that the parent's end has decided, and return them."""
    children = [row[0] for row in tx.rows("settled_children", {"id": parent})]
    if not children:
        return []
    tx.rows("lock_gates", {"ids": tx.array(children)})
    return [_Child(*row) for row in tx.rows("lock_children", {"ids": tx.array(children)})]


def _started(children: Iterable[_Child]) -> set[int]:
    """Return the ids of those that have started and are unfinished."""
    return {child.id for child in children if child.started and child.state not in FINAL}


_WANTS, _TOTAL, _OPEN, _DELAY = 1, 2, 3, 4
"""Columns of lock_gates."""


def as_child(task: NewTask, parents: Mapping[int, tuple[TaskState, str | None]], waits: Waits) -> NewTask:
    """Return a new task with the columns that say that it has parents, and whether it waits for them."""
    flow = task.flow | (HAS_PARENTS if parents else 0) | (HAS_CHILDREN if waits.before is not None else 0)
    states = {id: state for id, (state, _) in parents.items()}
    waiting = any(state not in FINAL for state in states.values()) or _why_impossible(waits.wants, states) is not None
    return task._replace(flow=flow, blocked=BY_PARENTS if waiting else 0)


def resolved(
    links: Sequence[Link], states: Mapping[int, TaskState], ids: Sequence[int]
) -> dict[int, tuple[TaskState, str | None]]:
    """Return the parents that links name: for each id its state, and the places that get its result.

    ``ids``: those of the tasks that the same call has stored so far.
    """
    parents: dict[int, tuple[TaskState, str | None]] = {}
    for link in links:
        id = ids[link.parent] if link.is_new else link.parent
        _, before = parents.get(id, (None, None))
        arguments = link.arguments if before is None else _joined(before, link.arguments)
        parents[id] = states.get(id, PENDING), arguments
    return parents


def _joined(one: str, other: str | None) -> str:
    return one if other is None else json.dumps(json.loads(one) + json.loads(other))


def _met(wants: int, state: TaskState) -> int | None:
    """Return whether a parent in this state ended as wanted; None if it has not ended. The query meet_edges agrees."""
    if state not in FINAL:
        return None
    return int(wants == WANTS_ENDED or (state == DONE) == (wants == WANTS_DONE))


def _why_impossible(wants: int, parents: Mapping[int, TaskState]) -> str | None:
    """Return why a child of these parents can never start, or None."""
    if wants == WANTS_DONE:
        return next((_disappointed(id, state) for id, state in parents.items() if state in FINAL - {DONE}), None)
    if wants == WANTS_FAILED and parents and all(state == DONE for state in parents.values()):
        return _none_failed(parents)
    return None


def _disappointed(parent: int, state: str) -> str:
    return f"cancelled, since it waits for task {parent} to be done, and that ended {state}"


def _none_failed(parents: Iterable[int]) -> str:
    some = sorted(parents)
    number = f"task {some[0]} is done" if len(some) == 1 else f"tasks {some[0]} to {some[-1]} are done"
    return f"cancelled, since it waits for a failure, and {number}"


def _decide(tx: Transaction, ended: Mapping[int, TaskState], now: int, purge: Purge | None) -> Decided:
    frontier: dict[int, TaskState] = dict(ended)
    released: list[int] = []
    abandoned, budget = 0, CHUNK
    while frontier and budget > 0:
        rows: list[Any] = tx.rows("open_edges", {"ids": tx.array(sorted(frontier)), "limit": budget + 1})
        if not rows:
            frontier = {}
            break
        rows, complete, last = _within(rows, budget, frontier)
        budget -= len(rows)
        _meet(tx, complete or [rows[0][0]], frontier, last)
        finished = set(complete)
        rest = {id: state for id, state in frontier.items() if id not in finished}
        free, failing = _close_gates(tx, rows, frontier)
        released += _release(tx, free, now)
        new, number = _end_children(tx, failing, now, purge)
        abandoned += number
        frontier = {**rest, **new}
    if frontier:
        tx.change_each("insert_undecided", [{"parent": id} for id in sorted(frontier)])
    return Decided(released, abandoned, bool(frontier))


def _within(
    rows: list[tuple[int, int, int]], budget: int, frontier: Mapping[int, TaskState]
) -> tuple[list[tuple[int, int, int]], list[int], int]:
    """Return the edges to decide now, the parents of which these are all edges, and the last child.

    ``rows`` are ordered by parent and child, one more than the budget if there are more. If even the first parent has
    more edges than that, only its first ones are taken.
    """
    if len(rows) <= budget:
        return rows, sorted(frontier), _LAST_ID
    partial = rows[-1][0]
    some = [row for row in rows if row[0] < partial]
    if some:
        return some, [id for id in sorted(frontier) if id < partial], _LAST_ID
    some = rows[:budget]
    return some, [], some[-1][1]


def _meet(tx: Transaction, parents: Sequence[int], states: Mapping[int, TaskState], last: int) -> None:
    for is_done in (1, 0):
        if some := [id for id in parents if (states[id] == DONE) == is_done]:
            tx.change("meet_edges", {"ids": tx.array(some), "is_done": is_done, "last": last})


def _close_gates(
    tx: Transaction, edges: Sequence[tuple[int, int, int]], states: Mapping[int, TaskState]
) -> tuple[dict[int, int | None], dict[int, str]]:
    """Subtract these edges from the gates. Return the free children with their delays, and why others cannot start."""
    numbers = Counter(child for _, child, _ in edges)
    gates = {row[0]: row for row in tx.rows("lock_gates", {"ids": tx.array(sorted(numbers))})}
    by_number: defaultdict[int, list[int]] = defaultdict(list)
    for child in gates:
        by_number[numbers[child]].append(child)
    for number, children in by_number.items():
        tx.change("close_gates", {"ids": tx.array(children), "number": number})
    failing = {
        child: _disappointed(parent, states[parent])
        for parent, child, wants in edges
        if wants == WANTS_DONE and states[parent] != DONE
    }
    opened = [child for child, gate in gates.items() if gate[_OPEN] == numbers[child] and child not in failing]
    for_failures = [child for child in opened if gates[child][_WANTS] == WANTS_FAILED]
    if for_failures:
        met = {row[0] for row in tx.rows("with_met_edge", {"ids": tx.array(for_failures)})}
        failing |= {
            child: _none_failed([parent for parent, of, _ in edges if of == child])
            for child in for_failures
            if child not in met
        }
    return {child: gates[child][_DELAY] for child in opened if child not in failing}, failing


def _release(tx: Transaction, children: Mapping[int, int | None], now: int) -> list[int]:
    by_delay: defaultdict[int | None, list[int]] = defaultdict(list)
    for child, delay in children.items():
        by_delay[delay].append(child)
    for delay, some in by_delay.items():
        due = None if delay is None else now + delay
        tx.change("release_children", {"ids": tx.array(some), "due": due, "now": now})
    return list(children)


def _end_children(
    tx: Transaction, failing: Mapping[int, str], now: int, purge: Purge | None
) -> tuple[dict[int, TaskState], int]:
    """End children that can never start. Return those that have children of their own, and how many were abandoned."""
    if not failing:
        return {}, 0
    parents: dict[int, TaskState] = {}
    groups: defaultdict[tuple[TaskState, str | None], list[int]] = defaultdict(list)
    for id, queue, flow in tx.rows("lock_blocked", {"ids": tx.array(sorted(failing))}):
        is_purged = purge is not None and queue == purge.queue and id <= purge.highest
        state = ABANDONED if is_purged else CANCELLED
        groups[state, None if is_purged else failing[id]].append(id)
        if flow & HAS_CHILDREN:
            parents[id] = state
    for (state, reason), ids in groups.items():
        tx.change("end_children", {"ids": tx.array(ids), "now": now, "reason": reason, "state": state})
    return parents, sum(len(ids) for (state, _), ids in groups.items() if state == ABANDONED)

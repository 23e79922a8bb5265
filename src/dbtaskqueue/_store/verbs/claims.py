"""What workers do with the tasks that they hold, on a SQL database."""

from __future__ import annotations

import abc
import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..._system import clock
from ...errors import LeaseLost, TaskQueueError
from ...states import ABANDONED, DONE, FAILED, FINAL, PENDING, RESERVED, RUNNING, TaskState
from ..connections import Transaction, Values, around_writes
from ..contract import Claim, Claims, End, Exchanged, Note, SavedRecord, Start, TaskRecord, Verdict
from ..records import EXPIRED, HAS_CHILDREN
from .base import inline, insert_attempt, is_large, is_soon, large_row, standing
from .dependencies import Decided, SqlDependencies


class SqlClaims(SqlDependencies, Claims):
    """See Claims. Each engine has its own way to find and take tasks, and to store many finishes together."""

    @abc.abstractmethod
    def _claim(self, tx: Any, worker: int, claim: Claim) -> list[TaskRecord]:
        """Reserve tasks. If ``claim.start`` is set, also start them."""

    @abc.abstractmethod
    def _finish_together(self, tx: Any, ends: Sequence[End]) -> bool:
        """Store many finishes in one statement; False if not all of them were stored.

        A task with children is only ended if its End says so (``flow``). All ends have the same ``flow``.
        """

    def exchange(
        self,
        worker: int,
        *,
        starts: Sequence[Start] = (),
        notes: Sequence[Note] = (),
        ends: Sequence[End] = (),
        claim: Claim | None = None,
    ) -> Exchanged:
        def run(tx: Transaction) -> tuple[Exchanged, Decided]:
            parents: dict[int, TaskState] = {}
            started = [_start(tx, start, parents) for start in starts]
            if notes:
                tx.change_each("save_note", [note._asdict() for note in notes])
            ended = self._end_all(tx, worker, ends, parents)
            decided = Decided()
            if parents:
                # released children are due by then, so this claim finds them
                decided = self._decide(tx, parents, claim.now if claim else clock.now())
            claimed = self._claim(tx, worker, claim) if claim else []
            return Exchanged(started, ended, claimed, len(decided.released)), decided

        exchanged, decided = self._connections.write(run)
        if not decided.is_partial:
            return exchanged
        return exchanged._replace(released=exchanged.released + self._decide_left_over(decided, clock.now()))

    def save(self, task: int, token: int, name: str, value: str) -> bool:
        values = {"id": task, "token": token, "name": name, "value": value}

        def run(tx: Transaction) -> bool:
            # MariaDB counts no row if the same value is stored already
            return tx.change("save", values) > 0 or tx.row("lock_claim", values) is not None

        return self._connections.write(run)

    def saved(self, task: int) -> dict[str, str]:
        return dict(self._connections.query("saved", {"task": task}))

    def saved_briefly(self, task: int, limit: int) -> list[SavedRecord]:
        rows = self._connections.query("saved_briefly", {"task": task, "limit": limit})
        return sorted(SavedRecord(*row) for row in rows)

    @contextlib.contextmanager
    def transaction(self, worker: int, end: Callable[[], End]) -> Iterator[Any]:
        parents: dict[int, TaskState] = {}
        with around_writes(), self._connections.own_transaction() as tx:
            claim = end()
            with self._connections.translated():
                is_held = tx.row("lock_claim", claim._asdict()) is not None
            if not is_held:
                raise LeaseLost(f"the claim on task {claim.id} was lost; nothing was written")
            yield tx.connection
            if not tx.is_open:
                raise TaskQueueError("the transaction was ended inside its block; let the end of the block commit it")
            with self._connections.translated():
                self._end(tx, worker, end(), parents)
                if parents:  # not decided here: a deadlock would fail the task, since it cannot be run again
                    tx.change_each("insert_undecided", [{"parent": id} for id in parents])
        self._decide_left_over(Decided(is_partial=bool(parents)), clock.now())

    def next_due(self, queues: Sequence[str], *, commands: bool = True) -> int | None:
        every = [{"queue": queue, "commands": int(commands), **self._from_the_start} for queue in queues]
        times = [self._connections.query("next_due", values)[0][0] for values in every]
        return min((time for time in times if isinstance(time, int)), default=None)  # or NULL, or not a number

    def next_functions(self, queue: str, limit: int, before: int) -> list[str | None]:
        rows = self._connections.query("next_functions", {"queue": queue, "limit": limit})
        return [function for function, command, due in rows if not command and due < before]

    # -- ends --------------------------------------------------------------------------------------

    def _end_all(
        self, tx: Transaction, worker: int, ends: Sequence[End], parents: dict[int, TaskState]
    ) -> list[Verdict]:
        """Store ends. Those that end tasks with children are added to ``parents``."""
        verdicts = self._store_ends(tx, worker, ends, parents)
        waiting = [
            end
            for end, verdict in zip(ends, verdicts, strict=True)
            if end.verb != "finish"
            and verdict.stored
            and verdict.state in (PENDING, FAILED)
            and is_soon(end.due, end.at)
        ]
        if waiting:
            self._wake_for(tx, [end.id for end in waiting], max(end.at for end in waiting))
        return verdicts

    def _store_ends(
        self, tx: Transaction, worker: int, ends: Sequence[End], parents: dict[int, TaskState]
    ) -> list[Verdict]:
        finishes = [end for end in ends if end.verb == "finish"]
        if len(finishes) < 2:
            return [self._end(tx, worker, end, parents) for end in ends]
        verdicts = self._finish_all(tx, worker, finishes, parents)
        if len(finishes) == len(ends):
            return verdicts
        found = iter(verdicts)
        return [next(found) if end.verb == "finish" else self._end(tx, worker, end, parents) for end in ends]

    def _finish_all(
        self, tx: Transaction, worker: int, ends: Sequence[End], parents: dict[int, TaskState]
    ) -> list[Verdict]:
        """Store many finishes: those of plain tasks in one statement, those of tasks with children in another."""
        if len({end.flow for end in ends}) > 1:
            found = [
                iter(self._finish_all(tx, worker, [e for e in ends if e.flow == flow], parents)) for flow in (0, 1)
            ]
            return [next(found[end.flow]) for end in ends]
        complete = self._finish_together(tx, ends)
        verdicts = finish_verdicts(tx, ends, complete=complete)
        if ends[0].flow:
            parents |= {end.id: DONE for end, verdict in zip(ends, verdicts, strict=True) if verdict.stored}
        elif not complete:
            for index in unstored(ends, verdicts):
                verdicts[index] = self._end(tx, worker, ends[index], parents)
        return verdicts

    def _end(self, tx: Transaction, worker: int, end: End, parents: dict[int, TaskState]) -> Verdict:
        values = end._asdict()
        values |= {"result": inline(end.result), "final": int(end.final)}
        if end.verb == "finish":
            return self._finish(tx, end, values, parents)
        if end.started_at is not None:
            _start(tx, Start(end.id, end.token, end.started_at), parents)
        return self._give_up(tx, worker, end, values, parents)

    def _finish(self, tx: Transaction, end: End, values: Values, parents: dict[int, TaskState]) -> Verdict:
        if not tx.change("finish", values):
            verdict = standing(tx, end.id, stored=False)
            # Perhaps it got children since it was claimed. The program that stored them has unlocked the row by now.
            if end.flow or not unstored([end], [verdict]) or not tx.change("finish", {**values, "flow": 1}):
                return verdict
            parents[end.id] = DONE
        elif end.flow:
            parents[end.id] = DONE
        if is_large(end.result):
            tx.change("insert_large", large_row(end.id, "result", end.result))
        return Verdict(True, DONE, end.token)

    def _give_up(
        self, tx: Transaction, worker: int, end: End, values: Values, parents: dict[int, TaskState]
    ) -> Verdict:
        """Store a fail or a release."""
        if end.verb == "release" and tx.change("release_reserved", values):
            return Verdict(True, PENDING, end.token)
        if not tx.change("fail" if end.verb == "fail" else "release_running", values):
            return standing(tx, end.id, stored=False)
        row = tx.row("ended_attempt", values)
        assert row is not None
        state, number, started_at, flow = row
        if state in FINAL and flow & HAS_CHILDREN:
            parents[end.id] = TaskState(state)
        if not (end.unrun and state == PENDING):
            insert_attempt(tx, end, worker, number, started_at, "released" if state == PENDING else state)
        return Verdict(True, TaskState(state), end.token)


def in_order(records: list[TaskRecord]) -> list[TaskRecord]:
    """Return claimed tasks in the order of their claim. An UPDATE returns them in any order."""
    return sorted(records, key=_ORDER)


_ORDER = operator.attrgetter("rank", "due", "id")
_DONE = Verdict(True, DONE, None)


def finish_verdicts(tx: Transaction, ends: Sequence[End], *, complete: bool) -> list[Verdict]:
    """Return verdicts on finishes that were stored together. ``complete``: all of them were stored.

    Otherwise the tasks are read: under its token, only its holder can have made a task done.
    """
    if complete:
        return [_DONE] * len(ends)
    found = [standing(tx, end.id, stored=False) for end in ends]
    return [
        verdict._replace(stored=verdict.state == DONE and verdict.token == end.token)
        for verdict, end in zip(found, ends, strict=True)
    ]


def unstored(ends: Sequence[End], verdicts: Sequence[Verdict]) -> list[int]:
    """Return the positions of finishes that were not stored although the claim is valid: their tasks have children."""
    return [
        index
        for index, (end, verdict) in enumerate(zip(ends, verdicts, strict=True))
        if not verdict.stored and verdict.token == end.token and verdict.state in (RUNNING, RESERVED)
    ]


def _start(tx: Transaction, start: Start, parents: dict[int, TaskState]) -> Verdict:
    if tx.change("start", start._asdict()):
        return Verdict(True, RUNNING, start.token)
    if tx.change("expire_reserved", {**start._asdict(), "reason": EXPIRED}):
        parents[start.id] = ABANDONED
    return standing(tx, start.id, stored=False)

"""The verbs of the contract, said once for every engine: which named queries, in which order.

An engine adds what it does in its own way: how tasks get their ids, how a claim finds and takes its
tasks, how the ends of a batch are stored at once, and how waiting workers are woken.
"""

from __future__ import annotations

import abc
import contextlib
import operator
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from .._formats.url import Target
from ..errors import LeaseLost, SchemaError, TaskQueueError
from ..states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, RESERVED, RUNNING, TaskState
from .connections import NOTHING, Conflict, Connections, Transaction, Values, around_writes
from .contract import (
    OUTPUTS,
    AttemptRecord,
    Claim,
    End,
    EndedRecord,
    Exchanged,
    Finding,
    Held,
    NewTask,
    Note,
    RetryTime,
    Standing,
    Start,
    Store,
    TaskRecord,
    Verdict,
    WorkerRecord,
)
from .copying import SEALED, SqlMovable

INLINE = 256
"""Characters of JSON up to which a value stays in the task's row; see dbtaskqueue_large."""
_CHUNK = 1000
_DAY = 86_400_000_000
_LAST_ID = 2**63 - 1
_SOON = 5_000_000
"""Microseconds: whoever waits looks this often anyway, so what is due later need not wake anybody."""


class SqlStore(SqlMovable, Store):
    """A store on a database that speaks SQL."""

    schema_version: int
    """The version of the schema that this program creates and knows."""

    def __init__(self, target: Target, connections: Connections) -> None:
        self._target = target
        self._connections = connections
        self.max_payload = target.max_payload

    def address(self, url: str) -> str:
        """The URL by which another process reaches what this one reaches by ``url``."""
        return url

    _from_the_start: Values = NOTHING
    """Parameters of the query ``ranks`` that include all waiting tasks."""

    # -- what each engine does in its own way ------------------------------------------------------

    @abc.abstractmethod
    def _insert(self, tx: Any, tasks: Sequence[NewTask]) -> list[int]:
        """Store tasks, all at once; their ids, rising, or none where the key is taken."""

    @abc.abstractmethod
    def _borrow(self, connection: object) -> Transaction:
        """A user's connection in its transaction; ConfigurationError unless it leads to this database."""

    @abc.abstractmethod
    def _claim(self, tx: Any, worker: int, claim: Claim) -> list[TaskRecord]:
        """Reserve tasks, and start them if the claim says so."""

    @abc.abstractmethod
    def _finish_together(self, tx: Any, ends: Sequence[End]) -> bool:
        """Store many finishes at once; False when not all of them were stored."""

    @abc.abstractmethod
    def _versions(self) -> tuple[int, int]:
        """Version of the schema that is there and the oldest that a program may know; zeros without a schema."""

    def _wake(self, tx: Any, queue: str, tasks: int | None) -> None:
        """At the commit, wake ``tasks`` waiting workers of the queue (None: all), if the engine can."""

    def _wake_for(self, tx: Any, tasks: Sequence[int], now: int) -> None:
        """The same for existing tasks of any queues: for each one due soon, wake a waiting worker of its queue."""

    def _forget_dead_waiters(self, tx: Any) -> None:
        """Remove the registrations of dead waiting workers, if the engine has any."""

    # -- schema ------------------------------------------------------------------------------------

    @abc.abstractmethod
    def upgrade(self, version: int) -> list[str]:
        """The statements that lead from that version of the schema, 0 for none, to this program's."""

    def missing_statements(self) -> list[str]:
        return self.upgrade(self._versions()[0])

    def _check_schema(self, name: str) -> None:
        version, oldest = self._versions()
        if version < self.schema_version:
            if not version:
                raise SchemaError(f"{name} has no dbtaskqueue schema; create it with: {self._migrate_command}")
            raise SchemaError(
                f"{name} has schema version {version}, this program needs {self.schema_version};"
                f" upgrade it with: {self._migrate_command}"
            )
        if oldest == SEALED:
            raise SchemaError(f"{name} is being filled by: dbtaskqueue copy; where that was broken off, run it again")
        if oldest > self.schema_version:
            raise self._too_new(name, version, oldest)

    def _may_not_create(self, name: str, account: str, grant: str) -> SchemaError:
        return SchemaError(
            f"{name}: {account} may not create the schema; let an administrator run: {grant};"
            f" or run what this prints: {self._migrate_command} --sql"
        )

    @property
    def _migrate_command(self) -> str:
        return shlex.join(["dbtaskqueue", "--url", self._target.text, "migrate"])

    def _too_new(self, name: str, version: int, oldest: int) -> SchemaError:
        return SchemaError(
            f"{name} has schema version {version}, which needs a program that knows version {oldest};"
            f" this one knows {self.schema_version}: upgrade it with: pip install --upgrade dbtaskqueue"
        )

    # -- producers ---------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[NewTask], connection: object = None) -> list[int]:
        if connection is None:
            return self._connections.write(partial(self._enqueue, tasks), alone=self._is_one_statement(tasks))
        with self._connections.translated():
            return self._enqueue(tasks, self._borrow(connection))

    def _is_one_statement(self, tasks: Sequence[NewTask]) -> bool:
        """Whether storing these tasks takes a single statement, which needs no BEGIN and COMMIT around it."""
        return len(tasks) == 1 and tasks[0].key is None and not is_large(tasks[0].payload)

    def _enqueue(self, tasks: Sequence[NewTask], tx: Transaction) -> list[int]:
        first = tasks[0]
        ids: list[int] = []
        while not ids:  # a task that has the key may end between two looks
            if first.key is not None and (taken := tx.row("unfinished_with_key", first._asdict())):
                return [int(taken[0])]
            ids = self._insert(tx, tasks)
        if is_soon(first.due, first.created_at):
            self._wake(tx, first.queue, wakes(tasks))
        return ids

    # -- workers -----------------------------------------------------------------------------------

    def exchange(
        self,
        worker: int,
        *,
        starts: Sequence[Start] = (),
        notes: Sequence[Note] = (),
        ends: Sequence[End] = (),
        claim: Claim | None = None,
    ) -> Exchanged:
        def run(tx: Transaction) -> Exchanged:
            started = [_start(tx, start) for start in starts]
            if notes:
                tx.change_each("note", [note._asdict() for note in notes])
            ended = self._end_all(tx, worker, ends)
            return Exchanged(started, ended, self._claim(tx, worker, claim) if claim else [])

        return self._connections.write(run)

    def keep(self, task: int, token: int, name: str, value: str) -> bool:
        values = {"id": task, "token": token, "name": name, "value": value}

        def run(tx: Transaction) -> bool:
            # MariaDB counts no row where the same value stands already
            return tx.change("keep", values) > 0 or tx.row("lock_claim", values) is not None

        return self._connections.write(run)

    def kept(self, task: int) -> dict[str, str]:
        return dict(self._connections.query("kept", {"task": task}))

    @contextlib.contextmanager
    def transaction(self, worker: int, end: Callable[[], End]) -> Iterator[Any]:
        with around_writes(), self._connections.own_transaction() as tx:
            claim = end()
            with self._connections.translated():
                is_held = tx.row("lock_claim", claim._asdict()) is not None
            if not is_held:
                raise LeaseLost(f"the claim on task {claim.id} is gone; nothing was written")
            yield tx.connection
            if not tx.is_open:
                raise TaskQueueError("the transaction was ended inside of its block; leave that to the block's end")
            with self._connections.translated():
                self._end(tx, worker, end())

    def _end_all(self, tx: Transaction, worker: int, ends: Sequence[End]) -> list[Verdict]:
        verdicts = self._store_ends(tx, worker, ends)
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

    def _store_ends(self, tx: Transaction, worker: int, ends: Sequence[End]) -> list[Verdict]:
        finishes = [end for end in ends if end.verb == "finish"]
        if len(finishes) < 2:
            return [self._end(tx, worker, end) for end in ends]
        complete = self._finish_together(tx, finishes)
        verdicts = finish_verdicts(tx, finishes, complete=complete)
        if len(finishes) == len(ends):
            return verdicts
        found = iter(verdicts)
        return [next(found) if end.verb == "finish" else self._end(tx, worker, end) for end in ends]

    def _end(self, tx: Transaction, worker: int, end: End) -> Verdict:
        values = end._asdict()
        values |= {"result": inline(end.result), "final": int(end.final)}
        if end.verb == "finish":
            if not tx.change("finish", values):
                return _standing(tx, end.id, stored=False)
            if is_large(end.result):
                tx.change("insert_large", _large(end.id, "result", end.result))
            return Verdict(True, DONE, end.token)
        if end.started_at is not None:
            _start(tx, Start(end.id, end.token, end.started_at))
        return self._give_up(tx, worker, end, values)

    def _give_up(self, tx: Transaction, worker: int, end: End, values: Values) -> Verdict:
        """Store a fail or a release."""
        if end.verb == "release" and tx.change("release_reserved", values):
            return Verdict(True, PENDING, end.token)
        if not tx.change("fail" if end.verb == "fail" else "release_running", values):
            return _standing(tx, end.id, stored=False)
        row = tx.row("ended_attempt", values)
        assert row is not None
        state, number, started_at = row
        if not (end.unrun and state == PENDING):
            _record_attempt(tx, end, worker, number, started_at, "released" if state == PENDING else state)
        return Verdict(True, TaskState(state), end.token)

    def next_due(self, queues: Sequence[str], *, commands: bool = True) -> int | None:
        every = [{"queue": queue, "commands": int(commands), **self._from_the_start} for queue in queues]
        times = [self._connections.query("next_due", values)[0][0] for values in every]
        return min((time for time in times if isinstance(time, int)), default=None)  # or nonsense, or None

    def next_functions(self, queue: str, limit: int, before: int) -> list[str | None]:
        rows = self._connections.query("next_functions", {"queue": queue, "limit": limit})
        return [function for function, command, due in rows if not command and due < before]

    def register(self, worker: WorkerRecord) -> int:
        def run(tx: Transaction) -> int:
            tx.change("forget_lost", {"before": worker.created_at - _DAY})
            return int(tx.rows("register", worker._asdict())[0][0])

        return self._connections.write(run)

    def beat(self, worker: int) -> bool:
        return bool(self._change_alone("beat", {"worker": worker}))

    def deregister(self, worker: int) -> None:
        self._change_alone("deregister", {"worker": worker})

    def workers(self) -> list[WorkerRecord]:
        return [WorkerRecord(*row) for row in self._connections.query("workers")]

    def held(self, worker: int) -> list[Held]:
        return [Held(*row) for row in self._connections.query("held_by", {"worker": worker})]

    def rescue(self, worker: int | None, beat: int, error: str, now: int, retry_time: RetryTime) -> int | None:
        if worker is None and not self._connections.query("orphaning_workers"):
            return 0

        def run(tx: Transaction) -> int | None:
            if worker is None:
                lost = [row[0] for row in tx.rows("orphaning_workers")]
            elif tx.change("mark_lost", {"worker": worker, "beat": beat, "now": now}):
                lost = [worker]
            else:
                return None
            held = [row[0] for each in lost for row in tx.rows("held_by", {"worker": each})]
            count = sum(_give_back(tx, each, error, now, retry_time) for each in lost)
            self._wake_for(tx, held, now)
            self._forget_dead_waiters(tx)
            return count

        return self._connections.write(run)

    # -- operators ---------------------------------------------------------------------------------

    def cancel(self, task: int, now: int, *, running: bool = True) -> Verdict:
        return self._connections.write(partial(_change, "cancel", {"id": task, "now": now, "running": int(running)}))

    def suspend(self, task: int, suspended: bool) -> Verdict:
        values = {"id": task, "suspended": int(suspended)}

        def run(tx: Transaction) -> Verdict:
            is_possible = tx.row("suspendable", values) is not None
            if is_possible:
                tx.change("suspend", values)
            return _standing(tx, task, stored=is_possible)

        return self._connections.write(run)

    def retry(self, task: int, now: int) -> Verdict:
        def run(tx: Transaction) -> Verdict:
            if tx.row("key_is_taken", {"id": task}):
                return _standing(tx, task, stored=False)
            was_done = tx.change("keep_done_attempt", {"id": task})
            verdict = _change("retry", {"id": task, "now": now}, tx)
            if verdict.stored and was_done:
                tx.change("delete_what_was_done", {"id": task})
            if verdict.stored:
                self._wake_for(tx, [task], now)
            return verdict

        try:
            return self._connections.write(run)
        except Conflict:  # somebody took the key after the look
            return self._connections.read(lambda tx: _standing(tx, task, stored=False))

    def purge(self, queue: str, now: int) -> Iterator[int]:
        highest = self._connections.query("highest_id")[0][0]
        values = {"queue": queue, "highest": highest, "now": now, "limit": _CHUNK}

        def run(tx: Transaction) -> int:
            held = tx.rows("purgeable_held", values)
            for id, token, state, number, worker, started_at in held:
                if state == RUNNING:
                    end = End("purge", id, token, now, error="purged while it ran")
                    _record_attempt(tx, end, worker, number, started_at, "abandoned")
            ids = [row[0] for row in held] + [row[0] for row in tx.rows("purgeable", values)]
            return tx.change("purge", {"now": now, "ids": tx.array(ids)}) if ids else 0

        yield self._connections.write(run)
        # a task may have been claimed, or released, between the two looks of a transaction: one statement sees it
        while self._connections.query("is_left", values)[0][0]:
            yield self._connections.write(run)

    def prune(self, queue: str, before: int, states: Iterable[TaskState]) -> Iterator[int]:
        for state in states:
            values: dict[str, Any] = {"queue": queue, "before": before, "state": state, "limit": _CHUNK, "after": 0}
            while rows := self._connections.query("prunable", values):
                ids = [row[0] for row in rows]
                values["after"] = ids[-1]
                yield self._connections.write(partial(self._delete, ids))

    def _delete(self, ids: Sequence[int], tx: Transaction) -> int:
        final = [row[0] for row in tx.rows("lock_final", {"ids": tx.array(ids)})]
        if final:
            for query in ("delete_large", "delete_notes", "delete_attempts", "delete_tasks"):
                tx.change(query, {"ids": tx.array(final)})
        return len(final)

    def set_paused(self, queue: str, paused: bool) -> None:
        def run(tx: Transaction) -> None:
            tx.change("set_paused", {"queue": queue, "paused": int(paused)})
            if not paused:
                self._wake(tx, queue, None)

        self._connections.write(run)

    # -- looking -----------------------------------------------------------------------------------

    def get(self, task: int, connection: object = None) -> TaskRecord | None:
        if connection is None:
            rows = self._connections.query("get", {"id": task})
        else:
            with self._connections.translated():
                rows = self._borrow(connection).rows("get", {"id": task})
        return TaskRecord(*rows[0]) if rows else None

    def standings(self, tasks: Sequence[int]) -> dict[int, Standing]:
        def run(tx: Transaction) -> dict[int, Standing]:
            parts = [tasks[at : at + _CHUNK] for at in range(0, len(tasks), _CHUNK)]
            rows = [row for part in parts for row in tx.rows("standings", {"ids": tx.array(part)})]
            return {id: Standing(TaskState(state), token) for id, state, token in rows}

        return self._connections.read(run)

    def tasks(self, queue: str, state: TaskState | None, limit: int, before: int | None) -> list[TaskRecord]:
        values = {"queue": queue, "state": state, "limit": limit, "before": _LAST_ID if before is None else before}
        return self._connections.read(partial(_list, values))

    def attempts(self, task: int, since: int = 0) -> list[AttemptRecord]:
        return self._connections.read(partial(_attempts, {"id": task, "since": since, "limit": OUTPUTS}))

    def output(self, task: int, token: int) -> str | None:
        rows = self._connections.query("output", {"id": task, "token": token})
        return rows[0][0] if rows else None

    def ended(self, queue: str, limit: int) -> list[EndedRecord]:
        return self._connections.read(partial(_ended, {"queue": queue, "limit": limit}))

    def count(self, queue: str, *, final: bool) -> dict[TaskState, int]:
        return self._connections.read(partial(_count, queue, final))

    def queues(self) -> list[str]:
        return sorted(row[0] for row in self._connections.query("queues"))

    def is_paused(self, queue: str) -> bool:
        return bool(self._connections.query("paused", {"queue": queue}))

    def waiting_since(self, queue: str, now: int) -> int | None:
        values = {"queue": queue, "now": now, "commands": 1, **self._from_the_start}
        since = self._connections.query("waiting_since", values)[0][0]
        return since if isinstance(since, int) else None

    def newest(self) -> tuple[int, int] | None:
        rows = self._connections.query("newest")
        return (rows[0][0], rows[0][1]) if rows else None

    def fix_due_after_clock_change(self, now: int) -> int:
        return self._change_alone("fix_due_after_clock_change", {"now": now})

    def _change_alone(self, query: str, values: Values) -> int:
        """A write of one statement."""

        def run(tx: Transaction) -> int:
            return tx.change(query, values)

        return self._connections.write(run, alone=True)

    # -- what doctor asks --------------------------------------------------------------------------

    def _schema_finding(self) -> Finding:
        version, oldest = self._versions()
        return Finding("schema", f"version {version}, for programs that know {oldest} or later")

    def disconnect(self) -> None:
        self._connections.disconnect()

    def close(self) -> None:
        self.wakeups.close()
        self._connections.close()


def is_large(value: str | None) -> bool:
    """Whether a value has a row of its own."""
    return value is not None and len(value) > INLINE


def inline(value: str | None) -> str | None:
    """What stands of a value in the task's own row."""
    return None if value is None or len(value) > INLINE else value


def is_soon(due: int | None, now: int) -> bool:
    """Whether somebody should be woken for a task that is due then."""
    return due is None or due <= soon_after(now)


def soon_after(now: int) -> int:
    """The latest due time of a task for which a waiting worker is woken."""
    return now + _SOON


def wakes(tasks: Sequence[NewTask]) -> int | None:
    """How many waiting workers are woken for new tasks; None, all: not everybody may run commands."""
    return None if tasks[0].command else len(tasks)


def in_order(records: list[TaskRecord]) -> list[TaskRecord]:
    """Claimed tasks in the order of their claim: an UPDATE returns them as it finds them."""
    return sorted(records, key=_ORDER)


_ORDER = operator.attrgetter("rank", "due", "id")
_DONE = Verdict(True, DONE, None)


def insert_large(tx: Transaction, ids: Sequence[int], tasks: Sequence[NewTask]) -> None:
    """Store the payloads that do not stand in their tasks' own rows."""
    pairs = zip(ids, tasks, strict=True)
    large = [_large(id, "payload", task.payload) for id, task in pairs if is_large(task.payload)]
    if large:
        tx.change_each("insert_large", large)


def _large(task: int, name: str, value: str | None) -> dict[str, object]:
    return {"task": task, "name": name, "value": value}


def _start(tx: Transaction, start: Start) -> Verdict:
    if tx.change("start", start._asdict()):
        return Verdict(True, RUNNING, start.token)
    return _standing(tx, start.id, stored=False)


def finish_verdicts(tx: Transaction, ends: Sequence[End], *, complete: bool) -> list[Verdict]:
    """Of finishes that were stored together, all of them or not: only its holder makes a task done under its token."""
    if complete:
        return [_DONE] * len(ends)
    standing = [_standing(tx, end.id, stored=False) for end in ends]
    return [
        verdict._replace(stored=verdict.state == DONE and verdict.token == end.token)
        for verdict, end in zip(standing, ends, strict=True)
    ]


def _standing(tx: Transaction, task: int, *, stored: bool) -> Verdict:
    row = tx.row("standing", {"id": task})
    return Verdict(stored, TaskState(row[0]), row[1]) if row else Verdict(False, None, None)


def _change(query: str, values: dict[str, int], tx: Transaction) -> Verdict:
    changed = tx.change(query, values)
    return _standing(tx, values["id"], stored=bool(changed))


def _record_attempt(
    tx: Transaction, end: End, worker: int | None, number: int, started_at: int | None, outcome: str
) -> None:
    values = {"task": end.id, "token": end.token, "number": number, "worker": worker, "started_at": started_at}
    tx.change(
        "insert_attempt",
        values
        | {
            "finished_at": end.at,
            "outcome": outcome,
            "error": end.error,
            "error_type": end.error_type,
            "cpu": end.cpu,
            "memory": end.memory,
        },
    )


def _give_back(tx: Transaction, worker: int, error: str, now: int, retry_time: RetryTime) -> int:
    count = tx.change("give_back_reserved", {"worker": worker})
    for row in tx.rows("lost_running", {"worker": worker}):
        record, lost_before = TaskRecord(*row[:-1]), row[-1]
        spent = record.max_attempts is not None and record.attempt >= record.max_attempts
        state = CANCELLED if record.cancel_requested else ABANDONED if spent else FAILED
        values = {
            "id": record.id,
            "token": record.token,
            "state": state,
            "due": retry_time(record, lost_before, now) if state == FAILED else record.due,
            "at": now,
            "finished_at": None if state == FAILED else now,
        }
        if tx.change("give_back_running", values):
            end = End("fail", record.id, record.token, now, error=error)
            outcome = "cancelled" if state == CANCELLED else "lost"
            _record_attempt(tx, end, worker, record.attempt, record.started_at, outcome)
            count += 1
    return count


def _attempts(values: Values, tx: Transaction) -> list[AttemptRecord]:
    outputs: dict[int, str] = dict(tx.rows("outputs", values))
    records = [AttemptRecord(*row) for row in tx.rows("attempts", values)]
    return [record._replace(output=outputs.get(record.token)) for record in records]


def _ended(values: dict[str, Any], tx: Transaction) -> list[EndedRecord]:
    """A union of scans that each end after ``limit`` rows: none walks over everything."""
    rows = tx.rows("done_attempts", {**values, "state": DONE}) + tx.rows("open_attempts", values)
    for state in (FAILED, DONE, CANCELLED, ABANDONED):
        rows += tx.rows("past_attempts", {**values, "state": state})
    found = [EndedRecord(*row) for row in rows]
    return sorted(found, key=lambda attempt: attempt.finished_at or 0, reverse=True)[: values["limit"]]


def _count(queue: str, final: bool, tx: Transaction) -> dict[TaskState, int]:
    def number(query: str, state: TaskState | None = None) -> int:
        return int(tx.rows(query, {"queue": queue, "state": state})[0][0])

    counts = dict.fromkeys(TaskState, 0)
    for state in (FAILED, DONE, CANCELLED, ABANDONED) if final else (FAILED,):
        counts[state] = number("count_ended", state)
    counts[PENDING] = number("count_claimable") - counts[FAILED]
    for word, count in tx.rows("count_held", {"queue": queue}):
        counts[TaskState(word)] = count
    return counts


_SCANS = {PENDING: "pending_ids", RESERVED: "held_ids", RUNNING: "held_ids"}
_WALK = 10_000
"""Ids that the first step of a list walks over: 0.3 ms on SQLite, 2 ms on MariaDB."""
_STRIDE = 4


def _list(values: dict[str, Any], tx: Transaction) -> list[TaskRecord]:
    state = values["state"]
    ids = _newest_ids(values, tx) if state in (None, PENDING) else _scan(values, [state], tx)
    return [TaskRecord(*row) for row in tx.rows("list", {"ids": tx.array(ids)})] if ids else []


def _newest_ids(values: dict[str, Any], tx: Transaction) -> list[int]:
    """The newest ids of a list that includes pending tasks, which no index has in the order of their ids.

    It walks down the primary key, in growing steps, until it has found enough tasks. If fewer tasks wait than the next
    step would walk over, it sorts those instead. So a list is slow only if both numbers are very large.
    """
    limit, state, walk = values["limit"], values["state"], _WALK
    before = min(values["before"], tx.rows("highest_id")[0][0] + 1)
    found: list[int] = []
    while before > 0 and len(found) < limit:
        rest = {**values, "before": before, "limit": limit - len(found)}
        found += [row[0] for row in tx.rows("newest_ids", {**rest, "floor": before - walk})]
        before -= walk
        if before > 0 and len(found) < limit and not tx.row("more_wait", {**values, "number": walk}):
            rest |= {"before": before, "limit": limit - len(found)}
            return found + _scan(rest, [state] if state else list(TaskState), tx)
        walk *= _STRIDE
    return found


def _scan(values: dict[str, Any], states: list[TaskState], tx: Transaction) -> list[int]:
    """The newest ids in these states: a union of scans by index. Waiting and held tasks are sorted."""
    ids: list[int] = []
    for state in states:
        ids += [row[0] for row in tx.rows(_SCANS.get(state, "ended_ids"), {**values, "state": state})]
    return sorted(ids, reverse=True)[: values["limit"]]

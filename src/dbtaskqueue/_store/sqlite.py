"""The store on one SQLite file: every verb of the contract as a short transaction."""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import SchemaError
from ..states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, RESERVED, RUNNING, TaskState
from ..url import Target
from . import queries
from .base import (
    AttemptRecord,
    Claim,
    End,
    Exchanged,
    Finding,
    Held,
    NewTask,
    RetryTime,
    Start,
    Store,
    TaskRecord,
    Verdict,
    WorkerRecord,
)
from .sqlite_connection import Connections
from .sqlite_health import findings
from .sqlite_wakeups import SqliteWakeups

SCHEMA_VERSION = 1
"""The version that this program creates and knows."""

_INLINE = 256
"""Characters of JSON up to which a value stays in the task's row; see dbtaskqueue_large."""
_CHUNK = 1000
_DAY = 86_400_000_000
_LAST_ID = 2**63 - 1

_sql = queries.load("sqlite")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class SqliteStore(Store):
    """A SQLite file in WAL mode; by default each commit is on the disk when it returns."""

    place_is_shared = True

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connections = Connections(target)
        self.max_payload = target.max_payload
        self.path = self._connections.path
        self.wakeups = SqliteWakeups(lambda: self._connections.ask("PRAGMA data_version"), f"{self.path}-wal")
        self.beater = str(Path(__file__).with_name("sqlite_beat.py")), {"path": self.path}

    # -- schema ------------------------------------------------------------------------------------

    def prepare(self, *, create: bool) -> None:
        try:
            self._connections.open(create=create)
        except FileNotFoundError:
            raise SchemaError(f"{self.path} does not exist; create it with: {self._migrate_command}") from None
        version, oldest = self._connections.read(_schema_version)
        if version < SCHEMA_VERSION and create:
            self.migrate()
        elif version < SCHEMA_VERSION:
            found = f"has schema version {version}" if version else "has no dbtaskqueue schema"
            raise SchemaError(
                f"{self.path} {found}, this program needs {SCHEMA_VERSION}; upgrade it with: {self._migrate_command}"
            )
        elif oldest > SCHEMA_VERSION:
            raise self._too_new(version, oldest)

    def migrate(self) -> tuple[int, int]:
        if not self._connections.is_open:
            self._connections.open(create=True)

        def run(connection: sqlite3.Connection) -> tuple[int, int]:
            version, oldest = _schema_version(connection)
            if version > SCHEMA_VERSION:
                return version, -oldest
            for script in queries.migrations("sqlite", SCHEMA_VERSION)[version:]:
                for statement in _statements(script):
                    connection.execute(statement)
            return version, SCHEMA_VERSION

        before, after = self._connections.write(run)
        if after < -SCHEMA_VERSION:
            raise self._too_new(before, -after)
        return before, max(after, before)

    @property
    def _migrate_command(self) -> str:
        return f"dbtaskqueue --url '{self._target.text}' migrate"

    def _too_new(self, version: int, oldest: int) -> SchemaError:
        return SchemaError(
            f"{self.path} has schema version {version}, which needs a program that knows version {oldest};"
            f" this one knows {SCHEMA_VERSION}: upgrade it with: pip install --upgrade dbtaskqueue"
        )

    # -- producers ---------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[NewTask]) -> list[int]:
        return self._connections.write(partial(_enqueue, tasks))

    # -- workers -----------------------------------------------------------------------------------

    def exchange(
        self, worker: int, *, starts: Sequence[Start] = (), ends: Sequence[End] = (), claim: Claim | None = None
    ) -> Exchanged:
        def run(connection: sqlite3.Connection) -> Exchanged:
            return Exchanged(
                [_start(connection, start) for start in starts],
                _end_all(connection, worker, ends),
                _claim(connection, worker, claim) if claim else [],
            )

        return self._connections.write(run)

    def next_due(self, queues: Sequence[str], *, even_paused: bool = False) -> int | None:
        def run(connection: sqlite3.Connection) -> int | None:
            every = [{"queue": queue, "even_paused": even_paused} for queue in queues]
            times = [connection.execute(_sql["next_due"], each).fetchone()[0] for each in every]
            return min((time for time in times if isinstance(time, int)), default=None)  # or nonsense, or None

        return self._connections.read(run)

    def register(self, worker: WorkerRecord) -> int:
        def run(connection: sqlite3.Connection) -> int:
            connection.execute(_sql["forget_lost"], {"before": worker.created_at - _DAY})
            return connection.execute(_sql["register"], worker._asdict()).lastrowid or 0

        return self._connections.write(run)

    def beat(self, worker: int) -> bool:
        return self._connections.write(lambda c: c.execute(_sql["beat"], {"worker": worker}).rowcount == 1)

    def deregister(self, worker: int) -> None:
        self._connections.write(lambda connection: connection.execute(_sql["deregister"], {"id": worker}).rowcount)

    def workers(self) -> list[WorkerRecord]:
        return self._connections.read(lambda c: [WorkerRecord(*row) for row in c.execute(_sql["workers"])])

    def held(self, worker: int) -> list[Held]:
        return self._connections.read(lambda c: [Held(*row) for row in c.execute(_sql["held"], {"worker": worker})])

    def rescue(self, worker: int | None, beat: int, error: str, now: int, retry_time: RetryTime) -> int | None:
        if worker is None and not self._connections.read(lambda c: c.execute(_sql["orphaning_workers"]).fetchall()):
            return 0

        def run(connection: sqlite3.Connection) -> int | None:
            if worker is None:
                lost = [row[0] for row in connection.execute(_sql["orphaning_workers"])]
            elif connection.execute(_sql["mark_lost"], {"worker": worker, "beat": beat, "now": now}).rowcount:
                lost = [worker]
            else:
                return None
            return sum(_give_back(connection, each, error, now, retry_time) for each in lost)

        return self._connections.write(run)

    # -- operators ---------------------------------------------------------------------------------

    def cancel(self, task: int, now: int) -> Verdict:
        return self._connections.write(partial(_change, _sql["cancel"], task, now))

    def retry(self, task: int, now: int) -> Verdict:
        def run(connection: sqlite3.Connection) -> Verdict:
            if connection.execute(_sql["key_is_taken"], {"id": task}).fetchone():
                return _standing(connection, task, stored=False)
            connection.execute(_sql["keep_done_attempt"], {"id": task})
            verdict = _change(_sql["retry"], task, now, connection)
            if verdict.stored:
                connection.execute(_sql["delete_result"], {"id": task})
            return verdict

        return self._connections.write(run)

    def purge(self, queue: str, now: int) -> int:
        highest = self._connections.read(lambda c: c.execute(_sql["highest_id"]).fetchone()[0])
        values = {"queue": queue, "highest": highest, "now": now, "limit": _CHUNK}

        def run(connection: sqlite3.Connection) -> int:
            connection.execute(_sql["purge_running_attempts"], values)
            held = connection.execute(_sql["purge_held"], values).rowcount
            return held + connection.execute(_sql["purge_claimable"], values).rowcount

        return sum(iter(lambda: self._connections.write(run), 0))

    def prune(self, queue: str, before: int, states: Iterable[TaskState]) -> int:
        return sum(self._prune(queue, before, state) for state in states)

    def _prune(self, queue: str, before: int, state: TaskState) -> int:
        values = {"queue": queue, "before": before, "state": state, "limit": _CHUNK, "after": 0}
        count = 0
        while ids := self._connections.read(partial(_ids, _sql["prunable"], values)):
            values["after"] = ids[-1]
            count += self._connections.write(partial(_delete, ids))
        return count

    def set_paused(self, queue: str, paused: bool) -> None:
        values = {"queue": queue, "paused": int(paused)}
        self._connections.write(lambda connection: connection.execute(_sql["set_paused"], values).rowcount)

    # -- looking -----------------------------------------------------------------------------------

    def get(self, task: int) -> TaskRecord | None:
        row = self._connections.read(lambda c: c.execute(_sql["get"], {"id": task}).fetchone())
        return TaskRecord(*row) if row else None

    def tasks(self, queue: str, state: TaskState | None, limit: int, before: int | None) -> list[TaskRecord]:
        values = {"queue": queue, "state": state, "limit": limit, "before": _LAST_ID if before is None else before}
        return self._connections.read(partial(_list, values))

    def attempts(self, task: int) -> list[AttemptRecord]:
        return self._connections.read(
            lambda c: [AttemptRecord(*row) for row in c.execute(_sql["attempts"], {"id": task})]
        )

    def count(self, queue: str, *, final: bool) -> dict[TaskState, int]:
        return self._connections.read(partial(_count, queue, final))

    def is_paused(self, queue: str) -> bool:
        return bool(self._connections.read(lambda c: c.execute(_sql["paused"], {"queue": queue}).fetchone()))

    def newest(self) -> tuple[int, int] | None:
        row = self._connections.read(lambda c: c.execute(_sql["newest"]).fetchone())
        return (row[0], row[1]) if row else None

    def hasten(self, now: int) -> int:
        return self._connections.write(lambda c: c.execute(_sql["hasten"], {"now": now}).rowcount)

    def findings(self) -> list[Finding]:
        version, oldest = self._connections.read(_schema_version)
        schema = Finding("schema", f"version {version}, for programs that know {oldest} or later")
        return [schema, *self._connections.read(partial(findings, self.path, self._target))]

    def rest(self) -> None:
        self._connections.rest()

    def close(self) -> None:
        self._connections.close()


def _schema_version(connection: sqlite3.Connection) -> tuple[int, int]:
    if not connection.execute(_sql["has_schema"]).fetchone():
        return 0, 0
    row = connection.execute(_sql["schema_version"]).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _statements(script: str) -> Iterable[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


# The parts of a write transaction. Each takes the connection last, so that partial() binds the rest.


def _enqueue(tasks: Sequence[NewTask], connection: sqlite3.Connection) -> list[int]:
    if len(tasks) == 1:
        return [_enqueue_one(tasks[0], connection)]
    first = int(connection.execute(_sql["next_task_id"]).fetchone()[0])
    ids = list(range(first, first + len(tasks)))
    rows = [{**task._asdict(), "id": number} for number, task in zip(ids, tasks, strict=True)]
    large = [
        _large(number, "payload", task.payload)
        for number, task in zip(ids, tasks, strict=True)
        if _is_large(task.payload)
    ]
    for row in rows:
        row["payload"] = _inline(row["payload"])
    connection.executemany(_sql["insert_task"], rows)
    connection.executemany(_sql["insert_large"], large)
    return ids


def _enqueue_one(task: NewTask, connection: sqlite3.Connection) -> int:
    values = task._asdict()
    if task.key is not None:
        taken = connection.execute(_sql["unfinished_with_key"], values).fetchone()
        if taken:
            return int(taken[0])
    values["payload"] = _inline(task.payload)
    number = connection.execute(_sql["insert_next_task"], values).lastrowid or 0
    if _is_large(task.payload):
        connection.execute(_sql["insert_large"], _large(number, "payload", task.payload))
    return number


def _is_large(value: str | None) -> bool:
    return value is not None and len(value) > _INLINE


def _inline(value: str | None) -> str | None:
    return None if value is None or len(value) > _INLINE else value


def _large(task: int, name: str, value: str) -> dict[str, object]:
    return {"task": task, "name": name, "value": value}


def _start(connection: sqlite3.Connection, start: Start) -> Verdict:
    if connection.execute(_sql["start"], start._asdict()).rowcount:
        return Verdict(True, RUNNING, start.token)
    return _standing(connection, start.id, stored=False)


def _end_all(connection: sqlite3.Connection, worker: int, ends: Sequence[End]) -> list[Verdict]:
    if len(ends) > 1 and all(end.begun_at is not None and end.verb == "finish" for end in ends):
        verdicts = _finish_together(connection, ends)
        if verdicts is not None:
            return verdicts
    return [_end(connection, worker, end) for end in ends]


def _finish_together(connection: sqlite3.Connection, ends: Sequence[End]) -> list[Verdict] | None:
    """A whole batch at once; None, and nothing done, where one of its claims is gone."""
    connection.execute("SAVEPOINT finish_together")
    large = [end for end in ends if _is_large(end.result)]
    rows = [(end.id, end.token, end.at, end.begun_at, _inline(end.result)) for end in ends]
    complete = connection.execute(_sql["finish_batch"], {"ends": _to_json(rows)}).rowcount == len(ends)
    if not complete:
        connection.execute("ROLLBACK TO finish_together")
    connection.execute("RELEASE finish_together")
    if not complete:
        return None
    for end in large:
        _store_large_result(connection, end)
    return [_DONE] * len(ends)


_DONE = Verdict(True, DONE, None)


def _end(connection: sqlite3.Connection, worker: int, end: End) -> Verdict:
    values = end._asdict()
    values["result"] = _inline(end.result)
    if end.verb == "finish":
        query = _sql["finish" if end.begun_at is None else "finish_shared"]
        if connection.execute(query, values).rowcount:
            _store_large_result(connection, end)
            return Verdict(True, DONE, end.token)
        return _standing(connection, end.id, stored=False)
    if end.begun_at is not None:
        _start(connection, Start(end.id, end.token, end.begun_at))
    if end.verb == "release" and connection.execute(_sql["release_reserved"], values).rowcount:
        return Verdict(True, PENDING, end.token)
    row = connection.execute(_sql["fail" if end.verb == "fail" else "release_running"], values).fetchone()
    if row is None:
        return _standing(connection, end.id, stored=False)
    state, number, started_at = row
    _record_attempt(connection, end, worker, number, started_at, "released" if state == PENDING else state)
    return Verdict(True, TaskState(state), end.token)


def _record_attempt(
    connection: sqlite3.Connection, end: End, worker: int | None, number: int, started_at: int | None, outcome: str
) -> None:
    connection.execute(
        _sql["insert_attempt"],
        {
            "task": end.id,
            "token": end.token,
            "number": number,
            "worker": worker,
            "started_at": started_at,
            "finished_at": end.at,
            "outcome": outcome,
            "error": end.error,
        },
    )


def _store_large_result(connection: sqlite3.Connection, end: End) -> None:
    if end.result is not None and _is_large(end.result):
        connection.execute(_sql["insert_large"], _large(end.id, "result", end.result))


def _claim(connection: sqlite3.Connection, worker: int, claim: Claim) -> list[TaskRecord]:
    records: list[TaskRecord] = []
    for queue in claim.queues:
        values = {"queue": queue, "worker": worker, "now": claim.now, "limit": claim.limit - len(records)}
        rows = json.loads(connection.execute(_sql["claimable"], values).fetchone()[0])
        if rows:
            rows.sort(key=_ORDER)
            values |= {
                "ids": _to_json([row[0] for row in rows]),
                "begin": int(claim.begin),
                "shared": int(claim.shared),
                "state": RUNNING if claim.begin else RESERVED,
            }
            connection.execute(_sql["claim"], values)
            records += [_claimed(connection, worker, claim, queue, row) for row in rows]
        if len(records) >= claim.limit:
            break
    return records


_ORDER = operator.itemgetter(1, 2, 0)  # rank, due, id


def _claimed(connection: sqlite3.Connection, worker: int, claim: Claim, queue: str, row: tuple[Any, ...]) -> TaskRecord:
    """The record of a task as it stands now, from how it was found."""
    number, rank, due, token, attempt, budget, base, solo, created, started, key, function, policy, payload = row
    if payload is None or attempt:  # a large payload, an earlier error: these are in other tables
        return TaskRecord(*connection.execute(_sql["get"], {"id": number}).fetchone())
    state = RESERVED
    if claim.begin:
        state, attempt, started = RUNNING, 1, claim.now
    return TaskRecord(
        number, queue, state, rank, due, token + 1, attempt, budget, base, worker, solo, 0, created, started,
        None, key, function, policy, payload, None, None,
    )  # fmt: skip


def _standing(connection: sqlite3.Connection, task: int, *, stored: bool) -> Verdict:
    row = connection.execute(_sql["standing"], {"id": task}).fetchone()
    return Verdict(stored, TaskState(row[0]), row[1]) if row else Verdict(False, None, None)


def _change(query: str, task: int, now: int, connection: sqlite3.Connection) -> Verdict:
    changed = connection.execute(query, {"id": task, "now": now}).rowcount
    return _standing(connection, task, stored=bool(changed))


def _give_back(connection: sqlite3.Connection, worker: int, error: str, now: int, retry_time: RetryTime) -> int:
    count = connection.execute(_sql["give_back_reserved"], {"worker": worker}).rowcount
    for row in connection.execute(_sql["lost_running"], {"worker": worker}).fetchall():
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
        connection.execute(_sql["give_back_running"], values)
        end = End("fail", record.id, record.token, now, error=error)
        outcome = "cancelled" if state == CANCELLED else "lost"
        _record_attempt(connection, end, worker, record.attempt, record.started_at, outcome)
        count += 1
    return count


def _ids(query: str, values: dict[str, Any], connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute(query, values)]


def _delete(ids: Sequence[int], connection: sqlite3.Connection) -> int:
    deleted = [task for task in ids if connection.execute(_sql["delete_task"], {"id": task}).rowcount]
    for task in deleted:
        connection.execute(_sql["delete_large"], {"task": task, "id": task})
        connection.execute(_sql["delete_attempts"], {"id": task})
    if deleted:
        connection.execute(_sql["raise_pruned"], {"id": max(deleted)})
    return len(deleted)


def _count(queue: str, final: bool, connection: sqlite3.Connection) -> dict[TaskState, int]:
    def number(query: str, state: TaskState | None = None) -> int:
        return int(connection.execute(_sql[query], {"queue": queue, "state": state}).fetchone()[0])

    counts = dict.fromkeys(TaskState, 0)
    for state in (FAILED, DONE, CANCELLED, ABANDONED) if final else (FAILED,):
        counts[state] = number("count_ended", state)
    counts[PENDING] = number("count_claimable") - counts[FAILED]
    for word, count in connection.execute(_sql["count_held"], {"queue": queue}):
        counts[TaskState(word)] = count
    return counts


def _list(values: dict[str, Any], connection: sqlite3.Connection) -> list[TaskRecord]:
    """A union of scans that each end after ``limit`` rows, never a sort of everything."""
    state, ids = values["state"], []
    for each in (FAILED, DONE, CANCELLED, ABANDONED):
        if state in (None, each):
            ids += _ids(_sql["ended_ids"], {**values, "state": each}, connection)
    if state in (None, RESERVED, RUNNING):
        ids += _ids(_sql["held_ids"], values, connection)
    if state in (None, PENDING):
        ids += _ids(_sql["pending_ids"], values, connection)
    newest = _to_json(sorted(ids, reverse=True)[: values["limit"]])
    return [TaskRecord(*row) for row in connection.execute(_sql["list"], {"ids": newest})]

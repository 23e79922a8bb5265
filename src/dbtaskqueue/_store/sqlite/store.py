"""The store on one SQLite file: what differs from other engines because there is one writer at a time."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ..._formats.url import Target
from ..._system.place import here, is_gone
from ...errors import SchemaError
from ...states import RESERVED, RUNNING
from .. import queries
from ..contract import Claim, End, Finding, NewTask, TaskRecord
from ..records import FOUND, picker
from ..verbs import SqlStore
from ..verbs.base import inline, insert_large, is_large
from .connections import SqliteConnections
from .health import findings
from .transaction import SqliteTransaction
from .wakeups import SqliteWakeups


class _Program(NamedTuple):
    """The process of a worker's row."""

    pid: int
    boot: str | None
    namespace: str | None
    started: int | None


class SqliteStore(SqlStore):
    """A SQLite file in WAL mode; by default each commit is on the disk when it returns."""

    place_is_shared = True

    def __init__(self, target: Target) -> None:
        self._sqlite = SqliteConnections(target)
        super().__init__(target, self._sqlite)
        self.path = self._sqlite.path
        self.wakeups = SqliteWakeups(lambda: self._sqlite.ask("data_version"), f"{self.path}-wal")
        self.beater = str(Path(__file__).with_name("beat.py")), {"path": self.path}

    def address(self, url: str) -> str:
        """Return the URL of the file's own path: the other process may be in another directory."""
        options = {**self._target.options, "max_payload": str(self.max_payload)}
        return f"sqlite:///{quote(self.path)}?{urlencode(options)}"

    # -- schema ------------------------------------------------------------------------------------

    def prepare(self, *, create: bool) -> None:
        try:
            self._sqlite.open(create=create)
        except FileNotFoundError:
            problem = f"{self.path} does not exist"
            raise SchemaError(
                f"{problem}; enqueue a task to create it, or name another database with --url or $DBTASKQUEUE_URL",
                problem,
            ) from None
        if create and self._versions()[0] < self.schema_version:
            self.migrate()
        self._check_schema(self.path)

    def migrate(self) -> tuple[int, int]:
        if not self._sqlite.is_open:
            self._sqlite.open(create=True)

        def run(tx: SqliteTransaction) -> tuple[int, int]:
            version, oldest = _versions(tx)
            if 0 < version < self.oldest:
                self._refuse_running_programs(tx)
            for statement in self.upgrade(version):
                tx.connection.execute(statement)
            return version, oldest

        before, oldest = self._sqlite.write(run)
        if oldest > self.schema_version:
            raise self._too_new(self.path, before, oldest)
        return before, max(before, self.schema_version)

    def _refuse_running_programs(self, tx: SqliteTransaction) -> None:
        """Raise SchemaError if a worker of an earlier version is alive.

        It does not check the schema again. It would take the missing columns for an outage, and could not store how its
        tasks ended, so they would run a second time.
        """
        programs = [_Program(*row) for row in tx.rows("programs")]
        if pids := [str(program.pid) for program in programs if is_gone(program, here()) is False]:
            processes = "process" if len(pids) == 1 else "processes"
            raise SchemaError(
                f"{self.path} is used by a running program of an earlier version ({processes} {', '.join(pids)}):"
                " stop it, then start this one again"
            )

    def upgrade(self, version: int) -> list[str]:
        scripts = queries.migrations("sqlite", self.schema_version)[version:]
        return [statement for script in scripts for statement in script]

    def missing_statements(self, since: int | None = None) -> list[str]:
        if since is None:
            try:
                self._sqlite.open(create=False)
            except FileNotFoundError:
                since = 0
        return super().missing_statements(since)

    def _versions(self) -> tuple[int, int]:
        return self._sqlite.read(_versions)

    # -- producers ---------------------------------------------------------------------------------

    def _insert(self, tx: SqliteTransaction, tasks: Sequence[NewTask]) -> list[int]:
        if len(tasks) == 1:
            [task] = tasks
            if not is_large(task.payload):
                return [tx.insert(task)]
            ids = [tx.insert(task._replace(payload=None))]  # type: ignore[arg-type]
        else:
            first = int(tx.rows("next_task_id")[0][0])
            ids = list(range(first, first + len(tasks)))
            small = [task._replace(payload=None) if is_large(task.payload) else task for task in tasks]  # type: ignore[arg-type]
            tx.insert_many(zip(ids, small, strict=True))
        insert_large(tx, ids, tasks)
        return ids

    def _borrow(self, connection: object, *, reads: bool = False) -> SqliteTransaction:
        return self._sqlite.borrow(connection, reads=reads)

    def _delete(self, tx: SqliteTransaction, ids: Sequence[int]) -> list[int]:
        tx.change("raise_pruned", {"id": max(ids)})
        return super()._delete(tx, ids)

    # -- workers -----------------------------------------------------------------------------------

    def _finish_together(self, tx: SqliteTransaction, ends: Sequence[End]) -> bool:
        rows: list[tuple[object, ...]]
        if ends[0].flow or any(end.cpu is not None or end.memory is not None for end in ends):
            query = "finish_parents" if ends[0].flow else "finish_batch_measured"
            rows = [
                (end.id, end.token, end.at, end.started_at, inline(end.result), end.cpu, end.memory) for end in ends
            ]
        else:
            query = "finish_batch"
            rows = [(end.id, end.token, end.at, end.started_at, inline(end.result)) for end in ends]
        complete = tx.change_together(query, rows) == len(ends)
        large = [{"task": end.id, "token": end.token, "value": end.result} for end in ends if is_large(end.result)]
        if large:
            tx.change_each("insert_large_result", large)
        return complete

    def _claim(self, tx: SqliteTransaction, worker: int, claim: Claim) -> list[TaskRecord]:
        records: list[TaskRecord] = []
        for queue in claim.queues:
            values: dict[str, Any] = {"queue": queue, "worker": worker, "now": claim.now}
            values |= {"limit": claim.limit - len(records), "commands": int(claim.commands)}
            rows = json.loads(tx.rows("claimable", values)[0][0])
            if rows:
                rows.sort(key=_ORDER)
                values |= {"start": int(claim.start), "batched": int(claim.batched)}
                values["state"] = RUNNING if claim.start else RESERVED
                tx.change_together("claim", [(row[_ID],) for row in rows], values)
                records += _claimed(tx, worker, claim, queue, rows)
            if len(records) >= claim.limit:
                break
        return records

    # -- copying -----------------------------------------------------------------------------------

    def _highest_id(self, tx: SqliteTransaction) -> int:
        return int(tx.rows("next_task_id")[0][0]) - 1

    def _use_no_id_up_to(self, tx: SqliteTransaction, highest: int) -> None:
        tx.change("raise_pruned", {"id": highest})

    # -- health ------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        own = self._sqlite.read(lambda tx: findings(self.path, self._sqlite.synchronous, tx.connection))
        return [self._schema_finding(), *own]


_ORDER = operator.itemgetter(*map(FOUND.index, ("rank", "due", "id")))
_ID, _TOKEN, _ATTEMPT, _PAYLOAD = map(FOUND.index, ("id", "token", "attempt", "payload"))
_DEFAULTS = {**dict.fromkeys(TaskRecord._fields), **TaskRecord._field_defaults, "cancel_requested": 0}
_OTHERS = {name: value for name, value in _DEFAULTS.items() if name not in FOUND}
_RESERVED = (*FOUND, "token", *_OTHERS, "queue", "worker", "state")
_pick_reserved = picker(TaskRecord, _RESERVED)
_pick_started = picker(TaskRecord, (*_RESERVED, "attempt", "started_at"))
_new_record = partial(tuple.__new__, TaskRecord)


def _claimed(tx: SqliteTransaction, worker: int, claim: Claim, queue: str, rows: list[list[Any]]) -> list[TaskRecord]:
    """Return the records of claimed tasks. ``rows``: the tasks as they were before the claim."""
    pick, last = _pick_reserved, (*_OTHERS.values(), queue, worker, RESERVED)
    if claim.start:
        pick, last = _pick_started, (*_OTHERS.values(), queue, worker, RUNNING, 1, claim.now)
    return [
        TaskRecord(*tx.rows("get", {"id": row[_ID]})[0])
        if row[_PAYLOAD] is None or row[_ATTEMPT]  # a large payload and an earlier error are in other tables
        else _new_record(pick((*row, row[_TOKEN] + 1, *last)))
        for row in rows
    ]


def _versions(tx: SqliteTransaction) -> tuple[int, int]:
    if not tx.row("has_schema"):
        return 0, 0
    row = tx.row("schema_version")
    return (int(row[0]), int(row[1])) if row else (0, 0)

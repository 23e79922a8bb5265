"""The store on a PostgreSQL schema: what differs because round trips cost time, and to wake waiting workers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..._formats.url import Target
from ...errors import ConfigurationError, SchemaError, StoreUnavailable
from ...states import RESERVED, RUNNING
from .. import queries
from ..connections import Values
from ..contract import Claim, End, Exchanged, Finding, NewTask, Note, Start, TaskRecord
from ..records import NOT_OF_A_CLAIM
from ..verbs import SqlStore
from ..verbs.base import inline, is_large, is_soon, soon_after, wakes
from ..verbs.claims import finish_verdicts, in_order, unstored
from .arrays import numbers, numbers_if_any, texts
from .connections import PostgresqlConnections, PostgresqlLink
from .health import findings
from .scanning import BEGIN, PAGE, Scan
from .wakeups import PostgresqlWakeups

_DEAD_WAITERS = 10_000
"""The most rows of dead waiters that are removed with each lost worker."""
_SCHEMA = re.compile(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)


class PostgresqlStore(SqlStore):
    """A schema in a PostgreSQL database, which contains only the tables of the queue."""

    place_is_shared = False
    _from_the_start = BEGIN._asdict()

    def __init__(self, target: Target) -> None:
        self.schema = target.options.get("schema", "dbtaskqueue")
        if not _SCHEMA.fullmatch(self.schema):
            raise ConfigurationError(
                f"{target.text}: a schema's name must be letters, digits and '_', not {self.schema!r}"
            )
        self._given = {"schema": f'"{self.schema}".', "schema_name": f'"{self.schema}"'}
        sql = queries.pyformat(queries.load("postgresql", self._given))
        self._postgresql = PostgresqlConnections(target, sql)
        super().__init__(target, self._postgresql)
        self._scans: defaultdict[str, Scan] = defaultdict(Scan)
        self.wakeups = PostgresqlWakeups(self._postgresql)
        self.beater = (
            str(Path(__file__).with_name("beat.py")),
            {"parameters": self._postgresql.parameters, "statement": sql["beat"]},
        )

    # -- schema ------------------------------------------------------------------------------------

    def prepare(self, *, create: bool) -> None:
        try:
            if create and self._versions() == (0, 0):
                self.migrate()
            self._check_schema(self._name)
        except StoreUnavailable as refused:
            if not self._postgresql.is_forbidden(refused.__cause__):
                raise
            role, grants = self._connections.query("grants_to_use", {"schema": self.schema})[0]
            why = f"role {role} may not use it; let an administrator run: {grants}"
            raise SchemaError(f"{self._name}: {why}") from None

    def migrate(self) -> tuple[int, int]:
        def run(link: PostgresqlLink) -> tuple[int, int]:
            link.rows("lock_schema", {"table": self._table("schema")})
            version, oldest = self._read_versions(link)
            for statement in self.upgrade(version):
                link.connection.execute(statement.encode())
            return version, oldest

        try:
            before, oldest = self._connections.write(run)
        except StoreUnavailable as refused:
            if not self._postgresql.is_forbidden(refused.__cause__):
                raise
            role, grant = self._connections.query("grant_to_create")[0]
            raise self._may_not_create(self._name, f"role {role}", grant) from None
        if oldest > self.schema_version:
            raise self._too_new(self._name, before, oldest)
        return before, max(before, self.schema_version)

    def upgrade(self, version: int) -> list[str]:
        scripts = queries.migrations("postgresql", self.schema_version, self._given)[version:]
        return [statement for script in scripts for statement in script]

    @property
    def _name(self) -> str:
        return f"schema {self.schema} of {self._target.text}"

    def _table(self, name: str) -> str:
        return f'"{self.schema}".dbtaskqueue_{name}'

    def _versions(self) -> tuple[int, int]:
        return self._connections.read(self._read_versions)

    def _read_versions(self, link: PostgresqlLink) -> tuple[int, int]:
        row = link.row("schema_version") if link.rows("has_schema", {"name": self.schema}) else None
        return (int(row[0]), int(row[1])) if row else (0, 0)

    # -- producers ---------------------------------------------------------------------------------

    def _is_one_statement(self, tasks: Sequence[NewTask]) -> bool:
        return True

    def _store(self, tasks: Sequence[NewTask], link: PostgresqlLink) -> list[int]:
        soon = is_soon(tasks[0].due, tasks[0].created_at)
        return self._store_new(link, tasks, wake=wakes(tasks) if soon else 0)

    def _store_new(self, link: PostgresqlLink, tasks: Sequence[NewTask], *, wake: int | None) -> list[int]:
        first = tasks[0]
        payloads, larges = _split([task.payload for task in tasks])
        values = first._asdict() | {"wake": wake}
        if len(tasks) == 1:
            values |= {"payload": payloads[0], "large": larges[0]}
            return [row[0] for row in link.rows("enqueue_one", values)]
        values |= {"payloads": link.texts(payloads), "larges": link.texts(larges), "table": self._table("task")}
        return [row[0] for row in link.rows("enqueue_many", values)]

    def _insert(self, tx: PostgresqlLink, tasks: Sequence[NewTask]) -> list[int]:
        return self._store_new(tx, tasks, wake=0)

    def _wake(self, tx: PostgresqlLink, queue: str, tasks: int | None) -> None:
        # a row deleted by a user's transaction stays locked until it ends, and no other sender could wake its waiter
        tx.rows("notify" if tx.is_borrowed else "wake", {"queue": queue, "wake": tasks})

    def _wake_for(self, tx: PostgresqlLink, tasks: Sequence[int], now: int) -> None:
        if tasks:
            tx.rows("wake_for", {"ids": tx.array(tasks), "soon": soon_after(now)})

    def _forget_dead_waiters(self, tx: PostgresqlLink) -> None:
        tx.change("forget_dead_waiters", {"limit": _DEAD_WAITERS})

    def _borrow(self, connection: object, *, reads: bool = False) -> PostgresqlLink:
        link = self._postgresql.borrow(connection, reads=reads)
        if not self._postgresql.belongs_here(link, self.schema):
            raise ConfigurationError(f"connection: belongs to a different database than {self._name}")
        return link

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
        if starts or notes or claim is None or len(claim.queues) != 1 or not all(map(_is_plain_finish, ends)):
            return super().exchange(worker, starts=starts, notes=notes, ends=ends, claim=claim)

        def run(link: PostgresqlLink) -> tuple[Exchanged, bool]:
            complete, claimed = self._exchange(link, worker, ends, claim, claim.queues[0], claim.limit)
            return Exchanged([], finish_verdicts(link, ends, complete=complete), claimed), complete

        exchanged, complete = self._connections.write(run, alone=True)
        return exchanged if complete else self._end_rest(worker, ends, exchanged)

    def _end_rest(self, worker: int, ends: Sequence[End], exchanged: Exchanged) -> Exchanged:
        """End tasks that got children after they were claimed: this needs later statements, in a transaction."""
        rest = unstored(ends, exchanged.ended)
        if not rest:
            return exchanged
        try:
            later = super().exchange(worker, ends=[ends[index]._replace(flow=1) for index in rest])
        except StoreUnavailable as error:  # the claim is stored
            raise StoreUnavailable(str(error), maybe_done=True) from error
        verdicts = list(exchanged.ended)
        for index, verdict in zip(rest, later.ended, strict=True):
            verdicts[index] = verdict
        return exchanged._replace(ended=verdicts, released=later.released)

    def _exchange(
        self, link: PostgresqlLink, worker: int, ends: Sequence[End], claim: Claim, queue: str, limit: int
    ) -> tuple[bool, list[TaskRecord]]:
        values = {
            "queue": queue,
            "worker": worker,
            "now": claim.now,
            "limit": limit,
            "start": int(claim.start),
            "batched": int(claim.batched),
            "commands": int(claim.commands),
            "state": RUNNING if claim.start else RESERVED,
        }
        scan = self._scans[queue]
        started = scan.start()
        values |= {"index": self._table("claimable"), "per_page": PAGE, **started._asdict()}
        rows = link.rows("exchange", {**values, **_endings(ends)})
        claimed = in_order([_new_record(row[2:] + _OF_A_CLAIM) for row in rows if row[2] is not None])
        scan.learn(started, rows[0][1], claimed)
        if not claimed and started != BEGIN:
            claimed = self._exchange(link, worker, [], claim, queue, limit)[1]
        return rows[0][0] == len(ends), claimed

    def _claim(self, tx: PostgresqlLink, worker: int, claim: Claim) -> list[TaskRecord]:
        records: list[TaskRecord] = []
        for queue in claim.queues:
            records += self._exchange(tx, worker, [], claim, queue, claim.limit - len(records))[1]
            if len(records) >= claim.limit:
                break
        return records

    def _finish_together(self, tx: PostgresqlLink, ends: Sequence[End]) -> bool:
        query = "finish_parents" if ends[0].flow else "finish_batch"
        return bool(tx.rows(query, _endings(ends))[0][0] == len(ends))

    # -- copying -----------------------------------------------------------------------------------

    def _highest_id(self, tx: PostgresqlLink) -> int:
        return int(tx.rows("highest_used", {"table": self._table("task")})[0][0])

    def _use_no_id_up_to(self, tx: PostgresqlLink, highest: int) -> None:
        tx.rows("raise_sequence", {"table": self._table("task"), "highest": highest})
        workers = [row[0] for row in tx.rows("workers")]
        tx.rows("raise_sequence", {"table": self._table("worker"), "highest": max(workers, default=0)})
        for table in ("action", "operation"):
            rows = tx.rows(f"{table}s", {**_NEWEST, "before": 2**63 - 1})
            tx.rows("raise_sequence", {"table": self._table(table), "highest": rows[0][0] if rows else 0})

    # -- health ------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        return [self._schema_finding(), *self._connections.read(partial(findings, self._postgresql, self.schema))]


_NEWEST = {"limit": 1, "who": None, "verb": None, "queue": None}
_new_record = partial(tuple.__new__, TaskRecord)  # takes a third of the time of calling the class
_OF_A_CLAIM = tuple(TaskRecord._field_defaults[name] for name in NOT_OF_A_CLAIM)


def _is_plain_finish(end: End) -> bool:
    return end.verb == "finish" and not end.flow


def _split(values: Sequence[str | None]) -> tuple[list[str | None], list[str | None]]:
    """Return the values for the tasks' own rows, and those that are too large for them."""
    return [inline(value) for value in values], [value if is_large(value) else None for value in values]


def _endings(ends: Sequence[End]) -> Values:
    """Return finishes as columns."""
    results, larges = _split([end.result for end in ends])
    return {
        "end_ids": numbers([end.id for end in ends]),
        "tokens": numbers([end.token for end in ends]),
        "ats": numbers([end.at for end in ends]),
        "started_ats": numbers([end.started_at for end in ends]),
        "results": texts(results),
        "larges": texts(larges),
        "cpus": numbers_if_any([end.cpu for end in ends]),
        "memories": numbers_if_any([end.memory for end in ends]),
    }

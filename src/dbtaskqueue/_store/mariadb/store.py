"""The store in a MariaDB database: what differs because round trips cost time, and UPDATE returns no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..._formats.url import Target
from ...errors import ConfigurationError, StoreUnavailable
from ...states import RESERVED, RUNNING
from .. import queries
from ..connections import Row, Values
from ..contract import Claim, End, Finding, NewTask, TaskRecord
from ..polling import PollingWakeups
from ..server import TIMEOUT
from ..verbs import SqlStore
from ..verbs.base import inline, insert_large, is_large
from .connections import MariadbConnections, MariadbLink
from .health import findings

_TASKS = 500
"""The most rows in one INSERT: about 600 KB at most, far below any max_allowed_packet that we accept."""
_ENDS = 100
"""The most ends in one UPDATE, which searches a list of all of them for each row."""
_NAMES = 20
"""The most names of queues in one query for the queues after them. It has six parts for each name."""
_BELOW_ALL_RANKS = -(2**31)
_NEW_VERSION = "INSERT INTO dbtaskqueue_schema "
"""How the statement in a migration starts that stores the version of a new schema."""


class MariadbStore(SqlStore):
    """The tables with the prefix ``dbtaskqueue_`` in a MariaDB database."""

    place_is_shared = False

    def __init__(self, target: Target) -> None:
        sql = queries.with_backticks(queries.pyformat(queries.load("mariadb")))
        self._mariadb = MariadbConnections(target, sql)
        super().__init__(target, self._mariadb)
        self._polling = PollingWakeups()
        self.wakeups = self._polling
        self._known_queues: list[str] = []
        options = {**self._mariadb.options, "statement": sql["beat"]}
        self.beater = str(Path(__file__).with_name("beat.py")), options

    # -- schema ------------------------------------------------------------------------------------

    def prepare(self, *, create: bool) -> None:
        if create and self._versions() == (0, 0):
            self.migrate()
        self._check_schema(self._target.text)

    def migrate(self) -> tuple[int, int]:
        try:
            before, oldest = self._connections.write(self._migrate, alone=True)
        except StoreUnavailable as refused:
            if not self._mariadb.is_forbidden(refused.__cause__):
                raise
            user, grant = self._connections.query("grant_to_create")[0]
            raise self._may_not_create(self._target.text, f"user {user}", grant) from None
        if oldest > self.schema_version:
            raise self._too_new(self._target.text, before, oldest)
        return before, max(before, self.schema_version)

    def _migrate(self, link: MariadbLink) -> tuple[int, int]:
        """Run the statements. Each commits by itself; after an interruption, the next migration runs them again."""
        if link.rows("lock_schema", {"timeout": TIMEOUT / 2}) != [(1,)]:
            raise StoreUnavailable(f"{self._target.text}: another process has been changing the schema for a long time")
        try:
            version, oldest = self._read_versions(link)
            for statement in self.upgrade(version):
                link.run(statement)
            return version, oldest
        finally:
            link.rows("unlock_schema")

    def upgrade(self, version: int) -> list[str]:
        *earlier, last = queries.migrations("mariadb", self.schema_version)[version:] or [[]]
        # A new schema gets the row with its version last, since other processes and nodes see every step.
        steps = [statement for script in earlier for statement in script if not statement.startswith(_NEW_VERSION)]
        return [*steps, *last]

    def _versions(self) -> tuple[int, int]:
        return self._connections.read(self._read_versions)

    def _read_versions(self, link: MariadbLink) -> tuple[int, int]:
        row = link.row("schema_version") if link.rows("has_schema") else None
        return (int(row[0]), int(row[1])) if row else (0, 0)

    # -- producers ---------------------------------------------------------------------------------

    def _is_one_statement(self, tasks: Sequence[NewTask]) -> bool:
        return len(tasks) <= _TASKS and not any(is_large(task.payload) for task in tasks)

    def _insert(self, tx: MariadbLink, tasks: Sequence[NewTask]) -> list[int]:
        ids: list[int] = []
        for some in (tasks[at : at + _TASKS] for at in range(0, len(tasks), _TASKS)):
            values = some[0]._replace(payload="")._asdict()
            values |= {f"payload_{n}": inline(task.payload) for n, task in enumerate(some)}
            rows = tx.rows_unless_taken("insert_task", values, times=len(some))
            if not rows:
                return []
            ids += [row[0] for row in rows]
        insert_large(tx, ids, tasks)
        return ids

    def _with_key(self, tx: MariadbLink, task: NewTask) -> Row | None:
        # uses our own connection: the snapshot of a user's transaction may be too old to see the other task
        return next(iter(self._connections.query("unfinished_with_key", task._asdict())), None)

    def _borrow(self, connection: object, *, reads: bool = False) -> MariadbLink:
        link = self._mariadb.borrow(connection, reads=reads)
        if not self._mariadb.belongs_here(link):
            raise ConfigurationError(f"connection: belongs to a different database than {self._target.text}")
        return link

    def get(self, task: int, connection: object = None) -> TaskRecord | None:
        record = super().get(task, connection)
        if record is None and connection is not None:  # the task is newer than the snapshot of the user's transaction
            return super().get(task)
        return record

    # -- workers -----------------------------------------------------------------------------------

    def next_due(self, queues: Sequence[str], *, commands: bool = True) -> int | None:
        find = partial(_firsts, self._connections.query, commands=commands)
        return min((first.due for queue in queues for first in find(queue)), default=None)

    def _claim(self, tx: MariadbLink, worker: int, claim: Claim) -> list[TaskRecord]:
        records: list[TaskRecord] = []
        for queue, first in _firsts_due(tx, claim):
            if not records and not tx.rows("lock_worker", {"worker": worker}):
                return []
            records += _reserve(tx, worker, claim, queue, first, claim.limit - len(records))
            if len(records) >= claim.limit:
                break
        if records:
            self._polling.poll_often()
        return records

    def _finish_together(self, tx: MariadbLink, ends: Sequence[End]) -> bool:
        count = 0
        for some in (ends[at : at + _ENDS] for at in range(0, len(ends), _ENDS)):
            values: dict[str, object] = {"flow": some[0].flow}
            measured = any(end.cpu is not None or end.memory is not None for end in some)
            for n, end in enumerate(some):
                values |= {f"id_{n}": end.id, f"token_{n}": end.token, f"at_{n}": end.at}
                values |= {f"started_at_{n}": end.started_at, f"result_{n}": inline(end.result)}
                if measured:
                    values |= {f"cpu_{n}": end.cpu, f"memory_{n}": end.memory}
            query = "finish_batch_measured" if measured else "finish_batch"
            count += tx.change(query, values, times=len(some))
        for end in ends:
            if is_large(end.result):
                tx.change("insert_large_result", {"task": end.id, "token": end.token, "value": end.result})
        return count == len(ends)

    # -- copying -----------------------------------------------------------------------------------

    def _highest_id(self, tx: MariadbLink) -> int:
        return int(tx.rows("highest_used")[0][0])

    def _use_no_id_up_to(self, tx: MariadbLink, highest: int) -> None:
        if highest > 0:
            tx.change("raise_auto_increment", {"next": highest + 1})

    # -- queues ------------------------------------------------------------------------------------

    def queues(self) -> list[str]:
        found, asked = set[str](), set[str]()
        unasked = ["", *self._known_queues]  # then one round trip is enough, unless there are new queues
        while unasked:
            for some in (unasked[at : at + _NAMES] for at in range(0, len(unasked), _NAMES)):
                found |= self._queues_after(some)
            asked.update(unasked)
            unasked = sorted(found - asked)
        self._known_queues = sorted(found)
        return list(self._known_queues)

    def _queues_after(self, names: Sequence[str]) -> set[str]:
        """Return the next queue after each of these names in each index, and those that are held or paused."""
        values = {f"after_{n}": name for n, name in enumerate(names)}
        rows = self._mariadb.ask(lambda link: link.rows("queues", values, times=len(names)))
        return {name for (name,) in rows if name is not None}

    # -- listing -----------------------------------------------------------------------------------

    def waiting_since(self, queue: str, now: int) -> int | None:
        firsts = _firsts(self._connections.query, queue, even_paused=True, commands=True)
        due = [{"queue": queue, "now": now, "rank": first.rank} for first in firsts if first.due <= now]
        return min((self._connections.query("waiting_since", values)[0][0] or now for values in due), default=None)

    def findings(self) -> list[Finding]:
        return [self._schema_finding(), *self._connections.read(findings)]


class _First(NamedTuple):
    """The first waiting task of a rank (a priority with its sign changed)."""

    rank: int
    due: int
    id: int


def _firsts(
    ask: Callable[[str, Values], list[Row]], queue: str, *, even_paused: bool = False, commands: bool
) -> Iterator[_First]:
    """Yield the first waiting task of each rank of the queue. Each takes a round trip."""
    values = {"queue": queue, "even_paused": int(even_paused), "commands": int(commands)}
    rank = _BELOW_ALL_RANKS
    while rows := ask("first_of_rank", {**values, "rank": rank}):
        yield _First(*rows[0])
        rank = rows[0][0]


def _firsts_due(tx: MariadbLink, claim: Claim) -> Iterator[tuple[str, _First]]:
    for queue in claim.queues:
        for first in _firsts(tx.rows, queue, commands=claim.commands):
            if first.due <= claim.now:
                yield queue, first


def _reserve(tx: MariadbLink, worker: int, claim: Claim, queue: str, first: _First, limit: int) -> list[TaskRecord]:
    """Reserve tasks of a rank, without those that another worker is reserving; return their new records."""
    place = {"rank": first.rank, "first_due": first.due, "first": first.id}
    values = {"queue": queue, **place, "now": claim.now, "limit": limit, "commands": int(claim.commands)}
    found = [TaskRecord(*row) for row in tx.rows("claimable", values)]
    if not found:
        return []
    start, state = int(claim.start), RUNNING if claim.start else RESERVED
    values |= {"worker": worker, "start": start, "batched": int(claim.batched), "state": state}
    tx.change("claim", {**values, "ids": tx.array([record.id for record in found])})
    return [
        record._replace(
            state=state.value,
            worker=worker,
            token=record.token + 1,
            attempt=record.attempt + start,
            started_at=claim.now if start else record.started_at,
        )
        for record in found
    ]

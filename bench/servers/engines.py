"""The servers of a run. They start when first needed, are durable, have default settings, and end with the run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dbtaskqueue import TaskQueue

from .. import databases
from ..processes import cpu_seconds, family

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer

_CHUNK = 10_000
_ROWS = 50_000
_QUOTES = '"`'
_TICKS = 100
_DEFAULTS = {
    "innodb-buffer-pool-size": "128M",
    "innodb-log-file-size": "96M",
    "max-connections": "151",
    "innodb-buffer-pool-dump-at-shutdown": "ON",
    "innodb-buffer-pool-load-at-startup": "ON",
}
"""MariaDB's defaults; the tests' servers have smaller values."""


class Engine(ABC):
    """One server, its databases, and the costs of its processes."""

    name: str
    quote = '"'

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._templates: dict[object, str] = {}

    @property
    @abstractmethod
    def server(self) -> Any:
        """The server, of the tests' classes; it is started by the first access."""

    @property
    @abstractmethod
    def settings(self) -> str:
        """Its version and important settings, for the header."""

    @abstractmethod
    def run(self, statement: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as an administrator, in autocommit."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Write out pending pages, so that a measurement does not pay for the previous one."""

    @abstractmethod
    def hold_snapshot(self, url: str) -> contextlib.AbstractContextManager[None]:
        """Keep a transaction with a snapshot open for the duration of the block."""

    @abstractmethod
    def statements(self, urls: list[str], seconds: float) -> list[float]:
        """Return the statements per second in each database (or their mean) while only workers use it."""

    @abstractmethod
    def multiply(self, database: str, model: int, copies: int, step: int) -> None:
        """Copy a task this many times, each due ``step`` microseconds after the previous one; then tidy up."""

    @abstractmethod
    def size(self, database: str) -> int:
        """Return the bytes of our tables and their indexes."""

    @abstractmethod
    def rewrite(self, database: str) -> None:
        """Rewrite our tables and indexes without dead rows."""

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        """Yield the URL of an empty database, which is dropped afterwards."""
        name = f"fresh_{next(self._numbers)}"
        self.server.create_database(name)
        try:
            yield self.server.url(name)
        finally:
            self.server.drop_database(name)

    def _columns(self, database: str, which: str) -> list[str]:
        asked = "SELECT column_name FROM information_schema.columns WHERE table_name = 'dbtaskqueue_task' AND "
        return [f"{self.quote}{row[0]}{self.quote}" for row in self.run(asked + which, database=database)]

    def cpu_seconds(self) -> float:
        """Return the user and system time of all processes of the server so far, including ended ones."""
        alive = 0.0
        for pid in family(self.server.pid):
            with contextlib.suppress(OSError):
                alive += cpu_seconds([pid])
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return alive + (int(fields[13]) + int(fields[14])) / _TICKS


class Postgresql(Engine):
    """PostgreSQL. It copies a template as fast as it creates an empty database."""

    name = "PostgreSQL"

    def __init__(self, **settings: str) -> None:
        super().__init__()
        self._settings = {"max_connections": "100", **settings}

    @functools.cached_property
    def server(self) -> PostgresServer:
        """See the base class."""
        return _started(PostgresServer(durable=True, settings=self._settings))

    @property
    def settings(self) -> str:
        """See the base class."""
        names = "server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "max_connections"
        values = {name: self.run(f"SHOW {name}")[0][0] for name in names}
        version = values.pop("server_version")
        return (
            f"{version}, " + ", ".join(f"{name}={value}" for name, value in values.items()) + ", else at its defaults"
        )

    def run(self, statement: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """See the base class."""
        with self.server.connect(database or "postgres") as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def checkpoint(self) -> None:
        """See the base class."""
        self.run("CHECKPOINT")

    @contextlib.contextmanager
    def hold_snapshot(self, url: str) -> Iterator[None]:
        """See the base class."""
        with self.server.connect(database_of(url)) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT count(*) FROM pg_class")
            yield
            connection.execute("ROLLBACK")

    def statements(self, urls: list[str], seconds: float) -> list[float]:
        """Count the lines in the server's log, by the pids that they start with."""
        names = [database_of(url) for url in urls]
        self.server.configure(log_statement="all")
        try:
            start = len(self.server.log())
            time.sleep(seconds)
            text = self.server.log()[start:]
        finally:
            self.server.configure(log_statement="none")
        activity = self.run("SELECT datname, pid FROM pg_stat_activity WHERE datname IS NOT NULL")
        lines = Counter(int(pid) for pid in re.findall(r"\[(\d+)\] (?:LOG|FATAL):", text))
        return [sum(lines[pid] for database, pid in activity if database == name) / seconds for name in names]

    def multiply(self, database: str, model: int, copies: int, step: int) -> None:
        """See the base class. It also does what autovacuum would do within a minute."""
        table = "dbtaskqueue.dbtaskqueue_task"
        columns = self._columns(database, "table_schema = 'dbtaskqueue'")
        highest = self.run(f"SELECT max(id) FROM {table}", database=database)[0][0]
        self.run(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {_copied(columns, step, highest)}"
            f" FROM generate_series(1, CAST({copies} AS bigint)) AS numbers(number), {table} AS model"
            f" WHERE model.id = {model}",
            database=database,
        )
        self.run(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}", database=database)
        self.run(f"VACUUM ANALYZE {table}", database=database)

    def size(self, database: str) -> int:
        """See the base class."""
        asked = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE schemaname = 'dbtaskqueue'"
        return int(self.run(asked, database=database)[0][0])

    def rewrite(self, database: str) -> None:
        """See the base class."""
        self.run("VACUUM FULL", database=database)

    @contextlib.contextmanager
    def filled(self, what: object, fill: Callable[[str], object]) -> Iterator[str]:
        """Yield the URL of a database that ``fill(url)`` has filled: made once for each ``what``, then copied.

        It also does what autovacuum would do within a minute.
        """
        if what not in self._templates:
            template = f"template_{len(self._templates)}"
            self.server.create_database(template)
            fill(self.server.url(template))
            self.run("VACUUM ANALYZE", database=template)
            self._templates[what] = template
        name = f"copy_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {self._templates[what]} STRATEGY file_copy")
        try:
            yield self.server.url(name)
        finally:
            self.server.drop_database(name)


class Mariadb(Engine):
    """MariaDB."""

    name = "MariaDB"
    quote = "`"

    @functools.cached_property
    def server(self) -> MariaDBServer:
        """See the base class."""
        return _started(MariaDBServer(durable=True, settings=_DEFAULTS))

    @property
    def settings(self) -> str:
        """See the base class."""
        names = "version", "innodb_flush_log_at_trx_commit", "sync_binlog", "innodb_buffer_pool_size", "log_bin"
        values = {name: self.run(f"SELECT @@{name}")[0][0] for name in names}
        version = values.pop("version")
        return _as_text(version, values)

    def run(self, statement: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """See the base class."""
        with self.server.connect(database or "mysql") as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def checkpoint(self) -> None:
        """Do nothing: InnoDB writes out its pages continuously, and offers no way to wait for it."""

    def statements(self, urls: list[str], seconds: float) -> list[float]:
        """Use the server's own counter, which covers all databases together."""
        start = self._questions()
        time.sleep(seconds)
        return [(self._questions() - start - 1) / seconds / len(urls)]  # one is this query

    def multiply(self, database: str, model: int, copies: int, step: int) -> None:
        """See the base class."""
        table = "dbtaskqueue_task"
        columns = self._columns(database, "table_schema = DATABASE() AND is_generated = 'NEVER'")
        highest = self.run(f"SELECT max(id) FROM {table}", database=database)[0][0]
        for first in range(1, copies + 1, _ROWS):
            last = min(first + _ROWS - 1, copies)
            self.run(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {_copied(columns, step, highest)}"
                f" FROM (SELECT seq AS number FROM seq_{first}_to_{last}) AS numbers, {table} AS model"
                f" WHERE model.id = {model}",
                database=database,
            )
        self.run(f"ANALYZE TABLE {table}", database=database)

    def size(self, database: str) -> int:
        """See the base class."""
        asked = f"SELECT sum(file_size) FROM innodb_sys_tablespaces WHERE name LIKE '{database}/dbtaskqueue%'"
        return int(self.run(asked, database="information_schema")[0][0])

    def rewrite(self, database: str) -> None:
        """See the base class."""
        for name in ("task", "large", "attempt"):
            self.run(f"OPTIMIZE TABLE dbtaskqueue_{name}", database=database)

    def _questions(self) -> int:
        return int(self.run("SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

    @contextlib.contextmanager
    def hold_snapshot(self, url: str) -> Iterator[None]:
        """See the base class."""
        with self.server.connect(database_of(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            yield
            cursor.execute("ROLLBACK")


def _copied(columns: list[str], step: int, highest: int) -> str:
    payload = """concat('{"url":"http://example.com/', number, '","number":', number, '}')"""
    changed = {"id": f"{highest} + number", "due": f"model.due + number * {step}", "payload": payload}
    return ", ".join(changed.get(column.strip(_QUOTES), f"model.{column}") for column in columns)


def _as_text(version: str, values: dict[str, object]) -> str:
    return ", ".join((version, *(f"{name}={value}" for name, value in values.items()), "all else at its defaults"))


def database_of(url: str) -> str:
    """Return the name of the database in one of our URLs."""
    found = re.search(r"/(\w+)(\?.*)?$", url)
    assert found is not None
    return found[1]


def fill(url: str, tasks: int) -> None:
    """Enqueue this many tasks."""
    with TaskQueue(url) as queue:
        for first in range(0, tasks, _CHUNK):
            queue.enqueue_many(databases.payload(number) for number in range(first, min(first + _CHUNK, tasks)))


_running = contextlib.ExitStack()


def _started(server: Any) -> Any:
    return _running.enter_context(server)


def stop_all() -> None:
    """End every server of this run."""
    _running.close()


POSTGRESQL = Postgresql()
MARIADB = Mariadb()


def header() -> dict[str, str]:
    """Return the versions and settings of the servers that have run."""
    return {engine.name: engine.settings for engine in (POSTGRESQL, MARIADB) if "server" in engine.__dict__}


__all__ = ["MARIADB", "POSTGRESQL", "Engine", "Mariadb", "Postgresql", "database_of", "fill", "header", "stop_all"]

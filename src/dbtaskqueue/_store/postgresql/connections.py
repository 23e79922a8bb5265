"""PostgreSQL connections: opening them, the named queries on them, and what their errors mean."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import psycopg
from psycopg import conninfo, sql
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8Dumper

from ..._formats.url import Target
from ...errors import ConfigurationError
from ..borrowed import Foreign, in_autocommit, is_closed, wrong_kind
from ..connections import NOTHING, Row, Values
from ..queries import Conditions, composed
from ..server import TIMEOUT, ErrorKind, Link, ServerConnections, is_readable
from .arrays import texts
from .beat import Connection

OLDEST = 130000
_SILENCE = TIMEOUT + 5
"""Seconds without an answer after which a server is presumed dead. A live one would have ended the statement."""
_DEFAULTS = {
    "application_name": "dbtaskqueue",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    # a server that has vanished is noticed within half a minute, on an idle connection and during a statement
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": str(int(TIMEOUT * 1000)),
}
_SESSION = {"array_nulls": "on", "jit": "off"}
_WRITING = {
    # Planned once, since planning the exchange takes longer than running it. So the plan must be right whatever the
    # tables hold by then, and for each of these statements, only an index scan, row by row, is always right.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
_AGAIN = {"40001", "40P01", "55P03"}
_LOST = {"57P01", "57P02", "57P03", "57P04", "57P05", "25P03"}
_READ_ONLY = "25006"
_UNIQUE_VIOLATION = "23505"
_INSUFFICIENT_PRIVILEGE = "42501"


class PostgresqlLink(Link):
    """One connection. Through a pooler, each transaction may run in another server process."""

    def __init__(
        self, connection: psycopg.Connection[Any] | Foreign, queries: dict[str, bytes], *, is_borrowed: bool = False
    ) -> None:
        self.connection: Any = connection
        self.is_borrowed = is_borrowed
        self._queries = queries
        self._cursor = _cursor(connection)
        self._heard: Callable[[str], None] = lambda text: None
        self.channel: str | None = None
        """The channel that this connection listens to."""

    def rows(self, name: str, values: Values = NOTHING) -> list[Row]:
        return self._cursor.execute(self._queries[name], values).fetchall()

    def rows_where(self, name: str, conditions: Conditions, values: Values) -> list[Row]:
        text = composed(lambda each: self._queries[each].decode(), name, conditions)
        return self._cursor.execute(text.encode(), values).fetchall()

    def change(self, name: str, values: Values = NOTHING) -> int:
        return self._cursor.execute(self._queries[name], values).rowcount

    def change_each(self, name: str, values: Sequence[Values]) -> None:
        self._cursor.executemany(self._queries[name], values)

    def array(self, ids: Sequence[int]) -> list[int]:
        return list(ids)

    def texts(self, values: Sequence[str | None]) -> object:
        """Return texts in the form that the queries take; None if all are None."""
        if isinstance(self.connection, Foreign):  # not every driver takes an array as a text
            return None if all(value is None for value in values) else list(values)
        return texts(values)

    def start(self) -> None:
        self._cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")

    def start_reading(self) -> None:
        self._cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def commit(self) -> None:
        self._cursor.execute("COMMIT")

    def roll_back(self) -> None:
        if self.is_open:
            self._cursor.execute("ROLLBACK")

    @property
    def is_open(self) -> bool:
        return bool(self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE)

    def has_hung_up(self) -> bool:
        if self.connection.closed:
            return True
        try:
            while is_readable(self.connection.fileno()):
                self.connection.pgconn.consume_input()
                self._pass_on_notifications()
        except psycopg.Error:
            return True
        return False

    def listen(self, heard: Callable[[str], None]) -> str:
        """Call ``heard`` with the text of each notification from now on. Return the channel, unique to this session.

        The caller must use the connection regularly. The session holds a lock that shows others that it is alive.
        """
        if self.channel is None:
            channel = f"dbtaskqueue_{secrets.token_hex(8)}"
            self._cursor.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self.rows("hold_channel", {"channel": channel})
            self.connection.add_notify_handler(lambda notification: self._heard(notification.payload))
            self.channel = channel
        self._heard = heard
        return self.channel

    def _pass_on_notifications(self) -> None:
        while (notification := self.connection.pgconn.notifies()) is not None:
            self._heard(notification.extra.decode())

    def close(self) -> None:
        self.connection.close()

    def disown(self) -> None:
        # replace the socket, which is only a copy here, so that close() does not tell the server
        with contextlib.suppress(OSError, psycopg.Error), open(os.devnull, "rb+") as nowhere:
            os.dup2(nowhere.fileno(), self.connection.fileno())
            self.connection.close()


def _cursor(connection: psycopg.Connection[Any] | Foreign) -> psycopg.Cursor[Row]:
    if isinstance(connection, Foreign):
        return cast("psycopg.Cursor[Row]", connection)
    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    cursor.adapters.register_dumper(int, Int8Dumper)  # otherwise each size of number would need its own plan
    return cursor


class PostgresqlConnections(ServerConnections):
    """The connections of one process to one PostgreSQL database."""

    def __init__(self, target: Target, queries: dict[str, str]) -> None:
        super().__init__(target, psycopg.Error)
        self._queries = {name: text.encode() for name, text in queries.items()}
        self.parameters = _parameters(target)
        self.is_pooled = False
        self._verified: weakref.WeakKeyDictionary[Any, list[Row]] = weakref.WeakKeyDictionary()
        """The identity of the database of each connection that users have passed."""

    def _connect(self, *, reads: bool) -> PostgresqlLink:
        connection = Connection.connect(**self.parameters, autocommit=True)  # type: ignore[arg-type]
        connection.silence = _SILENCE
        try:
            self._check(connection, reads=reads)
        except BaseException:
            connection.close()
            raise
        return PostgresqlLink(connection, self._queries)

    def borrow(self, connection: object, *, reads: bool = False) -> PostgresqlLink:
        """Return a user's own connection, in its transaction. One that only reads needs none."""
        if isinstance(connection, Foreign) and isinstance(connection.driver, psycopg.Connection):
            connection = connection.driver
        if isinstance(connection, Foreign) and connection.engine == "postgresql":
            closed, commits_itself = connection.is_closed, not connection.is_closed and connection.commits_itself
        elif isinstance(connection, psycopg.Connection):
            closed = connection.closed and not connection.broken
            idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            commits_itself = connection.autocommit and idle
        else:
            raise wrong_kind("psycopg", connection)
        if closed:
            raise is_closed()
        if commits_itself and not reads:
            raise in_autocommit()
        return PostgresqlLink(connection, self._queries, is_borrowed=True)

    def belongs_here(self, link: PostgresqlLink, schema: str) -> bool:
        """Return whether a user's connection leads to this database. Each connection is asked once."""
        driver = link.connection.driver if isinstance(link.connection, Foreign) else link.connection
        identity: list[Row] = []
        with contextlib.suppress(TypeError):  # the pools of asyncpg give out objects that have no weak references
            identity = self._verified.get(driver, [])
        if not identity and link.rows("has_schema", {"name": schema}):
            identity = link.rows("identity")
            with contextlib.suppress(TypeError):
                self._verified[driver] = identity
        return self.is_identity(identity)

    # -- for waiting threads -----------------------------------------------------------------------

    def reader_fd(self) -> int | None:
        """Return the socket on which notifications arrive, None while there is none."""
        link = self._reader
        with contextlib.suppress(psycopg.Error):
            return link.connection.fileno() if isinstance(link, PostgresqlLink) else None
        return None

    def hears(self, channel: str | None) -> bool:
        """Process notifications that have arrived. Return False if no open connection listens to ``channel``."""
        with self._read_lock:
            link = self._reader
            return isinstance(link, PostgresqlLink) and link.channel == channel and not link.has_hung_up()

    def on_open_reader(self, act: Callable[[PostgresqlLink], None]) -> None:
        """Run ``act`` on the reading connection if it is open. A database error closes it, and is not raised.

        Does nothing in a signal handler that has interrupted another call of this thread.
        """
        if threading.get_ident() in self._asking:
            return

        def run() -> None:
            with self._read_lock:
                if isinstance(self._reader, PostgresqlLink):
                    try:
                        act(self._reader)
                    except BaseException as error:
                        self._hang_up_reader()
                        if not isinstance(error, psycopg.Error):
                            raise

        self.converse(run)

    def _check(self, connection: psycopg.Connection[Any], *, reads: bool) -> None:
        query = "SELECT pg_backend_pid(), current_setting('server_encoding')"
        pid, encoding = connection.execute(query).fetchone() or (0, "")
        # a pooler invents a process id; each transaction may run in another session of the server
        self.is_pooled = pid != connection.info.backend_pid
        if connection.info.server_version < OLDEST:
            version = connection.info.server_version // 10000
            raise ConfigurationError(f"{self._target.text}: PostgreSQL {version} is too old; 13 or later is needed")
        if encoding != "UTF8":
            raise ConfigurationError(f"{self._target.text}: the database's encoding is {encoding}; UTF8 is needed")
        if self.is_pooled:
            connection.prepare_threshold = None
        else:
            settings = _SESSION | {"statement_timeout": str(int(TIMEOUT * 1000))} | ({} if reads else _WRITING)
            query = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS setting(name, value)"
            connection.execute(query, [list(settings), list(settings.values())])

    def is_forbidden(self, error: BaseException | None) -> bool:
        """See the base class."""
        return getattr(error, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE

    def _trouble(self, error: Exception) -> ErrorKind:
        code = getattr(error, "sqlstate", None)
        if code is None or code.startswith("08") or code in _LOST:
            return ErrorKind.LOST
        if code in _AGAIN:
            return ErrorKind.RETRY
        if code == _UNIQUE_VIOLATION:
            return ErrorKind.CONFLICT
        return ErrorKind.RECONNECT if code == _READ_ONLY else ErrorKind.FATAL


def _parameters(target: Target) -> dict[str, str]:
    """Return what libpq needs to connect. Raises ConfigurationError for an unknown option."""
    given = {name: value for name, value in target.options.items() if name != "schema"}
    if target.hosts:
        given["host"] = ",".join(host.name for host in target.hosts)
        given["port"] = ",".join(str(host.port or 5432) for host in target.hosts)
    given |= {"dbname": target.database}
    given |= {"user": target.user} if target.user is not None else {}
    given |= {"password": target.password} if target.password is not None else {}
    try:
        conninfo.make_conninfo(**given)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"{target.text}: {str(error).strip()}") from None
    return {**_DEFAULTS, **given}

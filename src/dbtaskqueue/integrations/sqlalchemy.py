"""Tasks in the transaction of a SQLAlchemy ``Session`` or ``Connection``, with any driver of the three engines.

``enqueue(connection=session)`` takes a Session, a scoped_session (as the ``db.session`` of Flask-SQLAlchemy) or a
Connection. An AsyncTaskQueue also takes an AsyncSession, an async_scoped_session or an AsyncConnection. Nothing needs
to be imported from here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .._store.borrowed import Foreign, ForeignError, OnLoop, Values, as_text, call_directly, numbered, require_loop
from ..errors import ConfigurationError
from . import missing

try:
    from sqlalchemy import Connection, CursorResult, exc
    from sqlalchemy.orm import Session, scoped_session
except ImportError as error:
    raise missing("sqlalchemy", error) from None

T = TypeVar("T")

_ENGINES = {"mysql": "mariadb"}
_DRIVERS = {
    *("pysqlite", "aiosqlite"),
    *("psycopg", "psycopg_async", "psycopg2", "asyncpg"),
    *("pymysql", "aiomysql", "asyncmy", "mysqldb"),
}
_SESSION = "pass an open session or connection"


def current(connection: Any) -> object:
    """Return the session that a registry has for this thread, task or request; another connection as it is."""
    registries = scoped_session, *_async_classes("async_scoped_session")
    is_registry = isinstance(connection, registries)
    return connection.registry() if is_registry else connection


def lend(connection: object, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the connection that the session or connection uses in its transaction."""
    given = current(connection)
    if isinstance(given, _async_classes("AsyncSession", "AsyncConnection")):
        found: Any = given
        result: T = require_loop(given, loop).run(found.run_sync(lambda sync: _lend(sync, work)))
        return result
    return call_directly(given, loop, lambda sync: _lend(sync, work))


def _async_classes(*names: str) -> tuple[type, ...]:
    """Return classes of SQLAlchemy's asyncio extension if the program has imported it: it needs greenlet."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return () if module is None else tuple(getattr(module, name) for name in names)


def _lend(given: object, work: Callable[[Any], T]) -> T:
    return work(_Statements(_connection_of(given)))


def _connection_of(given: object) -> Connection:
    """Return the connection, in a transaction of SQLAlchemy: without one, its ``commit`` does nothing."""
    if isinstance(given, Connection):
        if given.closed:
            raise ConfigurationError(f"connection: this Connection is closed; {_SESSION}")
        if not given.in_transaction():
            _begin(given)
        return given
    if not isinstance(given, Session):
        raise ConfigurationError(
            f"connection: a SQLAlchemy Session or Connection is needed here, not {type(given).__name__}"
        )
    try:
        return given.connection()
    except exc.UnboundExecutionError:
        raise ConfigurationError(
            "connection: this Session has several databases, or none; pass the Connection, such as"
            " session.connection(bind_arguments={'mapper': Order})"
        ) from None
    except exc.ResourceClosedError as error:
        raise ConfigurationError(f"connection: {error}; {_SESSION}") from None
    except exc.DBAPIError as error:
        raise _without_parameters(error) from error.orig


def _begin(connection: Connection) -> None:
    try:
        connection.begin()
    except exc.DBAPIError as error:
        raise _without_parameters(error) from error.orig


class _Statements(Foreign):
    """A Connection of SQLAlchemy, which runs the statements if its driver is not one that the engine uses directly."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dialect = connection.dialect
        self._result: CursorResult[Any]
        try:
            pooled = connection.connection
        except exc.DBAPIError as error:
            raise _without_parameters(error) from error.orig
        self._dbapi: Any = pooled.dbapi_connection
        super().__init__(_ENGINES.get(self._dialect.name, self._dialect.name), pooled.driver_connection)

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    @property
    def commits_itself(self) -> bool:
        driver: Any = self.driver
        if hasattr(driver, "get_autocommit"):  # MariaDB
            return bool(driver.get_autocommit())
        if hasattr(driver, "isolation_level") and hasattr(driver, "in_transaction"):  # SQLite
            return driver.isolation_level is None and not driver.in_transaction
        return bool(self._dbapi.autocommit)

    @property
    def in_transaction(self) -> bool:
        return bool(getattr(self.driver, "in_transaction", False))

    @property
    def rowcount(self) -> int:
        return self._result.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._result.lastrowid

    def execute(self, statement: str | bytes, values: Values = ()) -> Foreign:
        text, bound = self._bound(statement, values)
        self._run(text, bound)
        return self

    def executemany(self, statement: str | bytes, values: Sequence[Values]) -> None:
        if values:
            text = self._bound(statement, values[0])[0]
            self._run(text, [self._bound(statement, each)[1] for each in values])

    def _bound(self, statement: str | bytes, values: Values) -> tuple[str, Any]:
        if self._dialect.driver not in _DRIVERS:
            raise ConfigurationError(
                f"connection: the driver {self._dialect.driver} of SQLAlchemy is not supported; use one of"
                f" {', '.join(sorted(_DRIVERS))}"
            )
        if self._dialect.paramstyle == "numeric_dollar":
            return numbered(statement, values)
        return as_text(statement), dict(values) if isinstance(values, Mapping) else tuple(values)

    def _run(self, text: str, bound: Any) -> None:
        try:
            self._result = self._connection.exec_driver_sql(text, bound or None)
            self._rows = self._result.fetchall() if self._result.returns_rows else ()
        except exc.DBAPIError as error:
            raise _without_parameters(error) from error.orig


def _without_parameters(error: exc.DBAPIError) -> ForeignError:
    """Return the driver's error: that of SQLAlchemy has the statement and its parameters, such as a payload."""
    return ForeignError(error.orig or error)

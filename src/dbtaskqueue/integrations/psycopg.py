"""Tasks in the transaction of an async psycopg connection: ``await queue.enqueue(connection=connection)``.

An AsyncTaskQueue takes a ``psycopg.AsyncConnection``. A ``psycopg.Connection`` is used directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .._store.borrowed import Foreign, ForeignError, OnLoop, Values, call_directly, require_loop
from . import missing

try:
    import psycopg
    from psycopg.rows import tuple_row
    from psycopg.types.numeric import Int8Dumper
except ImportError as error:
    raise missing("postgresql", error) from None

T = TypeVar("T")


def lend(connection: object, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the connection, whose statements run on its loop if it is an async one."""
    if isinstance(connection, psycopg.AsyncConnection):
        return work(_Statements(connection, require_loop(connection, loop)))
    return call_directly(connection, loop, work)


class _Statements(Foreign):
    """An async connection of psycopg."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], loop: OnLoop) -> None:
        super().__init__("postgresql", connection)
        self._connection = connection
        self._loop = loop
        self._cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        self._cursor.adapters.register_dumper(int, Int8Dumper)  # as on connections of our own

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    @property
    def commits_itself(self) -> bool:
        idle = self._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        return self._connection.autocommit and idle

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def execute(self, statement: str | bytes, values: Values = ()) -> Foreign:
        self._loop.run(self._execute(_as_query(statement), values))
        return self

    def executemany(self, statement: str | bytes, values: Sequence[Values]) -> None:
        self._loop.run(self._executemany(_as_query(statement), values))

    async def _execute(self, statement: bytes, values: Values) -> None:
        try:
            await self._cursor.execute(statement, values)
            self._rows = await self._cursor.fetchall() if self._cursor.description else ()
        except psycopg.Error as error:
            raise ForeignError(error) from error

    async def _executemany(self, statement: bytes, values: Sequence[Values]) -> None:
        try:
            await self._cursor.executemany(statement, values)
        except psycopg.Error as error:
            raise ForeignError(error) from error


def _as_query(statement: str | bytes) -> bytes:
    return statement.encode() if isinstance(statement, str) else statement

"""Tasks in the transaction of a psycopg2 connection: ``enqueue(connection=connection)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import extensions

from .._store.borrowed import Foreign, ForeignError, OnLoop, Values, as_text, call_directly

T = TypeVar("T")


def lend(connection: object, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the connection."""
    return call_directly(connection, loop, lambda given: work(_Statements(given)))


class _Statements(Foreign):
    """A connection of psycopg2."""

    def __init__(self, connection: Any) -> None:
        super().__init__("postgresql", connection)
        self._connection = connection
        self._cursor: Any = None

    @property
    def is_closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def commits_itself(self) -> bool:
        idle = self._connection.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
        return bool(self._connection.autocommit) and idle

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    def execute(self, statement: str | bytes, values: Values = ()) -> Foreign:
        try:
            # the connection may have been made with another kind of cursor, such as one whose rows are dicts
            self._cursor = self._cursor or self._connection.cursor(cursor_factory=extensions.cursor)
            self._cursor.execute(as_text(statement), values)
            self._rows = self._cursor.fetchall() if self._cursor.description else ()
        except psycopg2.Error as error:
            raise ForeignError(error) from error
        return self

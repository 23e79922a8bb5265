"""Tasks in the transaction of an aiosqlite connection: ``await queue.enqueue(connection=connection)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import aiosqlite

from .._store.borrowed import Foreign, ForeignError, OnLoop, Values, as_text, require_loop

T = TypeVar("T")

_ERRORS = aiosqlite.Error, ValueError  # ValueError: the connection was closed meanwhile


def lend(connection: Any, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the connection, whose statements run on its loop."""
    return work(_Statements(connection, require_loop(connection, loop)))


class _Statements(Foreign):
    """A connection of aiosqlite."""

    def __init__(self, connection: aiosqlite.Connection, loop: OnLoop) -> None:
        super().__init__("sqlite", connection)
        self._connection = connection
        self._loop = loop
        self._counts = -1, 0

    @property
    def is_closed(self) -> bool:
        try:
            self._connection.in_transaction  # noqa: B018
        except _ERRORS:
            return True
        return False

    @property
    def commits_itself(self) -> bool:
        return self._connection.isolation_level is None and not self._connection.in_transaction

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    @property
    def rowcount(self) -> int:
        return self._counts[0]

    @property
    def lastrowid(self) -> int | None:
        return self._counts[1]

    def execute(self, statement: str | bytes, values: Values = ()) -> Foreign:
        self._loop.run(self._execute(as_text(statement), values))
        return self

    def executemany(self, statement: str | bytes, values: Sequence[Values]) -> None:
        self._loop.run(self._executemany(as_text(statement), values))

    async def _execute(self, statement: str, values: Any) -> None:
        try:
            async with self._connection.execute(statement, values) as cursor:
                self._rows = [tuple(row) for row in await cursor.fetchall()]
                self._counts = cursor.rowcount, cursor.lastrowid or 0
        except _ERRORS as error:
            raise ForeignError(error) from error

    async def _executemany(self, statement: str, values: Any) -> None:
        try:
            await self._connection.executemany(statement, values)
        except _ERRORS as error:
            raise ForeignError(error) from error

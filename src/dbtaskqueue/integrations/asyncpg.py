"""Tasks in the transaction of an asyncpg connection: ``await queue.enqueue(connection=connection)``.

An AsyncTaskQueue takes a connection, or what ``pool.acquire()`` returned, inside ``connection.transaction()``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]

from .._store.borrowed import Foreign, ForeignError, OnLoop, Values, numbered, require_loop
from ..errors import ConfigurationError

T = TypeVar("T")

_ERRORS = asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError


def lend(connection: Any, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the connection, whose statements run on its loop."""
    if isinstance(connection, asyncpg.Pool):
        raise ConfigurationError("connection: pass a connection of the pool, from pool.acquire(), not the pool")
    return work(_Statements(connection, require_loop(connection, loop)))


class _Statements(Foreign):
    """A connection of asyncpg, or a pool's proxy of one."""

    def __init__(self, connection: Any, loop: OnLoop) -> None:
        super().__init__("postgresql", connection)
        self._connection = connection
        self._loop = loop

    @property
    def is_closed(self) -> bool:
        try:
            return bool(self._connection.is_closed())
        except asyncpg.InterfaceError:  # it was released to the pool
            return True

    @property
    def commits_itself(self) -> bool:
        return not self._connection.is_in_transaction()

    def execute(self, statement: str | bytes, values: Values = ()) -> Foreign:
        text, bound = numbered(statement, values)
        self._rows = self._loop.run(_fetch(self._connection, text, bound))
        return self

    def executemany(self, statement: str | bytes, values: Sequence[Values]) -> None:
        bound = [numbered(statement, each) for each in values]
        self._loop.run(_execute_many(self._connection, bound[0][0], [each for _, each in bound]))


async def _fetch(connection: Any, text: str, values: Sequence[object]) -> Sequence[Any]:
    try:
        rows: Sequence[Any] = await connection.fetch(text, *values)
    except _ERRORS as error:
        raise ForeignError(error) from error
    return rows


async def _execute_many(connection: Any, text: str, values: Sequence[Sequence[object]]) -> None:
    try:
        await connection.executemany(text, values)
    except _ERRORS as error:
        raise ForeignError(error) from error

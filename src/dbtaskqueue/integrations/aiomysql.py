"""Tasks in the transaction of a connection of aiomysql or asyncmy: ``await queue.enqueue(connection=connection)``.

The two have the same interface, so that this module imports neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .._store.borrowed import Foreign, ForeignError, OnLoop, Values, as_text, require_loop
from ..errors import ConfigurationError

T = TypeVar("T")


def lend(connection: Any, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the connection, whose statements run on its loop."""
    if hasattr(connection, "acquire"):
        raise ConfigurationError("connection: pass a connection of the pool, from pool.acquire(), not the pool")
    return work(_Statements(connection, require_loop(connection, loop)))


class _Statements(Foreign):
    """A connection of aiomysql or asyncmy."""

    def __init__(self, connection: Any, loop: OnLoop) -> None:
        super().__init__("mariadb", connection)
        self._connection = connection
        self._loop = loop
        self._count = -1
        library: Any = sys.modules[_library_of(connection)]
        self._cursor: Any = library.cursors.Cursor  # the connection may use another one, such as one for dicts
        errors: Any = getattr(library, "errors", library)  # of asyncmy, or the library itself
        self._errors: tuple[type[Exception], ...] = errors.MySQLError, OSError

    @property
    def is_closed(self) -> bool:
        open_now = getattr(self._connection, "connected", None)  # of asyncmy
        return bool(self._connection.closed if open_now is None else not open_now)

    @property
    def commits_itself(self) -> bool:
        return bool(self._connection.get_autocommit()) and not self._connection.get_transaction_status()

    @property
    def rowcount(self) -> int:
        return self._count

    def execute(self, statement: str | bytes, values: Values = ()) -> Foreign:
        self._loop.run(self._execute("execute", as_text(statement), values))
        return self

    def executemany(self, statement: str | bytes, values: Sequence[Values]) -> None:
        self._loop.run(self._execute("executemany", as_text(statement), values))

    async def _execute(self, method: str, statement: str, values: Any) -> None:
        try:
            async with self._connection.cursor(self._cursor) as cursor:
                await getattr(cursor, method)(statement, values)
                self._rows = await cursor.fetchall() if cursor.description else ()
                self._count = cursor.rowcount
        except self._errors as error:
            raise ForeignError(error) from error


def _library_of(connection: object) -> str:
    """Return the package that the class is from, or the class from which the user's own class is derived."""
    packages = (kind.__module__.partition(".")[0] for kind in type(connection).__mro__)
    return next(package for package in packages if package in ("aiomysql", "asyncmy"))

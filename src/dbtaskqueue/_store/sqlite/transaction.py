"""The named queries on a SQLite connection."""

from __future__ import annotations

import functools
import json
import operator
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeVar

from .. import queries
from ..connections import NOTHING, Row, Transaction, Values
from ..contract import NewTask
from ..records import is_plain
from ..verbs.base import inline

T = TypeVar("T")

SQL = queries.load("sqlite")


class _Insert:
    """A statement that stores tasks. It takes their values in its order: looking each one up by name takes time."""

    def __init__(self, query: str) -> None:
        self.text, names = queries.numbered(SQL[query])
        self._fields = [name for name in names if name != "id"]
        self.values_of = operator.attrgetter(*self._fields)

    def rows(self, ids: Sequence[int], tasks: Sequence[NewTask]) -> Iterator[tuple[object, ...]]:
        """Yield the values of tasks with these ids, which differ only in their payloads."""
        values, at = self.values_of(tasks[0]), self._fields.index("payload")
        before, after = values[:at], values[at + 1 :]
        for id, task in zip(ids, tasks, strict=True):
            yield (id, *before, inline(task.payload), *after)


_NEXT, _NEXT_PLAIN = _Insert("insert_next_task"), _Insert("insert_next_plain_task")
_EACH, _EACH_PLAIN = _Insert("insert_task"), _Insert("insert_plain_task")

_ROWS = 100, 10, 1
"""The numbers of rows for which a statement over a list is prepared. The prepared statements are cached."""


class SqliteTransaction(Transaction):
    """The named queries on a SQLite connection."""

    __slots__ = ("_execute", "connection")

    def __init__(self, connection: sqlite3.Connection, cursor: sqlite3.Cursor | None = None) -> None:
        self.connection = connection
        self._execute = (cursor or connection).execute

    def rows(self, name: str, values: Values = NOTHING) -> list[Row]:
        return self._execute(SQL[name], values).fetchall()

    def row(self, name: str, values: Values = NOTHING) -> Row | None:
        row: Row | None = self._execute(SQL[name], values).fetchone()
        return row

    def change(self, name: str, values: Values = NOTHING) -> int:
        return self._execute(SQL[name], values).rowcount

    def change_each(self, name: str, values: Sequence[Values]) -> None:
        self.connection.executemany(SQL[name], values)

    def change_together(self, name: str, rows: Sequence[Sequence[object]], values: Values = NOTHING) -> int:
        """Run a statement with a list ``[[…]]`` for many rows at once; return the number of rows that it changed.

        Each row has its values in the order of the list. ``values`` are the parameters before the list.
        """
        changed = 0
        for some in _portions(rows):
            text, names = _over_rows(name, len(some))
            changed += self._execute(text, [*map(values.__getitem__, names), *chain.from_iterable(some)]).rowcount
        return changed

    def array(self, ids: Sequence[int]) -> str:
        return json.dumps(ids)

    @property
    def is_open(self) -> bool:
        return bool(self.connection.in_transaction)

    def insert(self, task: NewTask) -> int:
        """Store one task; return its id."""
        insert = _NEXT_PLAIN if is_plain(task) else _NEXT
        return self._execute(insert.text, insert.values_of(task)).lastrowid or 0

    def insert_each(self, ids: Sequence[int], tasks: Sequence[NewTask]) -> None:
        """Store tasks with these ids; they differ only in their payloads, which may be too large for their rows."""
        insert = _EACH_PLAIN if is_plain(tasks[0]) else _EACH
        self.connection.executemany(insert.text, insert.rows(ids, tasks))


def _portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    at = 0
    for size in _ROWS:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@functools.cache
def _over_rows(name: str, times: int) -> tuple[str, list[str]]:
    """Return the statement for that many rows, and the names of the values before them."""
    text, _ = queries.positional(queries.repeated(SQL[name], times))
    _, names = queries.positional(SQL[name].partition("[[")[0])
    return text, names

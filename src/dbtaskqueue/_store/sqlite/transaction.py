"""The named queries on a SQLite connection."""

from __future__ import annotations

import functools
import json
import operator
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar, cast

from .. import queries
from ..borrowed import Foreign
from ..connections import NOTHING, Row, Transaction, Values
from ..contract import NewTask

T = TypeVar("T")

SQL = queries.load("sqlite")
_INSERT_ONE, _names = queries.numbered(SQL["insert_next_task"])
_values_of = operator.attrgetter(*_names)
"""The values of a NewTask in the order of the statement: SQLite would look up each one by name at every call."""
_INSERT, (_first_name, *_other_names) = queries.numbered(SQL["insert_task"])
assert (_first_name, _other_names) == ("id", _names)

_ROWS = 100, 10, 1
"""The numbers of rows for which a statement over a list is prepared. The prepared statements are cached."""


class SqliteTransaction(Transaction):
    """The named queries on a SQLite connection."""

    __slots__ = ("_execute", "connection")

    def __init__(
        self, connection: sqlite3.Connection | Foreign, cursor: sqlite3.Cursor | Foreign | None = None
    ) -> None:
        self.connection = connection
        self._execute = cast("Callable[..., sqlite3.Cursor]", (cursor or connection).execute)

    def rows(self, name: str, values: Values = NOTHING) -> list[Row]:
        return self._execute(SQL[name], values).fetchall()

    def row(self, name: str, values: Values = NOTHING) -> Row | None:
        row: Row | None = self._execute(SQL[name], values).fetchone()
        return row

    def rows_where(self, name: str, conditions: queries.Conditions, values: Values) -> list[Row]:
        return self._execute(queries.composed(SQL.__getitem__, name, conditions), values).fetchall()

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

    def insert_many(self, tasks: Iterable[tuple[int, NewTask]]) -> None:
        """Store tasks with these ids."""
        self.connection.executemany(_INSERT, [(id, *_values_of(task)) for id, task in tasks])

    def insert(self, task: NewTask) -> int:
        """Store one task; return its id."""
        return self._execute(_INSERT_ONE, _values_of(task)).lastrowid or 0


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

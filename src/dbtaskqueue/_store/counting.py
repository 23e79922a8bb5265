"""Counting the statements of a thread, for those who want to know what an answer costs.

Unless a thread counts, this costs one lookup for each read or write.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_STATEMENTS = {"rows", "row", "change", "change_each", "change_together", "insert", "insert_many"}
"""The methods of a transaction that run a statement."""


class Statements:
    """How many statements were run, and the seconds until they were answered."""

    def __init__(self) -> None:
        self.number = 0
        self.seconds = 0.0


_counting: ContextVar[Statements | None] = ContextVar("dbtaskqueue_statements", default=None)


@contextlib.contextmanager
def count_statements() -> Iterator[Statements]:
    """Count the statements that this thread runs in the block."""
    token = _counting.set(statements := Statements())
    try:
        yield statements
    finally:
        _counting.reset(token)


def counted(work: Callable[[Any, *Ts], T]) -> Callable[[Any, *Ts], T]:
    """Return work on a transaction that also counts its statements, if this thread counts."""
    statements = _counting.get()
    if statements is None:
        return work

    def run(transaction: Any, *values: *Ts) -> T:
        return work(_Counted(transaction, statements), *values)

    return run


class _Counted:
    """A transaction whose statements are counted."""

    def __init__(self, transaction: Any, statements: Statements) -> None:
        self._transaction = transaction
        self._statements = statements

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._transaction, name)
        if name not in _STATEMENTS:
            return found

        def run(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return found(*args, **options)
            finally:
                self._statements.number += 1
                self._statements.seconds += time.perf_counter() - started

        return run

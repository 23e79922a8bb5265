"""How often, and for how long, a request has asked the database: the header Server-Timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .._store import count_statements

T = TypeVar("T")
A = TypeVar("A")


class Timing:
    """Counts the statements of one request."""

    def __init__(self) -> None:
        self._statements = 0
        self._seconds = 0.0

    def of(self, handler: Callable[[A], T], argument: A) -> T:
        """Call a handler, and count its statements."""
        with count_statements() as statements:
            try:
                return handler(argument)
            finally:
                self._statements += statements.number
                self._seconds += statements.seconds

    @property
    def header(self) -> str:
        """The header's value."""
        return f'db;dur={self._seconds * 1000:.1f};desc="{self._statements}"'

"""Decides children that the end of their parent has left over.

The end of a task decides about a limited number of children in its own transaction. The process that ended it decides
the others right after that. This duty continues if that process was killed. It also finds parents that a worker of an
earlier version has ended, which knows no children.
"""

from __future__ import annotations

import time

from .._store.contract import Store
from .._system import clock

_SELDOM = 300.0
"""Seconds between searches for overlooked parents, which read each open edge."""


class Decider:
    """A duty: decide children that are left over."""

    interval = 10.0

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_search = time.monotonic()

    def __call__(self) -> int:
        """Decide all children that are left over; return how many of them can run now."""
        search = time.monotonic() >= self._next_search
        if search:
            self._next_search = time.monotonic() + _SELDOM
        return self._store.decide_children(clock.now(), search=search)

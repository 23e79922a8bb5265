"""Decides children that the end of their parent has left over.

The end of a task decides about a limited number of children in its own transaction. The process that ended it decides
the others right after that. This duty continues if that process was killed. It also finds parents that a worker of an
earlier version has ended, which knows no children.
"""

from __future__ import annotations

from .._store.contract import Store
from .._system import clock


class Decider:
    """Decides children that are left over. As a duty, it also searches for overlooked parents."""

    interval = 300.0
    """Seconds between searches, which read each open edge."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> int:
        """Search for overlooked parents, and decide all children that are left over; return how many can run now."""
        return self._store.decide_children(clock.now(), search=True)

    def decide(self) -> int:
        """Decide all children that are left over; return how many of them can run now."""
        return self._store.decide_children(clock.now())

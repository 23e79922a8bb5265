"""Decides children that the end of their parent has left undecided.

The transaction that ends a task decides a limited number of its children. The same process decides the others right
after that. If that process was killed, this duty decides them. It also finds parents that a worker of an earlier
version has ended, since earlier versions do not know about children.
"""

from __future__ import annotations

from .._store.contract import Store
from .._system import clock


class Decider:
    """Decides children that are left undecided. As a duty, it also searches for overlooked parents."""

    interval = 300.0
    """Seconds between searches, which read each open edge."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self) -> int:
        """Search for overlooked parents, and decide all undecided children; return how many can run now."""
        return self._store.decide_children(clock.now(), search=True)

    def decide(self) -> int:
        """Decide all undecided children; return how many of them can run now."""
        return self._store.decide_children(clock.now())

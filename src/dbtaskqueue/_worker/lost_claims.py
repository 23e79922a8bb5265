"""Claims whose answer was lost: in the database, this worker holds a task that this process does not know."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .._store.contract import Held

CHECKS = (0.0, 1.0, 5.0, 25.0, 60.0)
"""When to check for the claim, in seconds after the loss: its request may still arrive and be carried out later."""


class LostClaims:
    """Finds such tasks and releases them, until no lost claim can arrive any more.

    ``held`` returns what this worker holds according to the database, ``known`` the ids that this process knows.
    ``release`` releases the others. Call ``check`` only while no claim is in progress: its tasks would seem lost, too.
    """

    def __init__(
        self,
        held: Callable[[], Sequence[Held]],
        known: Callable[[], set[int]],
        release: Callable[[Sequence[Held]], object],
    ) -> None:
        self._held = held
        self._known = known
        self._release = release
        self._due: list[float] = []

    def suspect(self) -> None:
        """Note that the answer to a claim was lost: check now and a few times later."""
        now = time.monotonic()
        self._due = [now + after for after in CHECKS]

    @property
    def is_due(self) -> bool:
        """Return whether it is time for a check."""
        return bool(self._due) and self._due[0] <= time.monotonic()

    def check(self) -> None:
        """Release the lost claims. Raises StoreUnavailable; then the check stays due."""
        known = self._known()
        if lost := [held for held in self._held() if held.id not in known]:
            self._release(lost)
        now = time.monotonic()
        self._due = [due for due in self._due if due > now]

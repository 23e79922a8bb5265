"""Claims whose answer was lost: the database says that this worker holds a task, and this process does not know it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .._store.contract import Held

CHECKS = (0.0, 1.0, 5.0, 25.0, 60.0)
"""Seconds after the loss to check for the claim. The request may have been on its way, and be carried out later."""


class LostClaims:
    """Finds such tasks and releases them, until no lost claim can arrive any more.

    ``held``: what the database says that this worker holds. ``known``: the ids that this process knows. ``release``
    releases the others. The owner calls ``check`` where no claim is in progress: its tasks would look lost, too.
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
        """A claim's answer was lost: check now and a few times later."""
        now = time.monotonic()
        self._due = [now + after for after in CHECKS]

    @property
    def is_due(self) -> bool:
        """Whether it is time for a check."""
        return bool(self._due) and self._due[0] <= time.monotonic()

    def check(self) -> None:
        """Release what is lost. Raises StoreUnavailable; the check stays due then."""
        known = self._known()
        if lost := [held for held in self._held() if held.id not in known]:
            self._release(lost)
        now = time.monotonic()
        self._due = [due for due in self._due if due > now]

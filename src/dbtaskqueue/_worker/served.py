"""The queues that a worker serves, in rotation, and which queues match its patterns at the moment."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

from .._store.contract import Store
from ..checks import is_pattern, is_served

_INTERVAL = 1.0
"""Seconds between two reads of the queues' names on a server. On a file, its changes show when to read them."""
_SHARE = 0.05
"""The largest share of the time that these reads may take. With hundreds of queues, they are less frequent."""


class ServedQueues:
    """``names``: the queues to claim from. Each comes first in turn.

    Patterns match queues that have tasks or schedules, or are paused. ``read_if_due`` adds queues that have appeared,
    and removes those that no longer exist.
    """

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._store = store
        self._patterns = [name for name in names if is_pattern(name)]
        self.names = deque(name for name in names if not is_pattern(name))
        self._always = frozenset(self.names)
        self._next_read = -math.inf if self._patterns else math.inf

    @property
    def have_patterns(self) -> bool:
        """Whether other queues may be served later."""
        return bool(self._patterns)

    def rotate(self) -> None:
        """Put the first queue last."""
        self.names.rotate(-1)

    def read(self) -> bool:
        """Read which queues match the patterns. Return whether one is new. Raises StoreUnavailable."""
        if not self._patterns:
            return False
        started = time.monotonic()
        found = [name for name in self._store.queues() if is_served(name, self._patterns)]
        ended = time.monotonic()
        self._next_read = ended + max(_INTERVAL, (ended - started) / _SHARE)
        exist, known = {*found, *self._always}, set(self.names)
        new = [name for name in found if name not in known]
        if new or known != exist:
            kept = [name for name in self.names if name in exist]
            self.names.clear()
            self.names.extend([*kept, *new])
        return bool(new)

    def read_if_due(self) -> bool:
        """Call ``read`` if the database may have other queues since the last time; return what it returns."""
        is_due = self._patterns and (self._store.wakeups.sees_all_queues or self.seconds_to_read <= 0)
        return self.read() if is_due else False

    def read_once(self) -> None:
        """Call ``read`` if it was never called."""
        if self._next_read == -math.inf:
            self.read()

    @property
    def seconds_to_read(self) -> float:
        """The time until the next read on a server."""
        return self._next_read - time.monotonic()

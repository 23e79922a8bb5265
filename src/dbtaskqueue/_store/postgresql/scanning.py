"""Where a claim starts to scan, while claimed tasks are still in the index.

PostgreSQL cannot remove a row that an open transaction could still see. So each claim walks over every task that was
claimed since that transaction started: 3 ms for 50,000 (``bench/servers/long_transaction.py``). Rows that no one can
see are passed quickly, but stay until autovacuum comes, once a minute: 4 ms for 400,000 (``bench/servers/churn.py``).
So after a claim that had to walk far, the next claims start where it ended, for a moment. In that moment, a new task
of a higher priority may have to wait. Otherwise no claim walks far, and the order is strict.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..contract import TaskRecord

_FAR = 5_000
"""The number of index entries above which a claim counts as having walked far."""
PAGE = 20
"""The cost of an index page all of whose entries are known to be dead, as a number of entries."""
_PER_TASK = 250
"""The cost of a claimed task without others of its priority, as a number of entries."""
_SECONDS_PER_ENTRY = 1e-5
_LONGEST = 0.5


class Position(NamedTuple):
    """A place in the order of a queue's tasks."""

    floor_rank: int
    floor_due: int
    floor_id: int


BEGIN = Position(-(2**31), -(2**63), 0)


class Scan:
    """Where this process starts to scan one queue, and what it has learnt about that."""

    def __init__(self) -> None:
        self._position = BEGIN
        self._until = 0.0
        self._counter = 0

    def start(self) -> Position:
        """Return where the next claim starts."""
        return self._position if time.monotonic() < self._until else BEGIN

    def learn(self, started: Position, counter: int, claimed: list[TaskRecord]) -> None:
        """Note how far a claim walked, by the server's counter of index entries, and what it claimed, in order."""
        passed = counter - self._counter if counter >= self._counter else counter  # it is reset now and then
        self._counter = counter
        if claimed:
            last = claimed[-1]
            self._position = Position(last.rank, last.due, last.id)
        if not claimed:
            self._until = 0.0
        if started == BEGIN and passed > _FAR + _PER_TASK * len(claimed):
            self._until = time.monotonic() + min(_LONGEST, passed * _SECONDS_PER_ENTRY)

"""Where a claim starts to look, while claimed tasks cannot be removed from the index, or have not been yet.

PostgreSQL cannot remove what an open transaction could still see, so each claim walks over every task that was
claimed since that transaction started: 3 ms for 50,000 (``bench/servers/long_transaction.py``). What nobody can see is
passed quickly, but stays until autovacuum comes, once a minute: 4 ms for 400,000 (``bench/servers/churn.py``). A claim
that had to walk far is therefore followed, for a moment, by claims that start where it ended. In that moment a
task of a higher priority that has just come may have to wait; else no claim walks far, and the order is strict.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..contract import TaskRecord

_FAR = 5_000
"""Index entries that a claim may pass before it counts as far."""
PAGE = 20
"""What a page of the index costs, in such entries, if it has nothing but entries that are known to be dead."""
_PER_TASK = 250
"""What a task may cost that is claimed, its priority included, if no other task has that."""
_SECONDS_PER_ENTRY = 1e-5
_LONGEST = 0.5


class Position(NamedTuple):
    """A place in the order of a queue's tasks."""

    floor_rank: int
    floor_due: int
    floor_id: int


BEGIN = Position(-(2**31), -(2**63), 0)


class Scan:
    """What one process has learnt about one queue."""

    def __init__(self) -> None:
        self._position = BEGIN
        self._until = 0.0
        self._counter = 0

    def start(self) -> Position:
        """Where to look from now."""
        return self._position if time.monotonic() < self._until else BEGIN

    def learn(self, started: Position, counter: int, claimed: list[TaskRecord]) -> None:
        """Take note of the server's counter of what was passed in the index, and of what was claimed (in order)."""
        passed = counter - self._counter if counter >= self._counter else counter  # it starts anew now and then
        self._counter = counter
        if claimed:
            last = claimed[-1]
            self._position = Position(last.rank, last.due, last.id)
        if not claimed:
            self._until = 0.0
        if started == BEGIN and passed > _FAR + _PER_TASK * len(claimed):
            self._until = time.monotonic() + min(_LONGEST, passed * _SECONDS_PER_ENTRY)

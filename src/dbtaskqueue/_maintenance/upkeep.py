"""What one worker does for the whole database each minute: samples of the queues, folding, pruning.

There is no leader. A worker that finds the turn due takes it, by a compare-and-set of its row. All of this may be done
twice without harm. A turn is done in steps with pauses, since the thread has other duties.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from .._store.contract import Outlook, QueueCounts, SampleRecord, Store
from ..overview import live_workers, queues_of, serves

TURN = "minute"
"""The name of the duty's row, which the query ``outlook`` reads."""
_MINUTE = 60_000_000
_FOLD_EVERY = 30
"""Minutes between searches for rows to fold."""
_FOLDED = 500
"""The most rows that one transaction folds."""
_ACTIONS_KEPT, _MOST_ACTIONS = 400 * 86_400_000_000, 1_000_000
"""Microseconds for which rows of the audit log are kept, and the most that are kept."""
_REST = 4.0
"""Pauses between steps, as a multiple of the time that the last step took."""
_MOST_QUEUES = 1000
"""The most queues of which samples are stored."""
_OFTEN, _BUSY = 1.0, 0.01


class Upkeep:
    """A duty: do the turn that is due, one step at a call. ``interval`` is short while there are more steps.

    It asks the database for nothing until an outlook, which the ticker reads anyway, says that a turn is due.
    """

    def __init__(self, store: Store) -> None:
        self.interval = _OFTEN
        self._store = store
        self._due: int | None = None
        """The time by the database's clock at which the turn was found due."""
        self._steps: Iterator[object] | None = None

    def see(self, outlook: Outlook) -> None:
        """Note whether a turn is due. One that is far ahead is, too: the clock that has set it was wrong."""
        turn = outlook.next_turn
        if turn is None or not outlook.now < turn <= outlook.now + 2 * _MINUTE:
            self._due = outlook.now

    def __call__(self) -> None:
        """Do one step of the turn, if one is due."""
        if self._steps is None and self._due is not None:
            now, self._due = self._due, None
            self._steps = self.turn(now)
        if self._steps is None:
            return
        started = time.monotonic()
        self.interval = _OFTEN
        steps, self._steps = self._steps, None
        if next(steps, self) is not self:  # an outage ends the turn; the next one does the rest
            self._steps = steps
            self.interval = max(_BUSY, _REST * (time.monotonic() - started))

    def turn(self, now: int) -> Iterator[object]:
        """Take the turn if no one else has, and do its work in steps. Yields after each of them."""
        if not self._store.take_turn(TURN, now, _MINUTE):
            return
        take_samples(self._store, now)
        yield None
        if now // _MINUTE % _FOLD_EVERY == 0:
            while self._store.fold_history(now, _FOLDED):
                yield None
            while self._store.prune_actions(now - _ACTIONS_KEPT, _MOST_ACTIONS, _FOLDED):
                yield None
        for retention in self._store.retentions():
            yield from self._store.apply_retention(retention, now)


def take_samples(store: Store, now: int) -> None:
    """Store how each queue is now: those with unfinished tasks, and those that a live worker serves by name."""
    workers = live_workers(store)
    counts = store.queue_counts()
    served = {name for worker in workers for name in queues_of(worker) or () if not name.endswith("*")}
    at = now - now % _MINUTE
    samples = []
    for queue in sorted({*counts, *served})[:_MOST_QUEUES]:
        found = counts.get(queue, QueueCounts())
        since = store.waiting_since(queue, now) if found.pending + found.failed > found.blocked else None
        waited = None if since is None else max(0, now - since)
        serving = sum(serves(worker, queue) is True for worker in workers)
        samples.append(SampleRecord(_MINUTE // 1_000_000, at, queue, *found, waited, serving))
    if samples:
        store.write_samples(samples)

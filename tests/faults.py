"""Simulated outages on every engine: a wrapper around the store of a handle."""

from __future__ import annotations

import time
from collections.abc import Callable

from dbtaskqueue import StoreUnavailable, TaskQueue
from dbtaskqueue._store.contract import Exchanged


class Faults:
    """Makes exchanges of a handle's store fail: the first ``times`` that ``lose`` selects by their arguments.

    ``stored``: the exchange is carried out and only its answer is lost. ``in_doubt``: the error says that it may have
    been carried out. ``then_away``: after these failures, the next exchange fails, too, because the database is
    unavailable. ``pause``: seconds until an answer arrives.
    """

    def __init__(self, queue: TaskQueue) -> None:
        self.lose: Callable[[dict[str, object]], object] = lambda asked: False
        self.times = 1_000_000
        self.stored = False
        self.in_doubt = False
        self.then_away = False
        self.pause = 0.0
        self.lost = 0
        self._ask = queue.store.exchange
        queue.store.exchange = self._exchange  # type: ignore[method-assign, assignment]

    def heal(self) -> None:
        """Simulate no more failures."""
        self.lose = lambda asked: False
        self.then_away = False

    def _exchange(self, worker: int, **asked: object) -> Exchanged:
        if self.lost >= self.times:
            if self.then_away:
                raise StoreUnavailable("unavailable")
            self.heal()
        lost = self.lose(asked)
        self.lost += bool(lost)
        if lost and not self.stored:
            raise StoreUnavailable("unavailable", maybe_done=self.in_doubt)
        answer = self._ask(worker, **asked)  # type: ignore[arg-type]
        time.sleep(self.pause)
        if lost:
            raise StoreUnavailable("no answer", maybe_done=True)
        return answer

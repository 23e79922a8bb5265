"""A database that does not answer when a test wants it so, on every engine: the store of a handle, wrapped."""

from __future__ import annotations

import time
from collections.abc import Callable

from dbtaskqueue import StoreUnavailable, TaskQueue
from dbtaskqueue._store.contract import Exchanged


class Faults:
    """Lets exchanges of a handle's store fail: those that ``lose`` chooses by their arguments, ``times`` of them.

    ``stored``: they are done all the same, it is the answer that is lost. ``in_doubt``: nobody can tell whether they
    were. ``then_away``: after that the database cannot be reached. ``pause``: seconds until an answer is heard.
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
        """Let everything through from now on."""
        self.lose = lambda asked: False
        self.then_away = False

    def _exchange(self, worker: int, **asked: object) -> Exchanged:
        if self.lost >= self.times:
            if self.then_away:
                raise StoreUnavailable("away")
            self.heal()
        lost = self.lose(asked)
        self.lost += bool(lost)
        if lost and not self.stored:
            raise StoreUnavailable("away", maybe_done=self.in_doubt)
        answer = self._ask(worker, **asked)  # type: ignore[arg-type]
        time.sleep(self.pause)
        if lost:
            raise StoreUnavailable("no answer", maybe_done=True)
        return answer

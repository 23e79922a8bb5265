"""Metrics that are counted in the background, so that no request waits for a count."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .._store.contract import Store
from .._system.log import event
from ..errors import TaskQueueError
from ..monitoring.pacing import SHARE, pause_after
from .census import Counting
from .exposition import Exposition, expose
from .families import Families, unavailable

_INTERVAL = 5.0
"""The least seconds between two counts."""
_IDLE = 300.0
"""Seconds without a request after which counting pauses."""
_PATIENCE = 5.0
"""The most seconds for which a request waits for the first count, or for the first one after a pause."""
_LATE = 60.0
"""Seconds by which a count may be late before the database counts as unavailable."""


class MetricsCache:
    """The metrics of a database, for one who asks for them again and again.

    A thread counts, for at most 5 % of the time and only while someone asks; ``render`` returns the last result.
    ``store``: the database, or a function that returns it and may raise TaskQueueError, if it is not open yet.
    """

    def __init__(self, store: Store | Callable[[], Store]) -> None:
        self._open = store if callable(store) else lambda: store
        self._families = Families()
        self._counting: Counting | None = None
        self._away = expose(unavailable())
        self._last = self._away
        self._good_until = 0.0
        self._asked_at = 0.0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._closed = False
        self._is_away = False

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return the metrics and their Content-Type: OpenMetrics or Prometheus text, as an Accept header wants it.

        If the database is unavailable, ``dbtaskqueue_up`` is 0, and the other counts are missing. Only the first call,
        and one after a pause of minutes, waits for a count, for at most 5 s.
        """
        self._asked_at = time.monotonic()
        self._start()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_good() or self._closed, _PATIENCE)
            found = self._last if self._is_good() else self._away
        return found.answer(accept or "")

    def close(self) -> None:
        """Stop counting. A count in progress is not waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_good(self) -> bool:
        return time.monotonic() < self._good_until

    def _start(self) -> None:
        """Start the thread, also in the child of a fork."""
        with self._starting:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="dbtaskqueue-metrics", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            found, pause = self._count()
            with self._changed:
                self._last = found
                self._good_until = time.monotonic() + pause + _LATE
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed, pause)
                self._changed.wait_for(lambda: self._closed or self._is_wanted())

    def _is_wanted(self) -> bool:
        return time.monotonic() < self._asked_at + _IDLE

    def _count(self) -> tuple[Exposition, float]:
        """Return the metrics, and how long to pause after this count."""
        started = time.monotonic()
        before = self._counting.spent if self._counting else 0.0
        try:
            if self._counting is None:
                self._counting = Counting(self._open())
            found = expose(self._families.of(self._counting()))
        except TaskQueueError as error:
            self._report(error)
            return self._away, _INTERVAL
        self._is_away = False
        reused = self._counting.spent - before if self._counting else 0.0
        return found, max(_INTERVAL, pause_after(time.monotonic() - started - reused, SHARE / 2))

    def _report(self, error: TaskQueueError) -> None:
        """Log the beginning of an outage."""
        if not self._is_away and not self._closed:
            event(logging.WARNING, "metrics cannot be counted", error=str(error))
        self._is_away = True

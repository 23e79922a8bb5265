"""The loop that runs duties, all in one thread and in the same way.

A duty is called each time its ``interval`` in seconds has passed. Each call may change the interval. If the database is
unavailable, that is reported once, and the duty is tried again after its interval.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .._system.log import event
from ..errors import StoreUnavailable, TaskQueueError
from ..events import Outage


class Duty(Protocol):
    """Something that is done at regular intervals."""

    interval: float

    def __call__(self) -> object:
        """Do it once."""


class MaintenanceLoop:
    """A thread that runs duties, and calls that other threads have passed to ``soon``."""

    def __init__(self, name: str, outage: Outage) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._duties: dict[Duty, float] = {}
        self._unfinished: list[Callable[[], object]] = []
        self._failing: set[Callable[[], object]] = set()
        """What has found the database unavailable, until it succeeds. Other duties may succeed without asking it."""
        self._outage = outage
        self._thread = threading.Thread(target=self._run, name=f"dbtaskqueue-{name}", daemon=True)

    def add(self, duty: Duty) -> None:
        """Run the duty from now on."""
        self._inbox.put(lambda: self._duties.setdefault(duty, time.monotonic() + duty.interval))

    def remove(self, duty: Duty) -> None:
        """Stop running the duty."""
        self._inbox.put(lambda: self._remove(duty))

    def soon(self, act: Callable[[], object]) -> None:
        """Call ``act`` once, soon. Repeat it each second while the database is unavailable.

        Safe to call anywhere, even in a finalizer in the middle of a transaction.
        """
        self._inbox.put(act)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the calls passed to ``soon``. Wait for it, unless called in it."""
        self._inbox.put(None)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            next_turn = min(self._duties.values(), default=time.monotonic() + 60)
            try:
                act = self._inbox.get(timeout=max(0.0, next_turn - time.monotonic()))
            except queue.Empty:
                self._take_turns()
                continue
            if act is None:
                return
            if not self._attempt(act):
                self._unfinished.append(act)

    def _take_turns(self) -> None:
        now = time.monotonic()
        self._unfinished = [act for act in self._unfinished if not self._attempt(act)]
        for duty in [duty for duty, turn in self._duties.items() if turn <= now]:
            started = time.monotonic()
            self._attempt(duty)
            self._duties[duty] = started + duty.interval

    def _remove(self, duty: Duty) -> None:
        self._duties.pop(duty, None)
        self._failing.discard(duty)

    def _attempt(self, act: Callable[[], object]) -> bool:
        """Call ``act``. Return False if the database is unavailable."""
        try:
            act()
        except StoreUnavailable as error:
            self._failing.add(act)
            self._outage.starts(error)
            return False
        except TaskQueueError as error:
            event(logging.WARNING, "maintenance", error=error)
        except Exception as error:
            event(logging.ERROR, "maintenance failed", exc_info=error)
        self._failing.discard(act)
        if not self._failing:
            self._outage.ends()
        return True

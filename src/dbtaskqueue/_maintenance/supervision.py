"""Notifies systemd that a worker is ready, what it does, and that its loops are running.

A worker is healthy while its own loops turn: its main loop, and that of the executor's thread if it has one. How long
task code takes does not matter here. A turn may last as long as a database call. The longest of those, with a server
that does not answer or a locked file, takes a minute. So a loop hangs if it has not turned for longer than that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .._system.log import event
from .._system.systemd import Notifier
from ..events import Events, Outage
from .loop import MaintenanceLoop
from .stacks import stacks

HANGS = 90.0
"""Seconds without a turn after which a loop counts as hanging."""
_STATUS = 5.0


class Supervision:
    """Notifies systemd from ``ready`` until ``close``, in a thread of its own; does nothing without systemd.

    ``last_turn``: when the slowest loop made its last turn, in monotonic time. ``status``: a short line.
    """

    def __init__(
        self, notifier: Notifier, events: Events, last_turn: Callable[[], float], status: Callable[[], str]
    ) -> None:
        self._notifier = notifier
        self._events = events
        self._last_turn = last_turn
        self._status = status
        self._loop: MaintenanceLoop | None = None

    def ready(self) -> None:
        """Report that the worker is ready."""
        if self._loop is not None or not self._notifier.is_there:
            return
        self._loop = MaintenanceLoop("systemd", Outage("systemd", self._events))
        self._loop.add(_Status(self._notifier, self._status))
        if self._notifier.watchdog is not None:
            self._loop.add(_Watchdog(self._notifier, self._notifier.watchdog, self._last_turn))
        self._loop.start()

    def stopping(self) -> None:
        """Report that the worker is stopping."""
        self._notifier.notify(STOPPING=1, STATUS=self._status())

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None:
            self._loop.stop()


class _Status:
    """A duty: send READY until it has arrived, and the status when it has changed."""

    interval = _STATUS

    def __init__(self, notifier: Notifier, status: Callable[[], str]) -> None:
        self._notifier = notifier
        self._status = status
        self._sent: str | None = None
        self()

    def __call__(self) -> None:
        status = self._status()
        if status == self._sent:
            return
        ready = {"READY": 1} if self._sent is None else {}
        if self._notifier.notify(**ready, STATUS=status):
            self._sent = status


class _Watchdog:
    """A duty: keep systemd's watchdog from firing while the worker's loops turn."""

    def __init__(self, notifier: Notifier, seconds: float, last_turn: Callable[[], float]) -> None:
        self.interval = seconds / 2
        self._notifier = notifier
        self._last_turn = last_turn
        self._hangs = False

    def __call__(self) -> None:
        silence = time.monotonic() - self._last_turn()
        if silence <= HANGS:
            self._hangs = False
            self._notifier.notify(WATCHDOG=1)
        elif not self._hangs:
            self._hangs = True
            event(
                logging.ERROR,
                "the worker hangs, so systemd's watchdog is no longer notified",
                seconds=round(silence),
                stack=stacks(lambda name: name.startswith(("MainThread", "dbtaskqueue-"))),
            )

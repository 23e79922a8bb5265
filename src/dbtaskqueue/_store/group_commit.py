"""Threads that want to write at the same moment share one commit. A single thread does not wait.

A thread that arrives when there is no leader becomes the leader. It commits what waits, makes the next waiting thread
the leader, and only then wakes the threads whose work is done, so that the next commit runs meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_CHECK_INTERVAL = 1.0
"""Seconds after which a waiting thread checks by itself: an interrupt may have hit the thread that was to wake it."""


class Request:
    """One thread's part of a shared transaction: ``work``, then ``done`` with a result or an error.

    ``alone``: it is one statement, which needs no transaction if no other thread shares it.
    """

    __slots__ = ("alone", "done", "error", "leads", "ready", "result", "work")

    def __init__(self, work: Callable[[Any], Any], alone: bool) -> None:
        self.work = work
        self.alone = alone
        self.done = False
        self.leads = False
        self.ready: threading.Lock | None = None
        self.result: Any = None
        self.error: Exception | None = None

    def wake(self) -> None:
        """Let its thread continue, if it waits."""
        if self.ready is not None and self.ready.locked():
            self.ready.release()


class GroupCommit:
    """The writing threads of a process. ``commit`` runs a list of requests in one transaction."""

    def __init__(self, commit: Callable[[list[Request]], None]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: list[Request] = []
        self._is_led = False

    def ask(self, work: Callable[[Any], Any], alone: bool = False) -> Any:
        """Commit ``work``, alone or with that of other threads; return its result or raise its error."""
        request = Request(work, alone)
        try:
            with self._lock:
                request.leads, self._is_led = not self._is_led, True
                if not request.leads:
                    request.ready = threading.Lock()
                    request.ready.acquire()
                    self._waiting.append(request)
            self._await_turn(request)
            if not request.done:
                self._lead(request)
        except BaseException:  # after an interrupt, its work must not be written later
            self._withdraw(request)
            raise
        if request.error is not None:
            raise request.error
        return request.result

    @staticmethod
    def _await_turn(request: Request) -> None:
        while request.ready is not None and not request.ready.acquire(timeout=_CHECK_INTERVAL):
            if request.done or request.leads:
                return

    def _lead(self, leader: Request) -> None:
        batch = [leader]
        try:
            if leader.ready is not None:  # it has waited, and others may have come
                with self._lock:
                    batch, self._waiting = self._waiting, []
            self._commit(batch)
        finally:
            with self._lock:
                if len(batch) > 1:
                    self._waiting[:0] = [r for r in batch if not r.done and r is not leader]
                self._pass_on()
                leader.leads = False
            for request in batch:
                if request.done and request is not leader:
                    request.wake()

    def _pass_on(self) -> None:
        self._is_led = bool(self._waiting)
        if self._waiting and not self._waiting[0].leads:
            self._waiting[0].leads = True
            self._waiting[0].wake()

    def _withdraw(self, request: Request) -> None:
        with self._lock:
            if request in self._waiting:
                self._waiting.remove(request)
            if request.leads:
                self._pass_on()

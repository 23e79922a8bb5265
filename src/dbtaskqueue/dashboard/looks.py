"""Looks at the database that all viewers share.

A subject, such as the overview or task 17, is read when someone asks for it and the last look is older than a second.
So nothing is asked when no one looks, and a hundred viewers ask as often as one. A look that took a time rests at least
four times as long. What takes long, such as counting, is read by a thread meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from .._system import clock
from ..errors import StoreUnavailable, TaskQueueError

T = TypeVar("T")
_log = logging.getLogger("dbtaskqueue.dashboard")

EVERY = 0.95
"""Seconds for which a look is good. Browsers ask once a second."""
_REST = 4
_BACKGROUND_REST = 20
_FIRST_COUNT = 0.1
"""Seconds that the first request waits for what a thread reads."""
_PATIENCE = 5.0
_AFTER_ERROR = 5.0
_MOST = 200


class Look(NamedTuple, Generic[T]):
    """What a subject was ``at`` a moment, in microseconds.

    ``version``: changes with the value. ``is_old``: the database has not answered since.
    """

    value: T
    at: int
    version: str
    is_old: bool = False


class _Subject:
    """One thing that is read: its last look, and when the next one may start, on the monotonic clock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.look: Look[Any] | None = None
        self.next_at = 0.0
        self.asked_at = 0.0
        self.error: StoreUnavailable | None = None
        self.known = threading.Event()
        self.is_reading = False


class Looks:
    """The looks of one dashboard. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subjects: dict[Hashable, _Subject] = {}
        self._boot = secrets.token_hex(4)
        self._versions = 0

    def look(self, key: Hashable, read: Callable[[], T], every: float = EVERY) -> Look[T]:
        """Return the latest look. If the database does not answer, this is the last one, marked as old.

        Raises StoreUnavailable if there is none.
        """
        subject = self._subject(key)
        self._refresh(subject, read, every)
        if subject.look is None:
            raise subject.error or StoreUnavailable("the database does not answer yet")
        return subject.look._replace(is_old=subject.error is not None)

    def part(self, key: Hashable, read: Callable[[], T], every: float = EVERY) -> T:
        """Return what a look is made of. Raises StoreUnavailable if the database does not answer."""
        subject = self._subject(key)
        self._refresh(subject, read, every)
        if subject.error is not None or subject.look is None:
            raise subject.error or StoreUnavailable("the database does not answer yet")
        value: T = subject.look.value
        return value

    def counted(
        self, key: Hashable, read: Callable[[], T], every: float = EVERY, *, wait: float = _FIRST_COUNT
    ) -> T | None:
        """Return what a thread reads meanwhile, at most a twentieth of the time.

        None if it is not known yet, and not within ``wait`` seconds.
        """
        subject = self._subject(key)
        with self._lock:
            starts = not subject.is_reading and time.monotonic() >= subject.next_at
            subject.is_reading = subject.is_reading or starts
        if starts:
            threading.Thread(target=self._count, args=(subject, read, every), name="dashboard", daemon=True).start()
        if subject.look is None:
            subject.known.wait(wait)
        return None if subject.look is None else subject.look.value

    def forget(self, key: Hashable) -> None:
        """Read a subject again the next time: someone has changed it."""
        with self._lock:
            if subject := self._subjects.get(key):
                subject.next_at = 0.0

    def forget_all(self) -> None:
        """Read everything again the next time, so that a user who has changed something sees it."""
        with self._lock:
            for subject in self._subjects.values():
                subject.next_at = 0.0

    def _subject(self, key: Hashable) -> _Subject:
        now = time.monotonic()
        with self._lock:
            found = self._subjects.get(key)
            if found is None:
                if len(self._subjects) >= _MOST:
                    oldest = sorted(self._subjects, key=lambda each: self._subjects[each].asked_at)
                    for each in oldest[: _MOST // 4]:
                        del self._subjects[each]
                found = self._subjects[key] = _Subject()
            found.asked_at = now
            return found

    def _refresh(self, subject: _Subject, read: Callable[[], Any], every: float) -> None:
        """Read the subject if it is time to. While another thread does, the last look is good enough."""
        if subject.look is not None and time.monotonic() < subject.next_at:
            return
        if not subject.lock.acquire(timeout=0 if subject.look is not None else _PATIENCE):
            return
        try:
            if time.monotonic() >= subject.next_at:
                self._read(subject, read, every, _REST)
        finally:
            subject.lock.release()

    def _count(self, subject: _Subject, read: Callable[[], Any], every: float) -> None:
        try:
            self._read(subject, read, every, _BACKGROUND_REST)
        except Exception as error:  # a thread has no caller; the page shows what was known before
            subject.next_at = time.monotonic() + max(every, _AFTER_ERROR)
            _log.warning("the dashboard could not read: %s", error, exc_info=not isinstance(error, TaskQueueError))
        finally:
            with self._lock:
                subject.is_reading = False
            subject.known.set()

    def _read(self, subject: _Subject, read: Callable[[], Any], every: float, rest: float) -> None:
        started, at = time.monotonic(), clock.now()
        try:
            value = read()
        except StoreUnavailable as error:
            subject.error = error
        else:
            subject.error = None
            last = subject.look
            is_same = last is not None and last.value == value
            subject.look = Look(value, at, last.version if is_same and last is not None else self._next_version())
        now = time.monotonic()
        subject.next_at = started + max(every, (now - started) * (1 + rest))

    def _next_version(self) -> str:
        with self._lock:
            self._versions += 1
            return f"{self._boot}-{self._versions}"

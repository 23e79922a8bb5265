"""The progress of a task: how it is reported, stored and read. Pure."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

LONGEST_MESSAGE = 500
_NUMBERS = int, float  # created once, since it is used in inner loops


class Progress(NamedTuple):
    """What a running attempt reported last: ``done`` of ``total``, in units of its own.

    ``eta``: the seconds that the rest will take at the pace so far; None if the total or the pace is unknown.
    """

    done: float
    total: float | None = None
    message: str | None = None
    eta: float | None = None


class Usage(NamedTuple):
    """What the processes of a task use: memory in bytes, CPU seconds so far, and how many processes there are."""

    memory: int
    cpu: float
    processes: int


class ProgressTracker:
    """The progress of one attempt. An update is fast enough for an inner loop, as it stores nothing."""

    __slots__ = ("_latest", "_started", "_stored")

    def __init__(self) -> None:
        self._started: tuple[float, float] | None = None
        self._latest: tuple[float, float | None, str | None] | None = None
        self._stored: tuple[float, float | None, str | None] | None = None

    def update(self, done: float, total: float | None, message: str | None) -> None:
        """Note the latest progress. Raises ValueError for something that is not a number."""
        if not (isinstance(done, _NUMBERS) and -1e308 <= done <= 1e308):
            raise ValueError(f"done must be a number, not {done!r}")
        if total is not None and not (isinstance(total, _NUMBERS) and -1e308 <= total <= 1e308):
            raise ValueError(f"total must be a number or None, not {total!r}")
        if self._started is None:
            self._started = time.monotonic(), done
        self._latest = done, total, message

    @property
    def latest(self) -> tuple[float, float | None, str | None] | None:
        """The latest progress, a new object after each update."""
        return self._latest

    def take_changed(self) -> str | None:
        """Return the latest progress as JSON; None if it has not changed since the last call."""
        latest = self._latest
        if latest is None or latest is self._stored:
            return None
        self._stored = latest
        done, total, message = latest
        return json.dumps([done, total, None if message is None else _clean(message), self._eta(done, total)])

    def _eta(self, done: float, total: float | None) -> float | None:
        if self._started is None or total is None:
            return None
        started, first = self._started
        if done <= first:
            return None
        return round(max(0.0, (total - done) * (time.monotonic() - started) / (done - first)), 1)


def read(text: str | None) -> Progress | None:
    """Return stored progress; None if there is none, or if it cannot be read."""
    if text is None:
        return None
    try:
        done, total, message, eta = json.loads(text)
    except (ValueError, TypeError):
        return None
    return Progress(done, total, message, eta)


def read_usage(text: str | None) -> Usage | None:
    """Return the stored usage of a task; None if there is none, or if it cannot be read."""
    try:
        found = json.loads(text or "null")
        return Usage(int(found["memory"]), float(found["cpu"]), int(found["processes"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def part_done(progress: Progress | None) -> float | None:
    """Return the part that is done, from 0 to 1; None if it is not known."""
    if progress is None or not isinstance(progress.total, int | float) or not isinstance(progress.done, int | float):
        return None
    return min(1.0, max(0.0, progress.done / progress.total)) if progress.total > 0 else None


def _clean(message: object) -> str:
    text = str(message)[:LONGEST_MESSAGE]
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")

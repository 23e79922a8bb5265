"""Inside a task: ``current_task()`` and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from . import payload
from ._store.base import TaskRecord
from .payload import JSON


class RunningTask:
    """The task that the calling code runs in, as of its start.

    ``token`` is the fencing number of the claim; it may guard writes elsewhere, too.
    """

    __slots__ = ("_draining", "_record", "attempt", "cancelled")

    def __init__(self, record: TaskRecord, attempt: int, draining: Callable[[], bool]) -> None:
        self._record = record
        self._draining = draining
        self.attempt = attempt
        """The number of this attempt, from 1."""
        self.cancelled = False
        """Whether the task was asked to end, or its claim is gone. Return or raise soon."""

    @property
    def id(self) -> int:
        """The task's id."""
        return self._record.id

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._record.queue

    @property
    def payload(self) -> JSON:
        """What it works on; a fresh copy at each call."""
        return payload.decode(self._record.payload)  # type: ignore[arg-type]

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final; None: never."""
        return self._record.max_attempts

    @property
    def token(self) -> int:
        """The fencing number of the claim."""
        return self._record.token

    @property
    def function(self) -> str | None:
        """The name of its task function, None where a callback runs it."""
        return self._record.function

    @property
    def should_stop(self) -> bool:
        """Whether the worker is draining: finish soon, or raise ReleaseTask to go on elsewhere."""
        return self._draining()


_current: ContextVar[Callable[[], RunningTask]] = ContextVar("dbtaskqueue_current_task")
enter, leave = _current.set, _current.reset
"""For the session: say how to get the current task of this thread, and that it is over."""


def current_task() -> RunningTask:
    """The task that is running here. RuntimeError outside of one."""
    try:
        return _current.get()()
    except LookupError:
        raise RuntimeError("current_task() is for code that runs inside a task") from None

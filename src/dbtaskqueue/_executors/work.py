"""What a session hands to an executor, and what comes back in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._store.base import Note, TaskRecord
from ..keeper import Keeper
from ..progress import Tally
from ..running import RunningTask


class Work:
    """A claimed task on its way through an executor.

    ``begun_at``, ``ended_at``: when its code began and ended (microseconds), None before.
    ``begin_stored``: whether the database knows that it began. It ended with ``error``, or with
    ``result`` as JSON text (None for none). ``cancelled`` reaches the running task whenever it begins.
    ``stop``, set where code that runs can be stopped, is called when it is cancelled, in any thread.
    ``given_back``: it was cancelled because the worker stops; unless it ends well, it is released.
    """

    __slots__ = (
        "_running",
        "begin_stored",
        "begun_at",
        "cancelled",
        "ended_at",
        "error",
        "given_back",
        "keeper",
        "record",
        "result",
        "stop",
        "tally",
    )

    def __init__(self, record: TaskRecord, *, begin_stored: bool) -> None:
        self.record = record
        self.begin_stored = begin_stored
        self.begun_at: int | None = None
        self.ended_at = 0
        self.cancelled = False
        self.given_back = False
        self.stop: Callable[[], None] | None = None
        self.result: str | None = None
        self.error: BaseException | None = None
        self.keeper: Keeper | None = None
        self.tally: Tally | None = None
        self._running: RunningTask | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its code has stored its end itself, in a transaction of its own."""
        return self.keeper is not None and self.keeper.has_ended

    def note(self) -> Note | None:
        """Its progress, if it has told any since the last time."""
        news = None if self.tally is None else self.tally.news()
        return None if news is None else Note(self.record.id, self.record.token, "progress", news)

    @property
    def unstored_begin(self) -> int | None:
        """When it began, if the database does not know it yet."""
        return None if self.begin_stored else self.begun_at

    @property
    def seconds(self) -> float:
        """How long its code took."""
        took = self.ended_at - (self.begun_at or 0)
        return took / 1e6 if took > 0 else 0.0  # the clock may have been set back

    def cancel(self) -> None:
        """Ask the task's code to end."""
        self.cancelled = True
        if self._running is not None:
            self._running.cancelled = True
        if (stop := self.stop) is not None:
            stop()

    def running(self, make: Callable[[Work, int], RunningTask]) -> RunningTask:
        """What ``current_task()`` gives to its code; made when somebody asks, for the attempt of that number."""
        if self._running is None:
            self._running = make(self, self.record.attempt if self.begin_stored else self.record.attempt + 1)
            self._running.cancelled = self.cancelled
        return self._running


class TaskCode(Protocol):
    """The code of tasks, as the session knows it; an executor chooses where it runs.

    Neither way of executing it raises anything: how the code ended is noted in the work.
    """

    def is_async(self, work: Work) -> bool:
        """Whether the code is an ``async def``."""

    def execute(self, work: Work) -> None:
        """Run it in this thread to its end; an ``async def`` in an event loop of its own."""

    async def execute_async(self, work: Work) -> None:
        """Run an ``async def`` in the event loop of the asyncio task that awaits this."""

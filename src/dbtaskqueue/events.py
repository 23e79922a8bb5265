"""What happened, as typed facts. Each is emitted once, where it happens, after it is stored.

The log, ``on_error`` and extensions listen to them. Metrics and a history will be listeners, too. A listener must be
fast, since it runs in the thread that stored the fact. An exception that it raises is logged and has no other effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from ._store.contract import End, NewTask, TaskRecord
from ._system.log import event, first_line, logger
from .errors import ChildFailed
from .outcomes import retry_in
from .states import TaskState

F = TypeVar("F", bound=NamedTuple)


class TasksEnqueued(NamedTuple):
    """Tasks were stored in one transaction. If that is the caller's own transaction, it may still be rolled back."""

    ids: Sequence[int]
    tasks: Sequence[NewTask]


class TaskStarted(NamedTuple):
    """An attempt has started. ``record`` is as of the claim, ``attempt`` the number of this attempt."""

    record: TaskRecord
    attempt: int


class TaskEnded(NamedTuple):
    """A claim that had started, or was to start, has ended.

    ``record`` is as of the claim, ``state`` the state afterwards, and ``end`` what was stored. ``error`` is the
    exception of a failed attempt; for a plain ``fetch()`` user, only its text in ``end`` is known. ``seconds`` is how
    long the attempt ran. ``in_worker`` is False for a plain ``fetch()`` user.
    """

    record: TaskRecord
    attempt: int
    state: TaskState
    end: End
    error: BaseException | None = None
    seconds: float | None = None
    in_worker: bool = True

    @property
    def retry_in(self) -> float | None:
        """Seconds until the task is due again; None for never."""
        return retry_in(self.end, self.state)


class ClaimLost(NamedTuple):
    """A task has ended, but its claim was lost before: nothing was stored. ``state``: None if it was deleted."""

    record: TaskRecord
    attempt: int
    state: str | None


class AttemptLost(NamedTuple):
    """This process has rescued a task that a lost worker ran. ``record`` is as after the rescue."""

    record: TaskRecord


class WorkerJoined(NamedTuple):
    """This process has added its worker's row."""

    worker: int


class WorkerLeft(NamedTuple):
    """This process has removed its worker's row."""

    worker: int


class WorkerLost(NamedTuple):
    """This process has marked another worker lost, and has released some number of its tasks."""

    worker: int
    tasks: int


class OutageStarted(NamedTuple):
    """The database became unavailable. ``what`` names the part that noticed it first."""

    what: str
    error: Exception


class OutageEnded(NamedTuple):
    """The database is available again, after some number of failed tries."""

    what: str
    failures: int


class Events:
    """Passes facts to their listeners. The log always listens.

    Listeners of ``parent`` get the facts, too: those of a worker are also facts of its queue.
    """

    def __init__(self, parent: Events | None = None) -> None:
        self._parent = parent
        self._listeners: dict[type[Any], list[Callable[[Any], object]]] = {}

    def listen(self, kind: type[F], listener: Callable[[F], object]) -> None:
        """Call ``listener`` with each fact of this kind from now on."""
        self._listeners.setdefault(kind, []).append(listener)

    def wants(self, kind: type[Any]) -> bool:
        """Return whether a listener besides the log wants this kind. If not, facts about each task are not created."""
        return kind in self._listeners or (self._parent is not None and self._parent.wants(kind))

    def emit(self, fact: NamedTuple) -> None:
        """Call all listeners. If one raises, that is logged, and the others are still called."""
        if self._parent is None and (log := _LOG.get(type(fact))) is not None:
            log(fact)
        for listener in self._listeners.get(type(fact), ()):
            try:
                listener(fact)
            except Exception as error:
                event(logging.ERROR, "a listener raised", exc_info=error, event=type(fact).__name__)
        if self._parent is not None:
            self._parent.emit(fact)


class Outage:
    """Emits one fact when the database becomes unavailable, and one when it is available again, not one for each try.

    A ``silent`` one logs at level DEBUG only: if two parts notice the same outage, one of them reports it.
    """

    def __init__(self, what: str, events: Events, *, silent: bool = False) -> None:
        self._what = what
        self._events = events
        self._silent = silent
        self._failures = 0

    def starts(self, error: Exception) -> None:
        """Count a failure; emit the first."""
        self._failures += 1
        if self._failures == 1:
            fact = OutageStarted(self._what, error)
            _log_outage(fact, logging.DEBUG) if self._silent else self._events.emit(fact)

    def ends(self) -> None:
        """Call this at every success. The first one after a failure is emitted."""
        if self._failures:
            failures, self._failures = self._failures, 0
            fact = OutageEnded(self._what, failures)
            _log_end_of_outage(fact, logging.DEBUG) if self._silent else self._events.emit(fact)


# -- the log ---------------------------------------------------------------------------------------


def logs_finished_tasks() -> bool:
    """Return whether the log shows tasks that did not fail."""
    return logger.isEnabledFor(logging.INFO)


def _fields(record: TaskRecord, attempt: int) -> dict[str, Any]:
    return {"task_id": record.id, "queue": record.queue, "function": record.function, "attempt": attempt}


def _log_end(fact: TaskEnded) -> None:
    if not fact.in_worker:
        return
    fields = _fields(fact.record, fact.attempt)
    if fact.error is None:
        event(logging.INFO, f"task {fact.state}", **fields, seconds=round(fact.seconds or 0.0, 3))
        return
    name = fact.error.name if isinstance(fact.error, ChildFailed) else type(fact.error).__name__
    message = first_line(fact.error).removeprefix(f"{name}: ")  # the error of a child repeats its name
    fields |= {
        "max_attempts": fact.record.max_attempts,
        "retry_in": "never" if fact.retry_in is None else fact.retry_in,
    }
    event(logging.WARNING, f"task {fact.state}", **fields, error=name, message=message)


def _log_lost_claim(fact: ClaimLost) -> None:
    fields = _fields(fact.record, fact.attempt)
    event(logging.WARNING, "the claim on a task was lost before it finished", **fields, state=fact.state)


def _log_lost_worker(fact: WorkerLost) -> None:
    event(logging.WARNING, "a worker was lost, its tasks are released", worker=fact.worker, tasks=fact.tasks)


def _log_outage(fact: OutageStarted, level: int = logging.ERROR) -> None:
    event(level, f"{fact.what}: database unavailable, retrying", error=fact.error)


def _log_end_of_outage(fact: OutageEnded, level: int = logging.WARNING) -> None:
    event(level, f"{fact.what}: database available again", failures=fact.failures)


_LOG: dict[type[Any], Callable[[Any], None]] = {
    TaskEnded: _log_end,
    ClaimLost: _log_lost_claim,
    WorkerLost: _log_lost_worker,
    OutageStarted: _log_outage,
    OutageEnded: _log_end_of_outage,
}

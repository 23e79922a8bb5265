"""What a worker passes to an executor, and how the executor reports back."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._formats import command_line, payload
from .._formats.command_line import CommandLine
from .._formats.output import Output
from .._formats.progress import ProgressTracker
from .._store.contract import Note, TaskRecord
from .._system import clock
from ..checkpoints import Checkpoints
from ..current import RunningTask
from ..outcomes import Backoff

if TYPE_CHECKING:
    from .runner import Runner


class TaskRun:
    """A claimed task in an executor, and how it ran.

    - ``start_stored``: whether the database knows that it has started.
    - ``started_at``, ``ended_at``: when its code started and ended, in microseconds; None before. ``started`` is the
      start on the monotonic clock, in seconds.
    - ``result``: what it returned, as JSON text. ``error``: what it raised. ``backoff``: what the ``backoff`` of its
      function returned for the error.
    - ``cancelled``: whether it was asked to stop, perhaps before it starts. ``worker_stops``: it was cancelled because
      its worker stops, so it is released unless it finishes. ``exceeded``: the limit because of which it was stopped.
    - ``cpu`` (microseconds) and ``memory`` (bytes, the peak): what it used.

    While the code runs, its executor sets callbacks that may be called in any thread. ``stop()`` is called when the
    task is cancelled, ``suspend(True)`` suspends all of its processes and ``suspend(False)`` resumes them, and
    ``stacks()`` returns the stacks of its threads. ``pid`` is that of its own process.
    """

    __slots__ = (
        "__weakref__",
        "_has_ended",
        "_running",
        "_suspended_for",
        "_suspended_since",
        "backoff",
        "cancelled",
        "checkpoints",
        "cpu",
        "ended_at",
        "error",
        "exceeded",
        "memory",
        "output",
        "pid",
        "record",
        "result",
        "stacks",
        "start_stored",
        "started",
        "started_at",
        "stop",
        "suspend",
        "tracker",
        "usage",
        "worker_stops",
    )

    def __init__(self, record: TaskRecord, *, start_stored: bool) -> None:
        self.record = record
        self.start_stored = start_stored
        self.started_at: int | None = None
        self.started = 0.0
        self.ended_at = 0
        self.cancelled = False
        self.worker_stops = False
        self.exceeded: BaseException | None = None
        self.stop: Callable[[], None] | None = None
        self.suspend: Callable[[bool], None] | None = None
        self.stacks: Callable[[], str] | None = None
        self.pid: int | None = None
        self.result: str | None = None
        self.error: BaseException | None = None
        self.backoff: Backoff | None = None
        self.checkpoints: Checkpoints | None = None
        self.tracker: ProgressTracker | None = None
        self.output: Output | None = None
        self.usage: str | None = None
        self.cpu: int | None = None
        self.memory: int | None = None
        self._has_ended = False
        self._suspended_since: float | None = None
        self._suspended_for = 0.0
        self._running: RunningTask | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its code has stored the task's end itself, by ``transaction()``."""
        return self._has_ended or (self.checkpoints is not None and self.checkpoints.has_ended)

    def note_ended(self) -> None:
        """Note that its code has stored the task's end, in another process."""
        self._has_ended = True

    def write_output(self, data: bytes) -> None:
        """Add to its output."""
        if data:
            if self.output is None:
                self.output = Output()
            self.output.write(data)

    def notes(self) -> list[Note]:
        """Return what has changed since the last call: progress, output and usage."""
        if self.tracker is None and self.output is None and self.usage is None:
            return []
        changed = {
            "progress": None if self.tracker is None else self.tracker.take_changed(),
            "output": None if self.output is None else self.output.take_changed(),
            "usage": self.usage,
        }
        self.usage = None
        record = self.record
        now = clock.now()
        return [Note(record.id, record.token, name, value, now) for name, value in changed.items() if value is not None]

    @property
    def unstored_start(self) -> int | None:
        """When it started, if that is not stored yet; otherwise None."""
        return None if self.start_stored else self.started_at

    @property
    def attempt(self) -> int:
        """The number of this attempt."""
        return self.record.attempt if self.start_stored else self.record.attempt + 1

    @property
    def seconds(self) -> float:
        """How long its code ran."""
        took = self.ended_at - (self.started_at or 0)
        return took / 1e6 if took > 0 else 0.0  # the clock may have been set back

    # -- while it runs -----------------------------------------------------------------------------

    def cancel(self) -> None:
        """Request that the task's code stops."""
        self.cancelled = True
        if (stop := self.stop) is not None:
            stop()

    def running(self, make: Callable[[TaskRun, int], RunningTask]) -> RunningTask:
        """Return what its code gets from ``current_task()``; ``make`` makes it at the first call."""
        if self._running is None:
            self._running = make(self, self.attempt)
        return self._running

    @property
    def is_suspended(self) -> bool:
        """Whether its processes are suspended."""
        return self._suspended_since is not None

    @property
    def was_suspended(self) -> bool:
        """Whether its processes were suspended at any time."""
        return self._suspended_for > 0.0 or self._suspended_since is not None

    @property
    def suspended_for(self) -> int:
        """The microseconds for which its processes were suspended, and now are."""
        since = self._suspended_since
        return round((self._suspended_for + (0.0 if since is None else time.monotonic() - since)) * 1e6)

    def note_suspended(self, suspended: bool) -> None:
        """Note that its processes were suspended or resumed."""
        now = time.monotonic()
        if suspended:
            self._suspended_since = now
        elif self._suspended_since is not None:
            self._suspended_for += now - self._suspended_since
            self._suspended_since = None

    def clock(self) -> float:
        """Return the monotonic time without the time for which it was suspended. Limits use this clock."""
        now = time.monotonic() if self._suspended_since is None else self._suspended_since
        return now - self._suspended_for

    def forget_process(self) -> None:
        """Remove the callbacks: no process runs its code any more."""
        self.stop = self.suspend = self.stacks = self.pid = None

    def spend(self, cpu: float | None = None, memory: int | None = None) -> None:
        """Note the CPU seconds that it has used so far, and its memory in bytes now. The largest values are kept."""
        if cpu is not None:
            self.cpu = max(self.cpu or 0, round(cpu * 1e6))
        if memory is not None:
            self.memory = max(self.memory or 0, memory)

    def command_line(self) -> CommandLine:
        """Return what a command task runs, with its id, attempt and token in the environment.

        Raises PayloadError for an invalid command line.
        """
        command = command_line.from_payload(payload.decode(self.record.payload))  # type: ignore[arg-type]
        own = {"ID": self.record.id, "ATTEMPT": self.attempt, "TOKEN": self.record.token}
        variables = {f"DBTASKQUEUE_TASK_{name}": str(value) for name, value in own.items()}
        return command._replace(env={**command.env, **variables})


def take_all(waiting: deque[TaskRun]) -> list[TaskRun]:
    """Take everything that waits. Other threads may take from it at the same time."""
    taken: list[TaskRun] = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(waiting.popleft())
    return taken


class Settings(NamedTuple):
    """The settings of an executor: how many tasks it runs at the same time, how, and what children need.

    ``cancel_grace`` is the time from SIGTERM to SIGKILL in seconds. A child is replaced after ``tasks_per_child`` short
    tasks. ``url`` is the database's.
    """

    concurrency: int
    cancel_grace: float
    tasks_per_child: int
    runner: Runner
    url: str


class Callbacks(Protocol):
    """What an executor reports to its worker, in any thread."""

    def ended(self, run: TaskRun) -> None:
        """Called when the code has ended. ``run`` says how."""

    def room_changed(self) -> None:
        """Called when the number of tasks that the executor can run has changed: see ``Executor.most``."""

    def broken(self, error: BaseException) -> None:
        """Called when no more tasks can be run. The worker stops and raises ``error``."""

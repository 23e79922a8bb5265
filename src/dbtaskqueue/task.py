"""Task: one task, as of the last look, and what its holder may do with it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from . import outcomes
from ._formats import payload
from ._formats.payload import JSON
from ._formats.progress import Progress
from ._formats.progress import read as read_progress
from ._formats.task_options import decode
from ._store.contract import AttemptRecord, End, Store, TaskRecord
from ._system import clock
from .checks import shown
from .errors import (
    InvalidTransition,
    LeaseLost,
    PayloadError,
    StoreUnavailable,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
)
from .states import ABANDONED, CANCELLED, DONE, FINAL, RUNNING, TaskState

if TYPE_CHECKING:
    from ._worker.held import FetchMembership

_LONGEST_WAIT = 5.0
_NEVER_HELD, _HELD, _ENDED, _LOST = "never held", "held", "ended by its holder", "lost"


class Attempt(NamedTuple):
    """One run of a task.

    ``number`` counts from 1 and repeats after a release. ``outcome`` is done, failed, abandoned,
    cancelled, released, lost or, while it runs, None. ``output`` is None where none was kept; of a task with more than
    100 outputs only the newest 100 are read. ``cpu_seconds`` and ``peak_memory`` (bytes) are None if not measured.
    """

    number: int
    token: int
    worker: int | None
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    error: str | None
    output: str | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None


class Task:
    """A task of the queue. Its attributes are what the last look at the database showed.

    A ``Task`` that ``fetch`` returned is its *holder*: only it may ``start``, ``finish``, ``fail`` and
    ``release``. A held task that is garbage-collected is released if reserved, and failed if running.
    """

    def __init__(
        self, store: Store, record: TaskRecord, membership: FetchMembership | None = None, *, deduplicated: bool = False
    ) -> None:
        self._store = store
        self._record = record
        self._membership = membership
        self._pid = membership.pid if membership else 0
        self._claim = record  # keeps the token it was claimed with, whatever a later look shows
        self._deduplicated = deduplicated
        self._fate = _HELD if membership else _NEVER_HELD
        self._payload: tuple[JSON, ...] = ()
        self._result: tuple[JSON, ...] = ()

    # -- attributes --------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """Its number in the database; rises, and is never used again."""
        return self._record.id

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._record.queue

    @property
    def state(self) -> TaskState:
        """Where it stands."""
        return TaskState(self._record.state)

    @property
    def payload(self) -> JSON:
        """What it is to work on, as JSON values. PayloadError when what is stored cannot be read."""
        if not self._payload:
            self._payload = (payload.decode(self._record.payload),)  # type: ignore[arg-type]
        return self._payload[0]

    @property
    def result(self) -> JSON:
        """What it returned, None before it is done. Set it in a ``with`` block to store it."""
        if not self._result:
            text = self._record.result
            self._result = (None if text is None else payload.decode(text, name="result"),)
        return self._result[0]

    @result.setter
    def result(self, value: JSON) -> None:
        self._result = (value,)

    @property
    def error(self) -> str | None:
        """The text of its last error with the traceback, or None."""
        return self._record.error

    @property
    def attempt(self) -> int:
        """How many attempts have started, released ones not counted."""
        return self._record.attempt

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final; None: never."""
        return self._record.max_attempts

    @property
    def priority(self) -> int:
        """Higher comes first."""
        return -self._record.rank

    @property
    def key(self) -> str | None:
        """At most one unfinished task of a queue has it."""
        return self._record.key

    @property
    def deduplicated(self) -> bool:
        """Whether ``enqueue`` returned this task because it had the key already, and stored no new one."""
        return self._deduplicated

    @property
    def created_at(self) -> datetime:
        """When it was enqueued (aware, UTC, as all times here)."""
        return clock.to_datetime(self._record.created_at)  # type: ignore[return-value]

    @property
    def start_at(self) -> datetime:
        """When it is due."""
        return clock.to_datetime(self._record.due)  # type: ignore[return-value]

    @property
    def started_at(self) -> datetime | None:
        """When its last attempt started."""
        return clock.to_datetime(self._record.started_at)

    @property
    def finished_at(self) -> datetime | None:
        """When it reached a final state."""
        return clock.to_datetime(self._record.finished_at)

    @property
    def worker(self) -> int | None:
        """The id of the worker that holds it, or that ended it."""
        return self._record.worker

    @property
    def function(self) -> str | None:
        """The name of its task function, None where a callback runs it."""
        return self._record.function

    @property
    def token(self) -> int:
        """The fencing number of its claim; a write with an old one is not accepted."""
        return self._record.token

    @property
    def cancel_requested(self) -> bool:
        """Whether it was asked to end while it ran."""
        return bool(self._record.cancel_requested)

    @property
    def suspended(self) -> bool:
        """Whether it runs and is to stand still."""
        return bool(self._record.suspended)

    @property
    def is_command(self) -> bool:
        """Whether its payload is a command line."""
        return bool(self._record.command)

    @property
    def time_limit(self) -> float | None:
        """The seconds that an attempt may take; None: no end."""
        return decode(self._record.options).limits.time

    @property
    def stall_limit(self) -> float | None:
        """The seconds that an attempt may go on without progress; None: no end."""
        return decode(self._record.options).limits.stall

    @property
    def memory_limit(self) -> int | None:
        """The bytes that an attempt may use; None: as many as there are."""
        return decode(self._record.options).limits.memory

    @property
    def meta(self) -> dict[str, JSON]:
        """The JSON object that ``enqueue(meta=…)`` stored beside the payload; empty if none was given."""
        text = self._record.meta
        found: dict[str, JSON] = {} if text is None else payload.decode(text, name="meta")
        return found

    @property
    def progress(self) -> Progress | None:
        """What its last attempt told of its progress; None where it told nothing."""
        return read_progress(self._record.progress)

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.queue} {self.state} attempt={self.attempt}>"

    def refresh(self) -> Task:
        """Look again; the task itself. TaskNotFound when it was pruned."""
        self._record = look_up(self._store, self.id)
        self._result = ()
        return self

    # -- what its holder may do --------------------------------------------------------------------

    def start(self) -> bool:
        """Start an attempt. False when the claim is gone: cancelled, or given to another.

        Raises InvalidTransition for a task that is not held, has started, or was ended by its holder.
        """
        membership = self._require_holder("start")
        if self._fate == _ENDED:
            raise InvalidTransition(f"start: task {self.id} was ended by its holder")
        now = clock.now()
        verdict = membership.start(self._claim, now)
        if verdict.stored:
            attempt = self._claim.attempt + 1
            self._claim = self._claim._replace(state=RUNNING, attempt=attempt, started_at=now)
            self._record = self._record._replace(state=RUNNING, attempt=attempt, started_at=now)
            return True
        if verdict.token != self._claim.token:
            self._fate = _LOST
            return False
        raise InvalidTransition(f"start: task {self.id} is {verdict.state}, not reserved")

    def finish(self, result: JSON = None) -> None:
        """End as done and store the result.

        Raises PayloadError for a result that is not JSON or too large (the task goes on running),
        LeaseLost when the claim is gone, InvalidTransition unless it runs.
        """
        self._require_holder("finish")
        text = None if result is None else payload.encode(result, limit=self._store.max_payload, name="result")
        end = outcomes.finish(self._claim, text, clock.now())
        self._end(end)
        self._record = self._record._replace(state=DONE, finished_at=end.at, result=text)
        self._result = (result,)

    def fail(self, error: BaseException | str, *, retry: bool = True) -> None:
        """End this attempt as failed: it is due again by the retry policy, or abandoned after the last.

        ``error`` is an exception or a text; ``retry=False`` abandons at once. A task that was asked to
        end becomes cancelled. Raises LeaseLost and InvalidTransition as ``finish`` does.
        """
        self._require_holder("fail")
        self._end(outcomes.fail(self._claim, error, retry=retry))

    def release(self, delay: float | timedelta = 0) -> None:
        """Return the task to the queue without spending an attempt; it is due after ``delay``, seconds or a timedelta.

        A running task whose cancellation was requested becomes cancelled. Raises LeaseLost, InvalidTransition, and
        ValueError unless the delay is finite and at least 0.
        """
        self._require_holder("release")
        self._end(outcomes.release(self._claim, delay))

    def _require_holder(self, verb: str) -> FetchMembership:
        if self._membership is None:
            raise InvalidTransition(f"{verb}: task {self.id} is not held here; only fetch() gives a task to hold")
        if self._pid != os.getpid():
            raise InvalidTransition(f"{verb}: task {self.id} is held by the process that fetched it, {self._pid}")
        return self._membership

    def _end(self, end: End) -> None:
        assert self._membership is not None
        verdict = self._membership.end(self._claim, end)
        if not verdict.stored and verdict.token != self._claim.token:
            self._fate = _ENDED if self._fate == _ENDED else _LOST
            raise LeaseLost(f"{end.verb}: the claim on task {self.id} is gone; it is {verdict.state or 'no more'}")
        if not verdict.stored:
            raise InvalidTransition(f"{end.verb}: task {self.id} is {verdict.state}")
        self._fate = _ENDED
        self._record = self._record._replace(state=verdict.state or self.state)
        if end.verb != "finish":
            with contextlib.suppress(StoreUnavailable):  # it is stored, whatever comes of another look
                self._record = self._store.get(self.id) or self._record

    # -- what anyone may do ------------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel it, or ask its holder to end it if it runs. InvalidTransition when done or abandoned."""
        cancel(self._store, self.id)
        with after_a_change():
            self._record = look_up(self._store, self.id)

    def wait(self, timeout: float | timedelta | None = None) -> Task:
        """Wait until it is done, abandoned or cancelled; the task itself.

        Raises TimeoutError after ``timeout`` (seconds or a timedelta), TaskNotFound when it is pruned meanwhile.
        """
        deadline = clock.deadline_of(timeout)
        while True:
            with self._store.wakeups.waiting() as ticket:
                if self.refresh().state in FINAL:
                    return self
                left = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
                    raise TimeoutError(f"task {self.id} is still {self.state} after {seconds} s")
                self._store.wakeups.wait(ticket, min(left, _LONGEST_WAIT))

    def get_result(self, timeout: float | timedelta | None = None) -> JSON:
        """Wait as ``wait`` does, then its result; TaskFailed when abandoned, TaskCancelled when cancelled."""
        self.wait(timeout)
        if self.state == ABANDONED:
            last = (self.error or "").strip().splitlines()
            why = f": {last[-1]}" if last else ""
            attempts = "1 attempt" if self.attempt == 1 else f"{self.attempt} attempts"
            raise TaskFailed(f"task {self.id} was abandoned after {attempts}{why}", self.error)
        if self.state == CANCELLED:
            raise TaskCancelled(f"task {self.id} was cancelled")
        return self.result

    def attempts(self) -> list[Attempt]:
        """Every start of the task and how it ended, oldest first; the newest 100 outputs with them.

        ``dbtaskqueue logs ID --attempt N`` prints an older output.
        """
        return attempts_of(self._store, self.id)

    # -- with task: --------------------------------------------------------------------------------

    def __enter__(self) -> Task:
        runs = self._fate == _HELD and self._claim.state == RUNNING
        if not runs and not self.start():
            raise LeaseLost(f"the claim on task {self.id} is gone")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._fate == _ENDED:
            return False
        if error is None:
            self._finish_or_fail()
            return False
        chosen = outcomes.chosen_end(self._claim, error)
        try:
            self._end(chosen or self._end_after(error))
        except (LeaseLost, InvalidTransition):
            if chosen is not None:
                raise
        return chosen is not None

    def _finish_or_fail(self) -> None:
        """Finish with ``result``; one that cannot be stored fails the attempt, and is raised."""
        try:
            self.finish(self.result)
        except PayloadError as error:
            self._end(outcomes.fail(self._claim, error))
            raise

    def _end_after(self, error: BaseException) -> End:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return outcomes.release(self._claim)
        return outcomes.fail(self._claim, error)

    def __del__(self) -> None:
        if getattr(self, "_fate", None) == _HELD and self._membership is not None and self._pid == os.getpid():
            self._membership.drop(self._claim, runs=self._claim.state == RUNNING)


def look_up(store: Store, task: int, connection: object = None) -> TaskRecord:
    """The record of a task, through a user's connection if one is given; TaskNotFound when there is none."""
    valid = isinstance(task, int) and not isinstance(task, bool) and 0 < task < 2**63
    record = store.get(task, connection) if valid else None
    if record is None:
        raise TaskNotFound(f"there is no task {shown(task)}")
    return record


def attempts_of(store: Store, task: int, since: int = 0) -> list[Attempt]:
    """Every start of a task, or those from the token ``since`` on, oldest first."""
    return [_attempt(record) for record in store.attempts(task, since)]


def with_output(store: Store, task: int, attempt: Attempt) -> Attempt:
    """The attempt with its output, which ``attempts_of`` reads only for the newest ones."""
    return attempt if attempt.output is not None else attempt._replace(output=store.output(task, attempt.token))


@contextlib.contextmanager
def after_a_change() -> Iterator[None]:
    """Look at what was just changed: when that fails, the change has been made all the same."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreUnavailable(str(error), maybe_done=True) from error


def cancel(store: Store, task: int) -> None:
    """Cancel a task of any queue, as ``Task.cancel`` does."""
    look_up(store, task)
    verdict = store.cancel(task, clock.now())
    if verdict.stored or verdict.state == CANCELLED:
        return
    raise InvalidTransition(f"cancel: task {task} is {verdict.state or 'no more'}")


def _attempt(record: AttemptRecord) -> Attempt:
    return Attempt(
        record.number,
        record.token,
        record.worker,
        clock.to_datetime(record.started_at),
        clock.to_datetime(record.finished_at),
        record.outcome,
        record.error,
        record.output,
        None if record.cpu is None else record.cpu / 1e6,
        record.memory,
    )

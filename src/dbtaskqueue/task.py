"""``Task``: one task as it was last read from the database, and what its holder and others can do with it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self

from . import outcomes
from ._formats import payload, task_options
from ._formats.payload import JSON
from ._formats.progress import Progress
from ._formats.progress import read as read_progress
from ._formats.url import database_of
from ._store.contract import BY_PARENTS, AttemptRecord, End, Link, NewAction, Store, TaskRecord, Verdict
from ._system import clock
from .checks import check_count, counted, escaped, shown
from .coding import CallCoding
from .dependencies import Reference
from .errors import (
    InvalidTransition,
    LeaseLost,
    PayloadError,
    StoreUnavailable,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    after_a_change,
)
from .states import ABANDONED, CANCELLED, DONE, FINAL, RUNNING, TaskState
from .waiting import Waiting

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # for type checkers; at run time, a default needs 3.13

    from ._worker.held import FetchMembership

    R = TypeVar("R", covariant=True, default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)
T = TypeVar("T")

Outcome = Literal["done", "failed", "abandoned", "cancelled", "released", "lost"]

_NEVER_HELD, _HELD, _ENDED, _LOST = "never held", "held", "ended by its holder", "lost"
_MAX_EDGES = 10_000
"""The most parents or children that one query reads."""
_SHOWN_TEXT = 60
"""Characters of a text that the repr of an ``Attempt`` shows."""
_database = functools.lru_cache(maxsize=64)(database_of)  # a store's path is absolute, so this stays true


class Blocked(NamedTuple):
    """Why a task is blocked. ``reasons``: codes, now only "parents". ``open`` of ``total`` parents have not ended."""

    reasons: list[str]
    open: int
    total: int


class Attempt(NamedTuple):
    """One run of a task.

    ``number`` counts from 1 and repeats after a release. ``outcome`` is None while the attempt runs. ``error_type`` is
    the full name of the class of the exception that failed it, None if it was failed with a text. ``output`` is None if
    none was stored; only the newest 100 outputs of a task are read. ``cpu_seconds`` and ``peak_memory`` (bytes) are
    None if they were not measured.
    """

    number: int
    token: int
    worker: int | None
    started_at: datetime | None
    finished_at: datetime | None
    outcome: Outcome | None
    error: str | None
    output: str | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    error_type: str | None = None

    def __repr__(self) -> str:
        """Show the fields that are not None, with texts truncated: an output may have 64 KiB."""
        fields = self._asdict().items()
        return f"Attempt({', '.join(f'{name}={_brief(value)}' for name, value in fields if value is not None)})"


class Task(Reference, Generic[R]):
    """A task of the queue. Its attributes show what was last read from the database.

    A ``Task`` that ``fetch`` returned is the *holder* of the task: only it may ``start``, ``finish``, ``fail`` and
    ``release``. A holder that is garbage-collected releases a reserved task and fails a running one.

    Two ``Task`` objects are equal if they have the same id and the same database: the same file, or the same name,
    hosts and schema on a server, whatever else their URLs say.

    For a type checker, a ``Task[R]`` is a task whose function is annotated to return ``R``. The result is stored as
    JSON, so that a tuple comes back as a list, unless the queue has coders.
    """

    _coding: CallCoding | None = None
    _in_transaction = False
    """Whether it was enqueued in a user's transaction, and has not been read outside of it."""

    def __init__(
        self, store: Store, record: TaskRecord, membership: FetchMembership | None = None, *, deduplicated: bool = False
    ) -> None:
        self._store = store
        self._record = record
        self._membership = membership
        self._pid = membership.pid if membership else 0
        self._claim = record  # has the token of the claim, whatever is read later
        self._deduplicated = deduplicated
        self._fate = _HELD if membership else _NEVER_HELD
        self._payload: tuple[JSON, ...] = ()
        self._result: tuple[JSON, ...] = ()

    def __repr__(self) -> str:
        function = "" if self.function is None else f" {escaped(self.function)}"
        return f"<Task {self.id} {self.queue}{function} {self.state} attempt={self.attempt}>"

    def _repr_html_(self) -> str:
        """Show the task in a notebook, as it was last read."""
        from ._formats import notebook  # most programs are not notebooks

        last = (self.error or "").strip().splitlines()
        rows = [
            ("function", self.function),
            ("state", self.state),
            ("progress", None if self.progress is None else notebook.progress(self.progress)),
            ("attempt", f"{self.attempt} of {self.max_attempts or 'any number'}"),
            ("created", f"{self.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("result", self._record.result),
            ("error", last[-1] if last else None),
        ]
        return notebook.table(f"Task {self.id} of queue {self.queue}", rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return self.id == other.id and _database(self._store.url) == _database(other._store.url)

    def __hash__(self) -> int:
        return hash((self.id, _database(self._store.url)))

    def as_link(self, url: str) -> Link:
        """See Reference."""
        if self._store.url != url and _database(self._store.url) != _database(url):
            raise ValueError(f"task {self.id} is in a different database")
        return Link(self.id)

    # -- attributes --------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """The task's number in the database. Ids rise and are never reused."""
        return self._record.id

    @property
    def queue(self) -> str:
        """The name of the task's queue."""
        return self._record.queue

    @property
    def state(self) -> TaskState:
        """The task's state."""
        return TaskState(self._record.state)

    @property
    def payload(self) -> JSON:
        """The payload, as JSON values. Raises PayloadError if what is stored cannot be read."""
        if not self._payload:
            self._payload = (payload.decode(self._record.payload),)  # type: ignore[arg-type]
        return self._payload[0]

    @property
    def result(self) -> R | None:
        """The result; None until the task is done. Set it in a ``with`` block to store it.

        JSON values. With coders, a task that a task function returned decodes it by the return annotation.
        """
        if not self._result:
            text = self._record.result
            found = None if text is None else payload.decode(text, name="result")
            self._result = (found if self._coding is None else self._coding.decode_result(found),)
        result: R | None = self._result[0]
        return result

    @result.setter
    def result(self, value: JSON) -> None:
        self._result = (value,)

    @property
    def error(self) -> str | None:
        """The text of the last error with its traceback, or None."""
        return self._record.error

    @property
    def error_type(self) -> str | None:
        """The full name of the class of the last error, such as ``"builtins.ValueError"``. None for a plain text."""
        return self._record.error_type

    @property
    def attempt(self) -> int:
        """The number of attempts that have started, without released ones."""
        return self._record.attempt

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final. None: no limit."""
        return self._record.max_attempts

    @property
    def priority(self) -> int:
        """Tasks with a higher priority come first."""
        return -self._record.rank

    @property
    def key(self) -> str | None:
        """The key for deduplication, or None. At most one unfinished task of a queue has it."""
        return self._record.key

    @property
    def deduplicated(self) -> bool:
        """Whether ``enqueue`` returned this task because it had the key already, and stored no new one."""
        return self._deduplicated

    @property
    def meta(self) -> dict[str, JSON]:
        """The JSON object that ``enqueue(meta=…)`` stored beside the payload; empty if none was given."""
        text = self._record.meta
        found: dict[str, JSON] = {} if text is None else payload.decode(text, name="meta")
        return found

    @property
    def created_at(self) -> datetime:
        """When the task was enqueued. Like all times here, an aware datetime in UTC."""
        return clock.to_datetime(self._record.created_at)  # type: ignore[return-value]

    @property
    def start_at(self) -> datetime:
        """When the task is due."""
        return clock.to_datetime(self._record.due)  # type: ignore[return-value]

    @property
    def started_at(self) -> datetime | None:
        """When the last attempt started."""
        return clock.to_datetime(self._record.started_at)

    @property
    def finished_at(self) -> datetime | None:
        """When the task reached a final state."""
        return clock.to_datetime(self._record.finished_at)

    @property
    def worker(self) -> int | None:
        """The id of the worker that holds the task, or that ended it."""
        return self._record.worker

    @property
    def function(self) -> str | None:
        """The name of the task function. None if a callback runs the task."""
        return self._record.function

    @property
    def token(self) -> int:
        """The fencing token of the claim. A write with an old token is refused."""
        return self._record.token

    @property
    def cancel_requested(self) -> bool:
        """Whether a cancellation was requested while the task was running."""
        return bool(self._record.cancel_requested)

    @property
    def suspended(self) -> bool:
        """Whether the task runs and its processes are paused."""
        return bool(self._record.suspended)

    @property
    def is_command(self) -> bool:
        """Whether the payload is a command line."""
        return bool(self._record.command)

    @property
    def time_limit(self) -> float | None:
        """The seconds that an attempt may take. None: no limit."""
        return task_options.decode(self._record.options).limits.time

    @property
    def stall_limit(self) -> float | None:
        """The seconds that an attempt may run without progress. None: no limit."""
        return task_options.decode(self._record.options).limits.stall

    @property
    def memory_limit(self) -> int | None:
        """The bytes of memory that an attempt may use. None: no limit."""
        return task_options.decode(self._record.options).limits.memory

    @property
    def expires_at(self) -> datetime | None:
        """The time by which an attempt must have started; None if the task does not expire."""
        return clock.to_datetime(self._record.expires)

    @property
    def blocked(self) -> Blocked | None:
        """What the task waits for besides its due time, read from the database; None unless the task is blocked."""
        if self.state in FINAL or not self._record.blocked & BY_PARENTS:
            return None
        gate = self._store.gate(self.id)
        return None if gate is None or not gate.open else Blocked(["parents"], gate.open, gate.total)

    def parents(self) -> list[int]:
        """Return the ids of the tasks that this one waits for, or has waited for, in the order of ``after``."""
        return [edge.parent for edge in self._store.parents(self.id, _MAX_EDGES)]

    def children(self) -> list[int]:
        """Return the ids of the tasks that wait for this one, or have waited for it, oldest first."""
        found: list[int] = []
        while edges := self._store.children(self.id, found[-1] if found else 0, _MAX_EDGES):
            found += [edge.child for edge in edges]
        return found

    @property
    def progress(self) -> Progress | None:
        """The progress that the last attempt reported, or None."""
        return read_progress(self._record.progress)

    def read_with(self, function: str, coding: CallCoding) -> Self:
        """Read the result as the annotation of its function says, unless this is a task of another function.

        For task functions, and for the queue.
        """
        if self.function == function:  # a task that has the key of a new one may call another function
            self._coding = coding
        return self

    def refresh(self, *, connection: object = None) -> Self:
        """Read the task again and return it, as the transaction of ``connection`` sees it if that is given.

        Raises TaskNotFound if it was pruned, or if the transaction in which it was enqueued is not committed.
        """
        try:
            self._record = look_up(self._store, self.id, connection)
        except TaskNotFound as error:
            if self._in_transaction and connection is None:
                why = "the transaction that enqueued it is not committed yet, or was rolled back"
                raise TaskNotFound(f"{error}: {why}") from None
            raise
        self._in_transaction = self._in_transaction and connection is not None
        self._result = ()
        return self

    # -- for the holder ----------------------------------------------------------------------------

    def start(self) -> bool:
        """Start an attempt. Return False if the claim was lost: cancelled, or given to another worker.

        Raises InvalidTransition if this object does not hold the task, or if it has started or ended it already.
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
        raise InvalidTransition(f"start: task {self.id} {_standing(verdict)}, not reserved")

    def finish(self, result: JSON = None) -> None:
        """End the task as done and store its result.

        Raises PayloadError if the result is not JSON or is too large (the task keeps running), LeaseLost if the claim
        was lost, and InvalidTransition if the task is not running.
        """
        self._require_holder("finish")
        text = None if result is None else payload.encode(result, limit=self._store.max_payload, name="result")
        end = outcomes.finish(self._claim, text, clock.now())
        self._end(end)
        self._record = self._record._replace(state=DONE, finished_at=end.at, result=text)
        self._result = (result,)

    def fail(self, error: BaseException | str, *, retry: bool = True) -> None:
        """End the attempt as failed. The task is due again by its retry policy, or abandoned after the last attempt.

        ``error`` is an exception or a text. ``retry=False`` abandons the task now. A task whose cancellation was
        requested becomes cancelled. Raises LeaseLost and InvalidTransition as ``finish`` does.
        """
        self._require_holder("fail")
        self._end(outcomes.fail(self._claim, error, retry=retry))

    def release(self, delay: float | timedelta = 0) -> None:
        """Return the task to the queue without spending an attempt.

        The task is due after ``delay``: seconds or a timedelta. A running task whose cancellation was requested becomes
        cancelled. Raises LeaseLost and InvalidTransition as ``finish`` does, and ValueError unless the delay is finite
        and at least 0.
        """
        self._require_holder("release")
        self._end(outcomes.release(self._claim, delay))

    def _require_holder(self, verb: str) -> FetchMembership:
        if self._membership is None:
            raise InvalidTransition(f"{verb}: task {self.id} is not held here; only fetch() returns a task that is")
        if self._pid != os.getpid():
            raise InvalidTransition(f"{verb}: task {self.id} is held by the process that fetched it, {self._pid}")
        return self._membership

    def _end(self, end: End) -> None:
        assert self._membership is not None
        verdict = self._membership.end(self._claim, end)
        if not verdict.stored and verdict.token != self._claim.token:
            self._fate = _ENDED if self._fate == _ENDED else _LOST
            raise LeaseLost(f"{end.verb}: the claim on task {self.id} was lost; the task {_standing(verdict)}")
        if not verdict.stored:
            raise InvalidTransition(f"{end.verb}: task {self.id} {_standing(verdict)}")
        self._fate = _ENDED
        self._record = self._record._replace(state=verdict.state or self.state)
        if end.verb != "finish":
            with contextlib.suppress(StoreUnavailable):  # the end is stored, even if it cannot be read now
                self._record = self._store.get(self.id) or self._record

    # -- for every program -------------------------------------------------------------------------

    def cancel(self, *, running: bool = True) -> bool:
        """Cancel the task. If it is running, request its cancellation. Return whether the task is cancelled now.

        ``running=False`` requests nothing: a running task continues, and the call returns False. Raises
        InvalidTransition if the task is done or abandoned.
        """
        is_cancelled = cancel(self._store, self.id, running=running)
        with after_a_change():
            self._record = look_up(self._store, self.id)
        return is_cancelled

    def wait(self, timeout: float | timedelta | None = None) -> Self:
        """Wait until the task is done, abandoned or cancelled, and return it.

        Raises TimeoutError after ``timeout`` (seconds or a timedelta), and TaskNotFound if the task is pruned, or if
        the transaction in which it was enqueued is not committed.
        """
        deadline = clock.deadline_of(timeout)
        while self.refresh().state not in FINAL:
            if clock.has_passed(deadline):
                raise TimeoutError(f"task {self.id} is still {self.state} after {_seconds(timeout)} s")
            Waiting.on(self._store).wait([self.id], deadline)
        return self

    def get_result(self, timeout: float | timedelta | None = None) -> R:
        """Wait for the task as ``wait`` does, and return its result.

        Raises TaskFailed if the task was abandoned, and TaskCancelled if it was cancelled.
        """
        return result_of(self.wait(timeout))

    def attempts(self, *, limit: int | None = None, before: int | None = None, output: bool = False) -> list[Attempt]:
        """Return every start of the task and how it ended, oldest first, with the newest 100 outputs.

        A task may have any number of attempts, and each output has up to 64 KiB. With ``limit``, only the newest
        ``limit`` attempts are returned, or those before the attempt with the token ``before``, and outputs only with
        ``output=True``. ``dbtaskqueue logs ID --attempt N`` prints a single output. Raises ValueError.
        """
        if limit is None:
            if before is not None:
                raise ValueError("before needs a limit")
            return attempts_of(self._store, self.id)
        check_count(limit, "limit")
        if before is not None and (not isinstance(before, int) or isinstance(before, bool)):
            raise ValueError(f"before must be the token of an attempt, not {shown(before)}")
        bound = None if before is None else max(0, min(before, 2**63 - 1))
        records = self._store.newest_attempts(self.id, limit, bound, outputs=output)
        return [_attempt(record) for record in records]

    # -- with task: --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        runs = self._fate == _HELD and self._claim.state == RUNNING
        if not runs and not self.start():
            raise LeaseLost(f"the claim on task {self.id} was lost")
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
        """Finish with ``result``. If it cannot be stored, fail the attempt and raise the PayloadError."""
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


def result_of(task: Task[T]) -> T:
    """Return the result of a task that has ended, as ``Task.get_result`` does."""
    if task.state == ABANDONED:
        last = (task.error or "").strip().splitlines()
        why = f": {last[-1]}" if last else ""
        raise TaskFailed(f"task {task.id} was abandoned after {counted(task.attempt, 'attempt')}{why}", task.error)
    if task.state == CANCELLED:
        raise TaskCancelled(f"task {task.id} was {task.error or 'cancelled'}")
    result: T = task.result  # type: ignore[assignment]  # None only if the function returned it
    return result


class EndedTask(Task[Any]):
    """A task whose attempt has ended, with its result or error, as ``Extension.ended`` gets it.

    ``seconds``: how long the code of the attempt ran, None if it did not run.
    """

    def __init__(self, store: Store, record: TaskRecord, seconds: float | None) -> None:
        super().__init__(store, record)
        self.seconds = seconds


def look_up(store: Store, task: int, connection: object = None) -> TaskRecord:
    """Return the record of a task, read through a user's connection if one is given. Raises TaskNotFound."""
    record = store.get(check_id(task), connection)
    if record is None:
        raise TaskNotFound(f"there is no task {shown(task)}")
    return record


def enqueued_with(connection: object, tasks: list[Task[T]]) -> list[Task[T]]:
    """Return tasks that were enqueued in a user's transaction, which remember that they may not be committed."""
    if connection is not None:
        for task in tasks:
            task._in_transaction = True
    return tasks


def check_id(task: int) -> int:
    """Return the id of a task. Raises TaskNotFound for what cannot be one."""
    if not isinstance(task, int) or isinstance(task, bool) or not 0 < task < 2**63:
        raise TaskNotFound(f"there is no task {shown(task)}")
    return task


def blocked_among(store: Store, tasks: Sequence[int]) -> dict[int, Blocked]:
    """Return what tasks wait for, by id. Tasks without open parents are left out."""
    return {id: Blocked(["parents"], gate.open, gate.total) for id, gate in store.gates(tasks).items()}


def attempts_of(store: Store, task: int, since: int = 0) -> list[Attempt]:
    """Return every start of a task, or those from the token ``since`` on, oldest first."""
    return [_attempt(record) for record in store.attempts(task, since)]


def with_output(store: Store, task: int, attempt: Attempt) -> Attempt:
    """Return the attempt with its output, which ``attempts_of`` reads only for the newest ones."""
    return attempt if attempt.output is not None else attempt._replace(output=store.output(task, attempt.token))


def cancel(store: Store, task: int, *, running: bool = True, action: NewAction | None = None) -> bool:
    """Cancel a task of any queue, as ``Task.cancel`` does."""
    verdict = store.cancel(check_id(task), clock.now(), running=running, action=action)
    if verdict.state is None:
        look_up(store, task)  # raises TaskNotFound
    if verdict.stored or verdict.state in (CANCELLED, RUNNING):
        return verdict.state == CANCELLED
    raise InvalidTransition(f"cancel: task {task} {_standing(verdict)}")


def wait_all(tasks: Iterable[Task[T]], timeout: float | timedelta | None = None) -> list[Task[T]]:
    """Wait until all these tasks are done, abandoned or cancelled, as ``TaskQueue.wait_all`` does."""
    deadline = clock.deadline_of(timeout)
    waited = list(tasks)
    for store in {task._store: None for task in waited}:
        ids = list(dict.fromkeys(task.id for task in waited if task._store is store))
        while unfinished := _unfinished(store, ids):
            if clock.has_passed(deadline):
                number = len(unfinished)
                raise TimeoutError(f"{number} of {counted(len(waited))} unfinished after {_seconds(timeout)} s")
            Waiting.on(store).wait(unfinished, deadline)
    return [task.refresh() for task in waited]


def _unfinished(store: Store, tasks: list[int]) -> list[int]:
    return [task for task, standing in store.standings(tasks).items() if standing.state not in FINAL]


def _standing(verdict: Verdict) -> str:
    return "no longer exists" if verdict.state is None else f"is {verdict.state}"


def _seconds(timeout: float | timedelta | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


def _brief(value: object) -> str:
    if isinstance(value, str) and len(value) > _SHOWN_TEXT:
        return f"{value[:_SHOWN_TEXT]!r}…"
    return repr(value)


def _attempt(record: AttemptRecord) -> Attempt:
    outcome: Any = record.outcome
    return Attempt(
        record.number,
        record.token,
        record.worker,
        clock.to_datetime(record.started_at),
        clock.to_datetime(record.finished_at),
        outcome,
        record.error,
        record.output,
        None if record.cpu is None else record.cpu / 1e6,
        record.memory,
        record.error_type,
    )

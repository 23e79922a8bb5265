"""The storage contract: what the queue asks of a database, one sentence for each verb.

The records that go in and out stand here, too. Times are integers: microseconds since 1970, UTC.
No verb raises for what a task's state forbids: it says so in a ``Verdict``, since many ends share
one transaction. Every verb may raise StoreUnavailable.
"""

from __future__ import annotations

import abc
import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ..states import TaskState

OUTPUTS = 100
"""Most outputs that are read with a task's attempts. Each has up to 64 KiB, and a task may have any number."""


class TaskRecord(NamedTuple):
    """A task's row. ``budget``, ``retry_base``: see ``max_attempts``; texts are JSON but for ``error``.

    ``command``: its payload is a command line. ``retry_token``: the token at the last retry. ``suspended``: it
    runs, but is paused. ``progress`` and ``usage`` are notes of its last attempt, ``usage`` only while that runs; a
    record that was just claimed has none.
    """

    id: int
    queue: str
    state: str
    rank: int
    due: int
    token: int
    attempt: int
    budget: int | None
    retry_base: int
    worker: int | None
    isolated: int
    cancel_requested: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    key: str | None
    function: str | None
    options: str | None
    payload: str | None
    result: str | None
    error: str | None
    meta: str | None = None
    command: int = 0
    retry_token: int = 0
    suspended: int = 0
    progress: str | None = None
    usage: str | None = None
    error_type: str | None = None

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final: the original number, counted from the last retry."""
        return None if self.budget is None else self.retry_base + self.budget


class NewTask(NamedTuple):
    """What ``enqueue`` stores."""

    queue: str
    rank: int
    due: int
    budget: int | None
    created_at: int
    key: str | None
    function: str | None
    options: str | None
    payload: str
    meta: str | None = None
    command: int = 0


class Claim(NamedTuple):
    """What to reserve: at most ``limit`` tasks due at ``now``, from ``queues`` in this order.

    ``start`` starts them in the same transaction. ``batched`` marks them as one batch whose starts
    are not stored one by one: after a crash it is unknown which of them had started. ``commands``: tasks whose payload
    is a command line may be claimed, too.
    """

    queues: Sequence[str]
    limit: int
    now: int
    start: bool = False
    batched: bool = False
    commands: bool = False


class Start(NamedTuple):
    """A reserved task that starts."""

    id: int
    token: int
    at: int


class End(NamedTuple):
    """How a holder ends its claim: ``verb`` is finish, fail or release.

    ``due``: when a failed or released task is due again, None keeps its due time. ``final``: a
    failure that is the last. ``started_at``: the start was not stored yet, it was then (a shared batch).
    ``cpu`` (microseconds) and ``memory`` (bytes at the most): what the attempt took, None where nobody measured it.
    ``unrun``: a release of a task whose code was never called. It leaves no attempt, even if its start was stored.
    """

    verb: str
    id: int
    token: int
    at: int
    due: int | None = None
    final: bool = False
    started_at: int | None = None
    result: str | None = None
    error: str | None = None
    cpu: int | None = None
    memory: int | None = None
    unrun: bool = False
    error_type: str | None = None


class Note(NamedTuple):
    """What the attempt with this token tells while it runs; the last value under a name stays.

    Names are ``progress`` and ``usage``, both JSON, and ``output``, a text.
    """

    id: int
    token: int
    name: str
    value: str


class Verdict(NamedTuple):
    """What became of a start or an end: stored, or not, and the state and token that are there now.

    ``state`` is None where the task no longer exists.
    """

    stored: bool
    state: TaskState | None
    token: int | None


class Standing(NamedTuple):
    """The state and the token of a task."""

    state: TaskState
    token: int


class Exchanged(NamedTuple):
    """The answers of an ``exchange``, each list in the order of what was asked."""

    started: list[Verdict]
    ended: list[Verdict]
    claimed: list[TaskRecord]


class WorkerRecord(NamedTuple):
    """A worker's row; ``boot``, ``namespace`` and ``started`` are its place, None where unreadable.

    ``executor``: thread, process or asyncio; None for a plain ``fetch()`` user. ``queues``: the names that it serves,
    ``functions``: the values of a task's ``function`` that it has code for, null for the callback. Both are JSON, and
    None where they are not known: of a plain ``fetch()`` user, and of a worker of version 0.1.0.
    """

    id: int
    host: str
    pid: int
    boot: str | None
    namespace: str | None
    started: int | None
    lease: float
    beat: int
    created_at: int
    lost_at: int | None
    executor: str | None = None
    queues: str | None = None
    functions: str | None = None


class AttemptRecord(NamedTuple):
    """One start of a task and how it ended; ``outcome`` is None while it runs. ``cpu`` and ``memory`` as in an End."""

    number: int
    token: int
    worker: int | None
    started_at: int | None
    finished_at: int | None
    outcome: str | None
    error: str | None
    output: str | None = None
    cpu: int | None = None
    memory: int | None = None
    error_type: str | None = None


class EndedRecord(NamedTuple):
    """An attempt that has ended, as statistics want it; ``function`` is None for a callback's."""

    function: str | None
    command: int
    outcome: str
    started_at: int | None
    finished_at: int | None
    cpu: int | None
    memory: int | None


class Held(NamedTuple):
    """A task that a worker holds, as the database sees it."""

    id: int
    token: int
    state: str
    cancel_requested: int
    suspended: int


class Finding(NamedTuple):
    """A line of ``doctor``. ``advice`` is the suggested fix, None if no action is required."""

    name: str
    value: str
    advice: str | None = None
    broken: bool = False


class ExportBatch(NamedTuple):
    """Rows on their way to another database, by the names of their tables, and the highest id ever used there."""

    rows: dict[str, list[dict[str, Any]]]
    highest: int

    @property
    def last(self) -> int | None:
        """The highest id among its tasks; None: no more tasks."""
        return max((row["id"] for row in self.rows["task"]), default=None)


RetryTime = Callable[["TaskRecord", int, int], int]
"""When a task whose worker was lost is due again: called with its record, the lost attempts so far, and the time."""


class Wakeups(abc.ABC):
    """Tells waiting threads that the database changed, whoever changed it."""

    @abc.abstractmethod
    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """The state of the database now: take it before looking, hand it to ``wait``.

        ``queues``: what is waited for is a task of theirs that is due; empty: something else.
        """

    @abc.abstractmethod
    def give_up(self, ticket: object) -> None:
        """The thread that took the ticket no longer waits."""

    @contextlib.contextmanager
    def waiting(self, queues: tuple[str, ...] = ()) -> Iterator[object]:
        """Take a ticket for the block, in which the thread checks for due tasks and waits."""
        ticket = self.ticket(queues)
        try:
            yield ticket
        finally:
            self.give_up(ticket)

    @abc.abstractmethod
    def wait(self, ticket: object, timeout: float) -> None:
        """Return once the database has changed since ``ticket``, on a ring, or after ``timeout`` seconds."""

    @abc.abstractmethod
    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> None:
        """As ``wait``, and return when anything is put on the caller's ``bell``."""

    @abc.abstractmethod
    def ring(self) -> None:
        """Wake every waiting thread of this process."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the watching thread as soon as no thread waits. A later wait starts another one."""


class Database(abc.ABC):
    """What is asked of a database as a whole: its schema, its health, its connections."""

    @abc.abstractmethod
    def prepare(self, *, create: bool) -> None:
        """Check the schema; with ``create`` make a missing one and upgrade an old one where that is safe."""

    @abc.abstractmethod
    def migrate(self) -> tuple[int, int]:
        """Bring the schema to this program's version; the versions before (0: none) and after."""

    @abc.abstractmethod
    def missing_statements(self) -> list[str]:
        """What ``migrate`` would run."""

    @abc.abstractmethod
    def findings(self) -> list[Finding]:
        """What ``doctor`` tells of the database itself."""

    @abc.abstractmethod
    def disconnect(self) -> None:
        """Close the connections; a later call opens them again."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connections; a temporary database is gone."""


class Movable(abc.ABC):
    """How all tasks of a database come into another one."""

    @abc.abstractmethod
    def export(self, after: int, limit: int) -> ExportBatch:
        """Everything about the next ``limit`` tasks with ids above ``after``; at first also what belongs to no task."""

    @abc.abstractmethod
    def load(self, batch: ExportBatch) -> None:
        """Store what another database has exported, in one transaction; after ``seal``."""

    @abc.abstractmethod
    def seal(self, highest: int | None) -> None:
        """Refuse every program while tasks are loaded, or, with the highest id ever used, let them in again."""

    @abc.abstractmethod
    def is_sealed(self) -> bool:
        """Whether a loading has started and not ended."""


class Store(Database, Movable):
    """One database. Safe to share between threads; after a fork the child has connections of its own."""

    wakeups: Wakeups
    url: str
    """By which another process of this machine reaches the same database."""
    max_payload: int
    """The most bytes that a payload's JSON may have."""
    place_is_shared: bool
    """Whether everybody who can open the database shares one machine (not one PID namespace)."""
    beater: tuple[str, dict[str, Any]]
    """For the heart: the path of a file with ``open_beat(options)`` and its options."""

    @abc.abstractmethod
    def enqueue(self, tasks: Sequence[NewTask], connection: object = None) -> list[int]:
        """Store tasks that differ in their payloads only, all or none; their ids, or that of the task with the key.

        Through a user's ``connection`` they are part of its transaction.
        """

    @abc.abstractmethod
    def exchange(
        self,
        worker: int,
        *,
        starts: Sequence[Start] = (),
        notes: Sequence[Note] = (),
        ends: Sequence[End] = (),
        claim: Claim | None = None,
    ) -> Exchanged:
        """Store starts, notes and ends, in this order, and claim what comes next, in one transaction."""

    @abc.abstractmethod
    def keep(self, task: int, token: int, name: str, value: str) -> bool:
        """Store a checkpoint or a step's result of a running task under its name; False if the claim is gone."""

    @abc.abstractmethod
    def kept(self, task: int) -> dict[str, str]:
        """What was kept for the task, by name."""

    @abc.abstractmethod
    def transaction(self, worker: int, end: Callable[[], End]) -> AbstractContextManager[Any]:
        """A DB-API connection in a transaction that also stores the end; LeaseLost if the claim is gone."""

    @abc.abstractmethod
    def next_due(self, queues: Sequence[str], *, commands: bool = True) -> int | None:
        """When the next task of these queues is due, or None. Ignores paused queues; takes no write lock.

        Without ``commands``, command lines are ignored, too.
        """

    @abc.abstractmethod
    def waiting_since(self, queue: str, now: int) -> int | None:
        """Since when the longest-waiting due task of the queue has waited, or None.

        A task waits since its due time, or since that was decided if this was later.
        """

    @abc.abstractmethod
    def next_functions(self, queue: str, limit: int, before: int) -> list[str | None]:
        """The functions of the queue's first ``limit`` waiting tasks that are due before; None for a callback.

        Command lines are left out.
        """

    @abc.abstractmethod
    def cancel(self, task: int, now: int, *, running: bool = True) -> Verdict:
        """Cancel the task, or request it of the holder of a running task; with ``running=False`` never the latter."""

    @abc.abstractmethod
    def suspend(self, task: int, suspended: bool) -> Verdict:
        """Let a running task stand still, or go on; not stored unless a living worker runs it in a process."""

    @abc.abstractmethod
    def retry(self, task: int, now: int) -> Verdict:
        """Make a failed or final task pending again; not stored while another has its key."""

    @abc.abstractmethod
    def purge(self, queue: str, now: int) -> Iterator[int]:
        """Abandon every unfinished task of the queue that exists now, step by step; how many in each."""

    @abc.abstractmethod
    def prune(self, queue: str, before: int, states: Iterable[TaskState]) -> Iterator[int]:
        """Delete the queue's tasks in these states that finished before, step by step; how many in each."""

    @abc.abstractmethod
    def get(self, task: int, connection: object = None) -> TaskRecord | None:
        """The task, of any queue; through a user's ``connection`` as its transaction sees it."""

    @abc.abstractmethod
    def standings(self, tasks: Sequence[int]) -> dict[int, Standing]:
        """Return the state and the token of each of these tasks that exists."""

    @abc.abstractmethod
    def tasks(self, queue: str, state: TaskState | None, limit: int, before: int | None) -> list[TaskRecord]:
        """The queue's tasks, newest first, with ids below ``before``."""

    @abc.abstractmethod
    def attempts(self, task: int, since: int = 0) -> list[AttemptRecord]:
        """Every start of the task, or those from the token ``since`` on, oldest first; the newest OUTPUTS outputs."""

    @abc.abstractmethod
    def output(self, task: int, token: int) -> str | None:
        """The output of the attempt with this token, None if none was stored."""

    @abc.abstractmethod
    def ended(self, queue: str, limit: int) -> list[EndedRecord]:
        """The queue's attempts that ended last, newest first."""

    @abc.abstractmethod
    def count(self, queue: str, *, final: bool) -> dict[TaskState, int]:
        """How many tasks of the queue are in each state; without ``final`` only the unfinished states."""

    @abc.abstractmethod
    def queues(self) -> list[str]:
        """The names of all queues that have tasks or are paused, sorted."""

    @abc.abstractmethod
    def set_paused(self, queue: str, paused: bool) -> None:
        """Let nobody claim from the queue, or let them again."""

    @abc.abstractmethod
    def is_paused(self, queue: str) -> bool:
        """Whether the queue is paused."""

    @abc.abstractmethod
    def register(self, worker: WorkerRecord) -> int:
        """Add a worker's row; its id."""

    @abc.abstractmethod
    def beat(self, worker: int) -> bool:
        """Show that the worker lives; False when its row is lost or gone."""

    @abc.abstractmethod
    def deregister(self, worker: int) -> None:
        """Remove a worker's row; what it still holds is for others to rescue."""

    @abc.abstractmethod
    def workers(self) -> list[WorkerRecord]:
        """Every worker of the database, the lost ones of the last day too."""

    @abc.abstractmethod
    def held(self, worker: int) -> list[Held]:
        """What the worker holds."""

    @abc.abstractmethod
    def rescue(self, worker: int | None, beat: int, error: str, now: int, retry_time: RetryTime) -> int | None:
        """Mark a silent worker lost and give back what it held; how many, None if it has beaten since.

        With ``worker`` None: what is held by workers that have no row or are lost already.
        """

    @abc.abstractmethod
    def newest(self) -> tuple[int, int] | None:
        """Id and time of creation of the newest task of the database."""

    @abc.abstractmethod
    def fix_due_after_clock_change(self, now: int) -> int:
        """Make due now what was to be due at once but lies in the future, for the clock went back."""

"""The storage contract: what the queue asks of a database, in facets of at most ten verbs, one sentence for each verb.

``records.py`` has the rows that go in and out. Times are integers: microseconds since 1970, UTC. No verb raises
an error because a task's state forbids it. It returns a ``Verdict``, since many ends share one transaction. Every verb
may raise StoreUnavailable.
"""

from __future__ import annotations

import abc
import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

from .._formats.filters import Filters
from ..states import TaskState
from .records import BY_PARENTS as BY_PARENTS
from .records import EXPIRED_BEFORE_RETRY as EXPIRED_BEFORE_RETRY
from .records import HAS_CHILDREN as HAS_CHILDREN
from .records import HAS_PARENTS as HAS_PARENTS
from .records import MAX_PARENTS as MAX_PARENTS
from .records import WANTS_DONE as WANTS_DONE
from .records import WANTS_ENDED as WANTS_ENDED
from .records import WANTS_FAILED as WANTS_FAILED
from .records import ActionRecord as ActionRecord
from .records import AttemptRecord as AttemptRecord
from .records import EdgeRecord as EdgeRecord
from .records import EndedRecord as EndedRecord
from .records import FinalRecord as FinalRecord
from .records import GateRecord as GateRecord
from .records import Held as Held
from .records import HistoryRecord as HistoryRecord
from .records import LongRunning as LongRunning
from .records import NewAction as NewAction
from .records import NewTask as NewTask
from .records import OperationRecord as OperationRecord
from .records import RetentionRecord as RetentionRecord
from .records import RunningRecord as RunningRecord
from .records import SampleRecord as SampleRecord
from .records import SavedRecord as SavedRecord
from .records import ScheduleRecord as ScheduleRecord
from .records import TaskRecord as TaskRecord
from .records import TickRecord as TickRecord
from .records import WorkerRecord as WorkerRecord
from .records import fresh as fresh
from .records import maker as maker

OUTPUTS = 100
"""The most outputs that are read with a task's attempts. Each has up to 64 KiB, and a task may have any number."""


class Link(NamedTuple):
    """A parent of new tasks: the id of a task, or with ``is_new`` the position of a task that the same call stores.

    ``arguments``: as in an EdgeRecord.
    """

    parent: int
    is_new: bool = False
    arguments: str | None = None


class Waits(NamedTuple):
    """What new tasks wait for: ``links`` to their parents, and how these must end (``wants``, as in an EdgeRecord).

    ``delay``: as in a GateRecord. ``before``: the id of a blocked task that also waits for the new ones.
    """

    links: Sequence[Link]
    wants: int
    delay: int | None = 0
    before: int | None = None


class Refusal(NamedTuple):
    """Why tasks were not stored: "missing": the parent ``task`` does not exist; "not waiting": ``task`` is not blocked
    by parents, so no new task can come before it; "full": ``task`` would get more than MAX_PARENTS parents."""

    why: Literal["missing", "not waiting", "full"]
    task: int


class ParentState(NamedTuple):
    """What a child knows about a parent, without its result. ``state`` is None if the parent was pruned."""

    id: int
    arguments: str | None
    state: str | None
    function: str | None


class Summary(NamedTuple):
    """A task without its payload, result and error, for lists of many tasks. The fields are those of a TaskRecord."""

    id: int
    queue: str
    state: str
    function: str | None
    command: int
    attempt: int
    due: int
    started_at: int | None
    blocked: int
    flow: int
    suspended: int
    progress: str | None


class Position(NamedTuple):
    """The place of a waiting task in its queue: a claim takes ``rank`` first, then ``due``, then ``id``."""

    queue: str
    rank: int
    due: int
    id: int


class Enqueued(NamedTuple):
    """The ids of enqueued tasks, in order.

    ``existing``: the positions of tasks that were not stored because an unfinished task had the key. ``blocked``: the
    positions of tasks that wait for parents. ``ended``: the positions of tasks that have expired already, or whose
    condition cannot be met. ``refusal``: why nothing was stored.
    """

    ids: list[int]
    existing: AbstractSet[int] = frozenset()
    blocked: AbstractSet[int] = frozenset()
    ended: AbstractSet[int] = frozenset()
    refusal: Refusal | None = None


class Claim(NamedTuple):
    """What to reserve: at most ``limit`` tasks due at ``now``, from ``queues`` in this order.

    ``start`` starts them in the same transaction. ``batched`` marks them as one batch whose starts are not stored one
    by one: after a crash it is unknown which of them had started. ``commands``: command lines may be claimed, too.
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

    ``due``: when a failed or released task is due again; None keeps its due time. ``final``: no retry follows the
    failure. ``started_at``: when it started, if its start is not stored yet (a batch). ``error_type``: the full name of
    the error's class. ``cpu`` (microseconds) and ``memory`` (peak bytes): what the attempt took, None if not measured.
    ``unrun``: a release of a task whose code was never called. It leaves no attempt, even if its start was stored.
    ``flow``: 1 if the task was known to have children, which its end decides.
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
    flow: int = 0


class Note(NamedTuple):
    """What the attempt with this token reports while it runs; the last value of each name is kept.

    Names are ``progress`` and ``usage``, both JSON, and ``output``, a text. ``at``: when the value was read.
    """

    id: int
    token: int
    name: str
    value: str
    at: int | None = None


class Verdict(NamedTuple):
    """Whether a transition was stored, and the state and token of the task now; None if the task does not exist.

    ``why``: what forbids it, if that is neither the state nor the token.
    """

    stored: bool
    state: TaskState | None
    token: int | None
    why: str | None = None

    @property
    def refusal(self) -> str:
        """Why the transition was not stored, as a short text without ids."""
        return self.why or ("it does not exist" if self.state is None else f"it is {self.state}")


KEY_IS_TAKEN = "another unfinished task has its key"
IS_NEEDED = "an unfinished task waits for it"
IS_REQUESTED = "its cancellation was requested already"
BulkVerb = Literal["cancel", "retry", "reschedule", "delete"]


class Change(NamedTuple):
    """What a reschedule sets; None keeps it. ``due``: a time, or with ``spread`` the first time."""

    due: int | None = None
    rank: int | None = None
    queue: str | None = None


NO_CHANGE = Change()


class OperationStep(NamedTuple):
    """A step of a stored operation, for its runner. ``position``: where its search continues; None keeps that."""

    id: int
    runner: str
    position: str | None
    scanned: int


class BulkStep(NamedTuple):
    """Tasks to change in one transaction, with ids in any order.

    ``spread``: microseconds over which the due times of retried tasks are spread. ``action``: for the audit log.
    ``states``: those that the tasks were searched by, if any. A task that has left them since is refused.
    """

    verb: BulkVerb
    tasks: Sequence[int]
    now: int
    change: Change = NO_CHANGE
    spread: int = 0
    action: NewAction | None = None
    operation: OperationStep | None = None
    states: Sequence[str] = ()


class Acted(NamedTuple):
    """What a step has done: tasks that it changed, and the number of refused ones by reason.

    ``is_current``: False if its operation was stopped or taken over, so that nothing was done.
    """

    changed: int
    refused: dict[str, int]
    is_current: bool = True


class Standing(NamedTuple):
    """The state and the token of a task."""

    state: TaskState
    token: int


class Exchanged(NamedTuple):
    """The answers of an ``exchange``, each list in the order of what was asked.

    ``released``: how many children the ends have unblocked.
    """

    started: list[Verdict]
    ended: list[Verdict]
    claimed: list[TaskRecord]
    released: int = 0


class Outlook(NamedTuple):
    """What maintenance has to do next: read in one statement, so that an idle worker needs only one.

    ``now``: the time by the clock that decides ticks. ``next_tick``: when the first schedule is due. ``undecided``: a
    parent with children that are not decided yet. ``expires``: when the first task expires, or has expired.
    ``next_turn``: when the next turn of the duties is that one worker does for all. ``newest``: the id of the newest
    task, which was created at ``newest_at``. ``orphaned``: a worker that holds tasks, but has no row or is lost. Each
    is None if there is none.
    """

    now: int
    next_tick: int | None
    undecided: int | None
    expires: int | None
    next_turn: int | None = None
    newest: int | None = None
    newest_at: int | None = None
    orphaned: int | None = None


class QueueCounts(NamedTuple):
    """The numbers of a queue's unfinished tasks. Blocked ones count as pending or failed, too."""

    pending: int = 0
    failed: int = 0
    reserved: int = 0
    running: int = 0
    blocked: int = 0


class PlannedTick(NamedTuple):
    """A tick to make: its moment, and the task that it makes."""

    at: int
    task: NewTask


class TickPlan(NamedTuple):
    """What to do about a schedule that is due. ``schedule``: its row, as it was read.

    ``ticks``: the ticks to make, in order. ``missed``: how many are not made; the latest of them was at ``missed_at``.
    ``next_at``: the next tick after that.
    """

    schedule: ScheduleRecord
    ticks: Sequence[PlannedTick]
    missed: int
    missed_at: int | None
    next_at: int | None


class SkippedTick(NamedTuple):
    """A tick that made no task, since ``task`` was unfinished. ``in_a_row``: how many were skipped in a row."""

    schedule: ScheduleRecord
    at: int
    task: int
    in_a_row: int


class Ticked(NamedTuple):
    """What ``make_ticks`` has stored: new tasks with their ids, skipped ticks, and the plans with missed ticks."""

    tasks: list[tuple[int, NewTask]]
    skipped: list[SkippedTick]
    missed: list[TickPlan]


class Settled(NamedTuple):
    """When the next tick is, and which ticks were missed until now, as in a TickPlan."""

    next_at: int | None
    missed: int = 0
    missed_at: int | None = None


class Declared(NamedTuple):
    """``before``: the row that ``declare`` has found, or None. ``is_changed``: it has stored a change."""

    before: ScheduleRecord | None
    is_changed: bool


class Finding(NamedTuple):
    """A line of ``doctor``. ``advice`` is the suggested fix, None if no action is required."""

    name: str
    value: str
    advice: str | None = None
    broken: bool = False


class ExportBatch(NamedTuple):
    """Rows to copy to another database, by table, and the highest task id that the source has ever used."""

    rows: dict[str, list[dict[str, Any]]]
    highest: int

    @property
    def last(self) -> int | None:
        """The highest id among its tasks; None: there are no more tasks to copy."""
        return max((row["id"] for row in self.rows["task"]), default=None)


RetryTime = Callable[["TaskRecord", int, int], int]
"""Returns when a task of a lost worker is due again, from its record, its lost attempts so far, and the time now."""


Settle = Callable[["ScheduleRecord | None", "ScheduleRecord", int], Settled]
"""Returns the next tick of a schedule from its row, its new definition and the time now. The row is None for a new one.

Ticks that are due by its row are missed, unless it is paused. It must not raise an exception.
"""


class Wakeups(abc.ABC):
    """Wakes waiting threads when any process has changed the database.

    ``sees_all_queues``: a wait also ends when a queue changes that its ticket does not name.
    """

    sees_all_queues = False

    @abc.abstractmethod
    def ticket(self, queues: tuple[str, ...] = ()) -> object:
        """Return the state of the database now. Take it before a check, and pass it to ``wait``.

        ``queues``: the thread waits for a due task of these queues. Empty: it waits for any other change.
        """

    @abc.abstractmethod
    def give_up(self, ticket: object) -> None:
        """Withdraw a ticket whose thread no longer waits."""

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
        """Return once the database has changed since ``ticket``, after a ``ring``, or after ``timeout`` seconds."""

    @abc.abstractmethod
    def wait_on(self, bell: queue.SimpleQueue[None], ticket: object, timeout: float) -> bool:
        """Wait as ``wait`` does, but also return when something is put on the caller's ``bell``.

        Return False if nothing happened in ``timeout`` seconds, and True if the caller must check.
        """

    @abc.abstractmethod
    def ring(self) -> None:
        """Wake every waiting thread of this process."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop the watching thread once no thread waits. A later ``wait`` starts another one."""


# -- the facets ------------------------------------------------------------------------------------


class Database(abc.ABC):
    """A database as a whole: its schema, its health, its connections."""

    @abc.abstractmethod
    def prepare(self, *, create: bool) -> None:
        """Check the schema; with ``create`` make a missing one and upgrade an old one where that is safe."""

    @abc.abstractmethod
    def migrate(self) -> tuple[int, int]:
        """Bring the schema to this program's version; return the versions before (0: none) and after."""

    @abc.abstractmethod
    def missing_statements(self, since: int | None = None) -> list[str]:
        """Return the statements that ``migrate`` would run, for a schema of version ``since`` if that is given."""

    @abc.abstractmethod
    def findings(self) -> list[Finding]:
        """Return what ``doctor`` reports about the database itself."""

    @abc.abstractmethod
    def disconnect(self) -> None:
        """Close the connections; a later call opens them again."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connections for good; a temporary database is removed."""


class Tasks(abc.ABC):
    """What producers and operators do with tasks. They do not hold them."""

    @abc.abstractmethod
    def enqueue(
        self,
        groups: Sequence[Sequence[NewTask]],
        connection: object = None,
        waits: Sequence[Waits | None] = (),
        action: NewAction | None = None,
    ) -> Enqueued:
        """Store all tasks or none. Tasks of a group differ only in payload; a task with a key has a group.

        ``connection``: a user's, in its transaction. ``waits``: of each group, or none.
        """

    @abc.abstractmethod
    def get(self, task: int, connection: object = None) -> TaskRecord | None:
        """Return the task, of any queue. With a user's ``connection``, return it as that transaction sees it."""

    @abc.abstractmethod
    def standings(self, tasks: Sequence[int]) -> dict[int, Standing]:
        """Return the state and the token of each of these tasks that exists."""

    @abc.abstractmethod
    def cancel(self, task: int, now: int, *, running: bool = True, action: NewAction | None = None) -> Verdict:
        """Cancel the task; if it is running, request it unless ``running`` is False.

        ``action``, here and below: what to log in the same transaction, even if it is refused.
        """

    @abc.abstractmethod
    def suspend(self, task: int, suspended: bool, action: NewAction | None = None) -> Verdict:
        """Suspend or continue a running task. Not stored unless a live worker runs it in a child process."""

    @abc.abstractmethod
    def retry(self, task: int, now: int, action: NewAction | None = None) -> Verdict:
        """Make a failed or final task pending again. Not stored while another unfinished task has its key."""

    @abc.abstractmethod
    def purge(self, queue: str, now: int, action: NewAction | None = None) -> Iterator[int]:
        """Abandon every unfinished task that the queue has now, in steps; yield the number of tasks in each step."""

    @abc.abstractmethod
    def prune(
        self, queue: str, before: int, states: Iterable[TaskState], action: NewAction | None = None
    ) -> Iterator[int]:
        """Delete the queue's tasks in these states that finished before ``before``, in steps, as ``purge`` does."""

    @abc.abstractmethod
    def fix_due_after_clock_change(self, now: int) -> int:
        """Make due now each task that was enqueued without a delay but lies in the future: the clock was set back."""

    @abc.abstractmethod
    def expire(self, now: int) -> int:
        """Abandon tasks that have expired and are not held, and decide their children; return how many."""


class Claims(abc.ABC):
    """What workers do with the tasks that they hold, and how they find more."""

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
        """Store starts, notes and ends, in this order, and claim the next tasks, all in one transaction."""

    @abc.abstractmethod
    def save(self, task: int, token: int, name: str, value: str) -> bool:
        """Store a running task's checkpoint, or the result of a step by its name; False if the claim was lost."""

    @abc.abstractmethod
    def saved(self, task: int) -> dict[str, str]:
        """Return the checkpoint and the results of steps of the task, by name."""

    @abc.abstractmethod
    def saved_briefly(self, task: int, limit: int) -> list[SavedRecord]:
        """Return sizes and beginnings of the checkpoint and the results of steps, by name."""

    @abc.abstractmethod
    def transaction(self, worker: int, end: Callable[[], End]) -> AbstractContextManager[Any]:
        """Return a block with a DB-API connection, whose commit also stores the end. Raises LeaseLost."""

    @abc.abstractmethod
    def next_due(self, queues: Sequence[str], *, commands: bool = True) -> int | None:
        """Return when the next task of these queues is due, or None. Takes no write lock.

        Ignores paused queues, and without ``commands`` also command lines.
        """

    @abc.abstractmethod
    def next_functions(self, queue: str, limit: int, before: int) -> list[str | None]:
        """Return the functions of the queue's first ``limit`` waiting tasks due before ``before``; None for a callback.

        Command lines are left out.
        """


class Dependencies(abc.ABC):
    """Parents and children. ``Tasks`` and ``Claims`` store them and decide about them."""

    @abc.abstractmethod
    def parents(self, task: int, limit: int) -> list[EdgeRecord]:
        """Return the first ``limit`` edges to the task's parents, in their order."""

    @abc.abstractmethod
    def children(self, task: int, after: int, limit: int) -> list[EdgeRecord]:
        """Return the first ``limit`` edges to the task's children with ids above ``after``, by id."""

    @abc.abstractmethod
    def gate(self, task: int) -> GateRecord | None:
        """Return the counter of a task with parents; None for a task without parents."""

    @abc.abstractmethod
    def gates(self, tasks: Sequence[int]) -> dict[int, GateRecord]:
        """Return the counters of tasks, by id. Tasks without open parents are left out."""

    @abc.abstractmethod
    def open_parents(self, task: int, limit: int) -> list[EdgeRecord]:
        """Return the first ``limit`` edges to parents that have not ended, in their order."""

    @abc.abstractmethod
    def parent_states(self, task: int) -> list[ParentState]:
        """Return what a child knows about its parents, in their order."""

    @abc.abstractmethod
    def decide_children(self, now: int, *, search: bool = False) -> int:
        """Decide children whose parents have ended earlier; return how many were released.

        ``search``: also find parents that an earlier version has ended. Reads all open edges.
        """


class Schedules(abc.ABC):
    """Schedules and their ticks. A server's clock decides the times; on a file, ``now`` does: the caller's clock."""

    @abc.abstractmethod
    def declare(
        self, schedules: Sequence[ScheduleRecord], now: int, settle: Settle, action: NewAction | None = None
    ) -> list[Declared]:
        """Store definitions of schedules, all or none. The same again changes nothing.

        ``declared_at``: whether a worker declares them. After a change of times, ``settle`` gives the next tick.
        """

    @abc.abstractmethod
    def remove_schedule(self, queue: str, name: str, action: NewAction | None = None) -> bool:
        """Remove a schedule, but not its ticks; False if it does not exist."""

    @abc.abstractmethod
    def pause_schedule(
        self, queue: str, name: str, paused: bool, now: int, settle: Settle, action: NewAction | None = None
    ) -> bool:
        """Pause or resume a schedule, and set its next tick by ``settle``; False if it does not exist."""

    @abc.abstractmethod
    def schedules(self, queue: str | None = None, name: str | None = None) -> list[ScheduleRecord]:
        """Return all schedules, or those of a queue, or the one with this name there."""

    @abc.abstractmethod
    def ticks(self, queue: str, name: str, limit: int) -> list[TickRecord]:
        """Return the latest ``limit`` ticks of a schedule, newest first."""

    @abc.abstractmethod
    def outlook(self, now: int) -> Outlook:
        """Return when the first schedule is due, and what else is left to do. One statement, without a lock."""

    @abc.abstractmethod
    def due_schedules(self, now: int, limit: int) -> list[ScheduleRecord]:
        """Return at most ``limit`` schedules that are due at ``now``, in the order of their next ticks."""

    @abc.abstractmethod
    def misplaced_schedules(self, now: int) -> list[ScheduleRecord]:
        """Return the schedules whose next tick may be too late if the clock was set back to ``now``."""

    @abc.abstractmethod
    def make_ticks(self, plans: Sequence[TickPlan], now: int) -> Ticked:
        """Carry out plans in one transaction, except for schedules that have changed since they were read."""

    @abc.abstractmethod
    def prune_ticks(self, before: int, limit: int) -> int:
        """Delete about ``limit`` ticks before a moment, oldest first; return how many."""


class Workers(abc.ABC):
    """The workers of the database, and the rescue of what they hold."""

    @abc.abstractmethod
    def register(self, worker: WorkerRecord) -> int:
        """Add a worker's row; return its id."""

    @abc.abstractmethod
    def beat(self, worker: int) -> bool:
        """Store a heartbeat; False when the worker's row is marked lost or does not exist."""

    @abc.abstractmethod
    def deregister(self, worker: int) -> None:
        """Remove a worker's row. Other workers rescue what it still holds."""

    @abc.abstractmethod
    def workers(self) -> list[WorkerRecord]:
        """Return every worker of the database, including those that were lost within the last day."""

    @abc.abstractmethod
    def held(self, worker: int) -> list[Held]:
        """Return what the worker holds."""

    @abc.abstractmethod
    def longest_running(self, limit: int) -> list[LongRunning]:
        """Return the ``limit`` tasks of the database that have run longest."""

    @abc.abstractmethod
    def running(self, limit: int) -> list[RunningRecord]:
        """Return at most ``limit`` running tasks of all workers."""

    @abc.abstractmethod
    def rescue(self, worker: int | None, beat: int, error: str, now: int, retry_time: RetryTime) -> int | None:
        """Mark a silent worker lost and release what it held; return how many, None after a new heartbeat.

        With ``worker`` None: release what workers hold that have no row or are lost already.
        """

    @abc.abstractmethod
    def workers_lost(self) -> int:
        """Return how many workers of this database have ever been marked lost."""


class Queues(abc.ABC):
    """The queues of the database."""

    @abc.abstractmethod
    def queues(self) -> list[str]:
        """Return the names of all queues that have tasks or are paused, sorted."""

    @abc.abstractmethod
    def queue_counts(self) -> dict[str, QueueCounts]:
        """Return the numbers of unfinished tasks of each queue that has any, in one statement."""

    @abc.abstractmethod
    def set_paused(self, queue: str, paused: bool, action: NewAction | None = None) -> None:
        """Pause or resume the queue: nothing is claimed from a paused one."""

    @abc.abstractmethod
    def paused_queues(self) -> set[str]:
        """Return the names of all paused queues."""

    @abc.abstractmethod
    def final_counts(self, queues: Sequence[str]) -> list[FinalRecord]:
        """Count the final tasks of these queues. One statement, which takes a second for ten million tasks."""

    @abc.abstractmethod
    def is_paused(self, queue: str) -> bool:
        """Return whether the queue is paused."""


class Listing(abc.ABC):
    """Lists, attempts and counts of tasks, for people to read."""

    @abc.abstractmethod
    def tasks(
        self, queue: str, state: TaskState | None, limit: int, before: int | None, *, blocked: bool = False
    ) -> list[TaskRecord]:
        """Return the queue's tasks with ids below ``before``, newest first; with ``blocked`` only blocked ones."""

    @abc.abstractmethod
    def summaries(self, tasks: Sequence[int]) -> dict[int, Summary]:
        """Return those of these tasks that exist, by id."""

    @abc.abstractmethod
    def count_before(self, position: Position, now: int, limit: int, *, commands: bool) -> tuple[int, int]:
        """Return how many due tasks are claimed before ``position``: of higher priorities, and of its own.

        Counts at most ``limit``, with ``commands`` also command lines.
        """

    @abc.abstractmethod
    def attempts(self, task: int, since: int = 0) -> list[AttemptRecord]:
        """Return every start of the task from the token ``since`` on, oldest first, with the newest OUTPUTS outputs."""

    @abc.abstractmethod
    def newest_attempts(self, task: int, limit: int, before: int | None, *, outputs: bool) -> list[AttemptRecord]:
        """Return the newest ``limit`` starts of the task with tokens below ``before``, oldest first."""

    @abc.abstractmethod
    def output(self, task: int, token: int) -> str | None:
        """Return the output of the attempt with this token, None if none was stored."""

    @abc.abstractmethod
    def ended(self, queue: str, limit: int) -> list[EndedRecord]:
        """Return the queue's attempts that ended last, newest first."""

    @abc.abstractmethod
    def count(self, queue: str, *, final: bool) -> dict[TaskState, int]:
        """Return the number of the queue's tasks in each state; without ``final`` only in the unfinished states."""

    @abc.abstractmethod
    def count_blocked(self, queue: str) -> int:
        """Return the number of the queue's unfinished tasks that are blocked. ``count`` counts them, too."""

    @abc.abstractmethod
    def waiting_since(self, queue: str, now: int) -> int | None:
        """Return the time since which the longest-waiting due task of the queue has waited, or None.

        A task waits from its due time, or from when that was set if this was later.
        """


class Copying(abc.ABC):
    """Copying all tasks of a database into another one."""

    @abc.abstractmethod
    def export(self, after: int, limit: int) -> ExportBatch:
        """Return the next ``limit`` tasks with ids above ``after``. The first also has the other tables."""

    @abc.abstractmethod
    def export_ticks(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return about the next ``limit`` ticks after a moment. Ticks of the same moment stay together."""

    @abc.abstractmethod
    def load_ticks(self, ticks: Sequence[dict[str, Any]]) -> None:
        """Store ticks from another database, except those that are stored already."""

    @abc.abstractmethod
    def load_actions(self, actions: Sequence[ActionRecord], operations: Sequence[OperationRecord]) -> None:
        """Store rows of the audit log and operations from another database, except those that are stored already."""

    @abc.abstractmethod
    def begin_import(self) -> None:
        """Lock every other program out of this database until ``end_import``."""

    @abc.abstractmethod
    def load(self, batch: ExportBatch) -> None:
        """Store a batch from another database in one transaction. Call ``begin_import`` first."""

    @abc.abstractmethod
    def end_import(self, highest: int) -> None:
        """Allow other programs again. New tasks get ids above ``highest``, the highest id that the source has used."""

    @abc.abstractmethod
    def is_importing(self) -> bool:
        """Return whether an import has started and not ended."""


class SearchRequest(NamedTuple):
    """What to search for, and where to continue.

    ``cursor``: the ``next`` of the page before. ``highest``: the highest id to look at. ``among``: only these tasks,
    if not None. ``without``: not these. ``arguments``: see ``conditions.Tested``. The search ends after ``limit``
    tasks, ``rows`` rows or ``seconds``.
    """

    filters: Filters
    sort: str = "newest"
    limit: int = 100
    cursor: str | None = None
    highest: int | None = None
    among: Sequence[int] | None = None
    without: Sequence[int] = ()
    arguments: Mapping[str, Sequence[str]] = {}
    rows: int = 20_000
    seconds: float = 0.12


class SearchPage(NamedTuple):
    """What one call of a search found: ``next`` is where to continue, None exactly if nothing is left.

    ``scanned``: the tasks that it looked at. ``back_to``: the lowest id of these. ``tasks`` is empty if only ids were
    requested.
    """

    ids: list[int]
    tasks: list[TaskRecord]
    next: str | None
    scanned: int
    back_to: int | None


class Search(abc.ABC):
    """Finding tasks by filters, within bounds."""

    @abc.abstractmethod
    def search(self, request: SearchRequest) -> SearchPage:
        """Return the next tasks that match, in the order of the sort. Raises ValueError for an invalid cursor."""

    @abc.abstractmethod
    def newest(self) -> tuple[int, int] | None:
        """Return the id and the time of creation of the newest task of the database."""

    @abc.abstractmethod
    def search_ids(self, request: SearchRequest) -> SearchPage:
        """Return the same page without the tasks: only their ids."""


class Operations(abc.ABC):
    """What operators do with single tasks and with many, and the audit log of it."""

    @abc.abstractmethod
    def reschedule(self, task: int, change: Change, now: int, action: NewAction | None = None) -> Verdict:
        """Change when a pending or failed task is due, its priority, or its queue."""

    @abc.abstractmethod
    def delete(self, task: int, action: NewAction | None = None) -> Verdict:
        """Delete a final task that no unfinished task waits for. The verdict has its last state."""

    @abc.abstractmethod
    def act(self, step: BulkStep) -> Acted:
        """Do to each of these tasks what the verb does to one, all in one transaction."""

    @abc.abstractmethod
    def preview(self, step: BulkStep) -> Acted:
        """Return what ``act`` would do, except for what other tasks of the step would change for it."""

    @abc.abstractmethod
    def log_action(self, action: NewAction, changed: int, outcome: str) -> None:
        """Add a row to the audit log, for an action that stores nothing else."""

    @abc.abstractmethod
    def actions(self, limit: int, before: int | None, wanted: Mapping[str, str | int]) -> list[ActionRecord]:
        """Return rows of the audit log with ids below ``before``, newest first. ``wanted``: values of columns."""

    @abc.abstractmethod
    def prune_actions(self, before: int, most: int, limit: int) -> int:
        """Delete about ``limit`` of the oldest actions: those before a time, and those beyond ``most``."""

    @abc.abstractmethod
    def create_operation(self, operation: OperationRecord, action: NewAction) -> int:
        """Store an operation for the tasks that exist now, up to its ``highest`` if that is not 0; return its id."""

    @abc.abstractmethod
    def operations(self, limit: int, before: int | None = None, *, open_only: bool = False) -> list[OperationRecord]:
        """Return operations with ids below ``before``, newest first; with ``open_only`` those that are running."""

    @abc.abstractmethod
    def set_operation(
        self, id: int, *, runner: str, now: int, end: str | None = None, action: NewAction | None = None
    ) -> bool:
        """Give a running operation to a runner, if it has none or a silent one, or end it; False if that is refused.

        A runner is silent after 30 s. Only with an ``action`` may others end it.
        """


class History(abc.ABC):
    """What attempts did and how queues were, by time; retention; who does such work."""

    @abc.abstractmethod
    def write_history(self, rows: Sequence[HistoryRecord]) -> None:
        """Store rows of one writer, each in place of the row with the same period, time, writer, queue and function."""

    @abc.abstractmethod
    def write_samples(self, rows: Sequence[SampleRecord]) -> None:
        """Store samples, each in place of the one of the same period, time and queue."""

    @abc.abstractmethod
    def history(
        self, start: int, *, queue: str | None = None, function: str | None = None, worker: int | None = None
    ) -> list[HistoryRecord]:
        """Return the rows whose periods start at ``start`` or later: all of them, or those of a queue, and so on."""

    @abc.abstractmethod
    def samples(self, start: int, queue: str | None = None) -> list[SampleRecord]:
        """Return the samples of periods that start at ``start`` or later, of all queues or one."""

    @abc.abstractmethod
    def history_totals(self) -> list[HistoryRecord]:
        """Return the sums of each queue and function over all times. They never fall."""

    @abc.abstractmethod
    def fold_history(self, now: int, limit: int) -> int:
        """Add up at most ``limit`` old rows and samples to longer periods; return how many."""

    @abc.abstractmethod
    def take_turn(self, name: str, now: int, interval: int) -> bool:
        """Take a duty's turn and return True if it is due, or more than two intervals ahead: a clock was wrong.

        The next one is at the next multiple of ``interval``. Only one program gets it.
        """

    @abc.abstractmethod
    def retentions(self) -> list[RetentionRecord]:
        """Return what is pruned in the background, by queue."""

    @abc.abstractmethod
    def set_retention(self, retention: RetentionRecord, action: NewAction | None = None) -> None:
        """Store what is pruned in the background in a queue."""

    @abc.abstractmethod
    def apply_retention(self, retention: RetentionRecord, now: int) -> Iterator[int]:
        """Delete the queue's final tasks that are not kept, oldest first, in steps; yield the number in each step."""


FACETS = (
    *(Database, Dependencies, Tasks, Claims, Schedules, Workers, Queues),
    *(Listing, Search, Operations, History, Copying),
)


class Store(
    Database, Dependencies, Tasks, Claims, Schedules, Workers, Queues, Listing, Search, Operations, History, Copying
):
    """One database. Safe to share between threads; after a fork the child has connections of its own."""

    wakeups: Wakeups
    url: str
    """The URL by which another process of this machine reaches the same database."""
    max_payload: int
    """The most bytes that a payload's JSON may have."""
    place_is_shared: bool
    """Whether all programs that can open the database share one machine (not one PID namespace)."""
    beater: tuple[str, dict[str, Any]]
    """For the heartbeat process: the path of a module with a function ``open_beat``, and the options to pass to it."""

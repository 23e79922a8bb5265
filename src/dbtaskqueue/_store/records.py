"""The records of the store: the columns of each table, and which of them are read and written. Declared only here.

Queries include lists that are made from these declarations, such as ``{{task_columns}}`` (see ``column_lists``). Rows
come back in the same order. To add a column of a task, add a field to ``TaskRecord``, and to ``NewTask`` if ``enqueue``
sets it. A field is read from the column of its name, or by the query ``task_FIELD`` if there is one.

Times are integers: microseconds since 1970, UTC.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ..states import PENDING

HAS_CHILDREN, HAS_PARENTS = 1, 2
"""Bits of ``flow``: the task has, or had, children or parents. The end of a task with children decides about them."""
BY_PARENTS = 1
"""A bit of ``blocked``: a parent has not ended."""
WANTS_DONE, WANTS_ENDED, WANTS_FAILED = 1, 2, 3
"""How parents must end for a child to start: all done; all ended, in any state; all ended, and one not done."""
MAX_PARENTS = 10_000
"""The most parents that a task may have."""


EXPIRED = "expired: no attempt was started in time"
"""The error of an expired task."""
EXPIRED_BEFORE_RETRY = "expired: the next attempt would start too late"
"""Added to the error of an attempt if the next one would start too late."""


class TaskRecord(NamedTuple):
    """A task as it is read.

    ``rank``: minus the priority. ``due``: when it may be claimed. ``budget`` and ``retry_base``: see ``max_attempts``.
    ``isolated``: it runs alone, since it was in a batch whose worker was lost. ``options``, ``payload``, ``result``,
    ``meta``, ``progress`` and ``usage`` are JSON. ``error`` and ``error_type`` are those of the last failed attempt
    since an operator's retry. ``command``: its payload is a command line. ``retry_token``: its token at the last
    operator's retry. ``suspended``: it runs, but is paused. ``progress`` and ``usage`` belong to its last attempt;
    ``usage`` is there only while that runs. ``flow`` and ``blocked`` are bit masks: see HAS_CHILDREN and the constants
    after it. ``expires``: no attempt starts after this time.
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
    meta: str | None
    payload: str | None
    result: str | None
    error: str | None
    error_type: str | None
    command: int
    retry_token: int
    flow: int
    expires: int | None
    # the default is the value that every new claim has
    blocked: int = 0
    suspended: int = 0
    progress: str | None = None
    usage: str | None = None

    @property
    def max_attempts(self) -> int | None:
        """The attempt after which a failure is final. An operator's retry starts the count of attempts again."""
        return None if self.budget is None else self.retry_base + self.budget


class NewTask(NamedTuple):
    """A task as ``enqueue`` stores it. The fields are those of a TaskRecord."""

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
    expires: int | None = None
    flow: int = 0
    blocked: int = 0


class AttemptRecord(NamedTuple):
    """One start of a task and how it ended; ``outcome`` is None while it runs. ``cpu`` and ``memory`` as in an End."""

    number: int
    token: int
    worker: int | None
    started_at: int | None
    finished_at: int | None
    outcome: str | None
    error: str | None
    error_type: str | None = None
    cpu: int | None = None
    memory: int | None = None
    output: str | None = None


class EndedRecord(NamedTuple):
    """An attempt that has ended, as statistics need it. ``function`` is None for a callback."""

    function: str | None
    command: int
    outcome: str
    started_at: int | None
    finished_at: int | None
    cpu: int | None
    memory: int | None


class Held(NamedTuple):
    """A task that a worker holds, according to the database."""

    id: int
    token: int
    state: str
    cancel_requested: int
    suspended: int


class Rescued(NamedTuple):
    """What a rescue has released: ``tasks``, their number, and ``lost``, those that were running, as they are now.

    Their ``attempt`` and ``started_at`` are those of the lost attempt, and ``error`` tells which worker was lost.
    """

    tasks: int
    lost: list[TaskRecord]


class LongRunning(NamedTuple):
    """A running task, as lists of them need it.

    ``payload``: the first 300 characters. ``reported_at``: when its progress last changed. The other fields are those
    of a TaskRecord.
    """

    id: int
    queue: str
    function: str | None
    command: int
    token: int
    attempt: int
    budget: int | None
    retry_base: int
    worker: int | None
    cancel_requested: int
    started_at: int | None
    payload: str | None
    suspended: int
    progress: str | None
    usage: str | None
    reported_at: int | None

    @property
    def max_attempts(self) -> int | None:
        """See TaskRecord."""
        return None if self.budget is None else self.retry_base + self.budget


class SavedRecord(NamedTuple):
    """A checkpoint or the result of a step: its characters of JSON, and the first 200 of them."""

    name: str
    size: int
    beginning: str


class FinalRecord(NamedTuple):
    """The final tasks of a queue."""

    name: str
    done: int
    cancelled: int
    abandoned: int


class WorkerRecord(NamedTuple):
    """A worker's row. ``boot``, ``namespace`` and ``started`` are its place, None where they cannot be read.

    ``lease`` is in seconds. ``executor``: thread, process or asyncio; None for a plain ``fetch()`` user. ``queues``:
    the names of the queues that it serves. ``functions``: the names of the functions that it has code for, null for a
    callback. Both are JSON, and None where they are unknown: for a plain ``fetch()`` user, and for a worker of 0.1.0.
    ``commands``: it runs command lines, too. ``version``: of dbtaskqueue. ``slots``: how many tasks it runs at the same
    time. Both are None where they are unknown.
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
    commands: int = 0
    version: str | None = None
    slots: int | None = None


class EdgeRecord(NamedTuple):
    """``child`` waits, or waited, for ``parent``.

    ``place``: the order of a child's parents. ``wants``: see WANTS_DONE. ``met``: None until the parent has ended, then
    1 if it ended as wanted, else 0. ``arguments``: a JSON list of places in the child's payload (JSON pointers) that
    get the parent's result; None if there is none.
    """

    parent: int
    child: int
    place: int
    wants: int
    met: int | None
    arguments: str | None


class GateRecord(NamedTuple):
    """The counter of a task with parents: ``open`` of ``total`` parents have not ended.

    ``delay``: microseconds from the end of the last parent until the task is due; None: its due time does not change.
    """

    task: int
    wants: int
    total: int
    open: int
    delay: int | None


class ScheduleRecord(NamedTuple):
    """A schedule. ``every``, ``catch_up_window`` and ``jitter`` are microseconds.

    ``target``: JSON of what each tick enqueues. ``next_at`` is None if it never fires again. ``last_at``: the last tick
    that made a task, was skipped or was missed. ``last_task``: the task of the last tick that made one. ``missed`` and
    ``skipped`` are counts. ``declared_at`` is None for a schedule that no worker declares.
    """

    queue: str
    name: str
    target: str
    cron: str | None
    every: int | None
    timezone: str
    overlap: str
    catch_up: str
    catch_up_window: int
    jitter: int
    paused: int = 0
    next_at: int | None = None
    last_at: int | None = None
    last_task: int | None = None
    skipped: int = 0
    missed: int = 0
    skips_in_a_row: int = 0
    declared_at: int | None = None


class TickRecord(NamedTuple):
    """A tick of a schedule: ``outcome`` is ran, skipped or missed.

    ``task``: the task that it made; for a skipped one, the task that was unfinished. ``missed``: for ticks that were
    missed together, their number.
    """

    queue: str
    schedule: str
    at: int
    outcome: str
    task: int | None
    missed: int = 0


class NewAction(NamedTuple):
    """An operator's action, before it is carried out. ``queue`` and ``task``: what it is done to, None for neither.

    ``via``: dashboard, api, cli or python. ``detail``: what else is known about it, such as filters; no payloads.
    """

    at: int
    who: str
    via: str
    verb: str
    queue: str | None = None
    task: int | None = None
    detail: Mapping[str, object] | None = None


class ActionRecord(NamedTuple):
    """A row of the audit log. ``detail`` is JSON. ``outcome``: "done", or why the action was refused."""

    id: int
    at: int
    who: str
    via: str
    verb: str
    queue: str | None
    task: int | None
    detail: str | None
    changed: int
    outcome: str


class OperationRecord(NamedTuple):
    """A bulk action of the dashboard. ``filters``, ``options`` and ``refused`` are JSON.

    ``state``: running, done or stopped. ``position``: where its search continues. ``runner``: the program that carries
    it out, if one does.
    """

    id: int
    verb: str
    filters: str
    options: str
    who: str
    via: str
    created_at: int
    highest: int
    state: str
    position: str | None
    scanned: int
    changed: int
    refused: str
    runner: str | None
    step_at: int
    ended_at: int | None


class HistoryRecord(NamedTuple):
    """What attempts of a function did in a period.

    ``period``: its seconds; 0 for the total of all earlier times. ``at``: when it starts. ``worker``: a random number
    of the process that overwrites the row, or 0 for rows to which any process adds. ``seconds`` and ``cpu`` are
    microseconds. ``memory``: the largest peak. ``run_times`` and ``wait_times``: see ``_formats.buckets``.
    """

    period: int
    at: int
    worker: int
    queue: str
    function: str
    done: int = 0
    failed: int = 0
    abandoned: int = 0
    cancelled: int = 0
    lost: int = 0
    released: int = 0
    seconds: int = 0
    cpu: int = 0
    memory: int | None = None
    run_times: str = "{}"
    wait_times: str = "{}"


class SampleRecord(NamedTuple):
    """What was counted in a queue at a moment of a period; in longer periods, the largest values.

    ``oldest_due``: the microseconds that the longest-waiting due task has waited. ``workers``: live ones that serve the
    queue.
    """

    period: int
    at: int
    queue: str
    pending: int
    failed: int
    reserved: int
    running: int
    blocked: int
    oldest_due: int | None
    workers: int


class RetentionRecord(NamedTuple):
    """What is pruned in the background in a queue. None: kept.

    ``done``, ``cancelled`` and ``abandoned``: the microseconds after its end for which a task is kept. ``most``: the
    most final tasks that are kept.
    """

    queue: str
    done: int | None = None
    cancelled: int | None = None
    abandoned: int | None = None
    most: int | None = None


class RunningRecord(NamedTuple):
    """A running task. ``progress_at``: when its progress last changed. ``changes``: how often; None: never."""

    id: int
    queue: str
    function: str | None
    command: int
    attempt: int
    worker: int | None
    started_at: int | None
    cancel_requested: int
    suspended: int
    progress_at: int | None
    changes: int | None


R = TypeVar("R", bound=tuple[Any, ...])

SET_AFTERWARDS = ("expires", "flow", "blocked")
"""Columns of a new task that a separate statement sets, so that plain tasks do not pay for them."""
NOT_OF_A_CLAIM = tuple(TaskRecord._field_defaults)
"""Fields that have their defaults in a new claim; reading them would cost a claim two subqueries."""
_FROM_OTHER_TABLES = ("error", "error_type", "progress", "usage")
_SET_BY_CLAIM = ("queue", "state", "worker", "cancel_requested", "finished_at", "result", "error", "error_type")
"""Fields whose values a claim on SQLite knows without reading them."""
FOUND = tuple(name for name in TaskRecord._fields if name not in (*_SET_BY_CLAIM, *NOT_OF_A_CLAIM))
"""What a claim on SQLite reads of the tasks that it finds."""

TABLES: dict[str, tuple[str, ...]] = {
    "queue": ("name", "paused"),
    "worker": WorkerRecord._fields,
    "task": (
        *(name for name in TaskRecord._fields if name not in _FROM_OTHER_TABLES),
        *("due_set_at", "batched", "cpu", "memory", "reason"),
    ),
    "large": ("task", "name", "value"),
    "note": ("task", "token", "name", "value", "at", "changes"),
    "attempt": ("task", *(name for name in AttemptRecord._fields if name != "output")),
    "edge": EdgeRecord._fields,
    "gate": GateRecord._fields,
    "undecided": ("parent",),
    "expiry": ("task", "expires"),
    "schedule": ScheduleRecord._fields,
    "tick": TickRecord._fields,
    "action": ActionRecord._fields,
    "operation": OperationRecord._fields,
    "history": HistoryRecord._fields,
    "sample": SampleRecord._fields,
    "retention": RetentionRecord._fields,
}
"""The columns of each table. Tables are copied in this order."""


def column_lists(queries: Container[str]) -> dict[str, str]:
    """Return the lists that queries may include, by name.

    ``queries``: the names of an engine's queries. Where there is one for a column, the list includes that.
    """

    def listed(fields: Iterable[str], form: Callable[[str], str], *prefixes: str) -> str:
        """List the fields: each as the first query ``PREFIX_FIELD`` that exists, or else in this form."""
        parts = []
        for field in fields:
            found = [f"{{{{{prefix}_{field}}}}}" for prefix in prefixes if f"{prefix}_{field}" in queries]
            parts.append(found[0] if found else form(field))
        return ", ".join(parts)

    new_task = ("state", "due_set_at", *(name for name in NewTask._fields if name not in SET_AFTERWARDS))
    claim = [name for name in TaskRecord._fields if name not in NOT_OF_A_CLAIM]
    new_worker = [name for name in WorkerRecord._fields if name not in ("id", "beat", "lost_at")]
    lists = {
        "task_columns": listed(TaskRecord._fields, _of_task, "task"),
        "claim_columns": listed(claim, _of_task, "task"),
        "found_columns": listed(FOUND, _column, "found"),
        "new_task_columns": listed(new_task, _column),
        "new_task_values": listed(new_task, _parameter, "new"),
        "many_task_values": listed(new_task, _parameter, "many", "new"),
        "new_worker_columns": listed(new_worker, _column),
        "new_worker_values": listed(new_worker, _parameter),
        "longest_columns": listed(LongRunning._fields, _of_task, "longest"),
        "held_columns": listed(Held._fields, _column, "held"),
        "attempt_columns": listed(AttemptRecord._fields, _column, "attempt"),
        "ended_columns": listed(EndedRecord._fields, _column),
    }
    lists["new_action_columns"] = listed(ActionRecord._fields[1:], _column)
    lists["new_action_values"] = listed(ActionRecord._fields[1:], _parameter)
    lists["new_operation_columns"] = listed(OperationRecord._fields[1:], _column)
    lists["new_operation_values"] = listed(OperationRecord._fields[1:], _parameter)
    for table, columns in TABLES.items():
        lists[f"stored_{table}_columns"] = listed(columns, _column)
        lists[f"stored_{table}_values"] = listed(columns, _parameter)
    return lists


def _column(name: str) -> str:
    return f'"{name}"' if name == "key" else name


def _of_task(name: str) -> str:
    return f"dbtaskqueue_task.{_column(name)}"


def _parameter(name: str) -> str:
    return f":{name}"


def picker(record: type[R], given: Sequence[str]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a function that reorders values from ``given`` to a record's fields; of a repeated name, the last."""
    last = {name: index for index, name in enumerate(given)}
    return operator.itemgetter(*(last[name] for name in record._fields))  # type: ignore[attr-defined]


def maker(record: type[R], given: Sequence[str], constants: Mapping[str, object]) -> Callable[[tuple[Any, ...]], R]:
    """Return a function that makes a record from values in the order of ``given`` and from ``constants``.

    If a field is given twice, its last value counts. This is as fast as an order written by hand.
    """
    others = {name: value for name, value in constants.items() if name not in given}
    pick = picker(record, (*given, *others))
    fixed = tuple(others.values())
    make = functools.partial(tuple.__new__, record)  # half the time of _make
    if not fixed:
        return lambda row: make(pick(row))
    return lambda row: make(pick(row + fixed))


_fresh = maker(
    TaskRecord,
    ("id", *NewTask._fields),
    {
        **dict.fromkeys(TaskRecord._fields),
        **dict.fromkeys(("token", "attempt", "retry_base", "isolated", "cancel_requested", "retry_token"), 0),
        **TaskRecord._field_defaults,
        "state": PENDING,
    },
)


def fresh(number: int, task: NewTask) -> TaskRecord:
    """Return the record of a task that was just stored."""
    return _fresh((number, *task))

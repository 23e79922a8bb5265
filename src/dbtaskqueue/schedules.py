"""Schedules as users declare them and see them: ``periodic`` and ``schedule`` of a queue, ``Schedule``, ``Tick``.

``_formats/timetable.py`` says when a schedule fires, ``_maintenance/ticker.py`` makes its ticks.
"""

from __future__ import annotations

import difflib
import functools
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from ._formats import payload, task_options
from ._formats.payload import JSON
from ._formats.task_options import StoredTick
from ._formats.timetable import CatchUp, Timetable, offset, plan
from ._store.contract import Declared, NewAction, NewTask, PlannedTick, ScheduleRecord, Settled, Store, TickPlan
from ._system import clock
from ._system.log import event
from .calls import Target, batches_of
from .checks import check_key, check_seconds, listed, shown
from .errors import TaskQueueError, after_a_change
from .options import UsingOptions, given, to_columns
from .retry import RetryPolicy

Overlap = Literal["skip", "allow", "queue", "replace"]
"""What happens if the previous task of a schedule is unfinished when the next tick comes."""
_IMPOSSIBLE = ("after", "before", "when", "start_at", "expires_at", "connection")
"""Options of ``enqueue`` that make no sense for tasks that are enqueued repeatedly."""
_UNLIMITED = 2**62
"""The size limit of a payload that is checked before the database is known, which sets a lower one."""


class UnknownSchedule(TaskQueueError, LookupError):
    """The queue has no schedule with this name."""

    def __init__(self, queue: str, name: str, known: list[ScheduleRecord]) -> None:
        super().__init__(f"queue {queue} has no schedule {shown(name)}{_similar(known, queue, name)}")


def _similar(known: list[ScheduleRecord], queue: str, name: str) -> str:
    """Return which schedule was probably meant: that of another queue, or one with a similar name."""
    queues = [each.queue for each in known if each.name == name]
    if queues:
        return f", but queue {listed(queues)} has one"
    names = difflib.get_close_matches(name, [each.name for each in known if each.queue == queue])
    return f". Did you mean {' or '.join(map(shown, names))}?" if names else ""


class Schedule(NamedTuple):
    """A schedule of a queue, as it was when it was read.

    ``cron`` or ``every``, a number of seconds, says when it fires. ``next_at``: the next tick; None if there is none
    until the year 9999. ``last_at``: the last tick that ran, was skipped or was missed. ``last_task``: the id of the
    task of the last tick that ran. ``skipped``: ticks that made no task, since the previous task was unfinished.
    ``missed``: ticks that were due while no worker ran, and were not made later. ``declared``: when a worker last
    declared it; None for a schedule that ``TaskQueue.schedule`` or the command line has made.
    """

    name: str
    queue: str
    cron: str | None
    every: float | None
    timezone: str
    overlap: str
    catch_up: str
    paused: bool
    next_at: datetime | None
    last_at: datetime | None
    last_task: int | None
    skipped: int
    missed: int
    declared: datetime | None


class Tick(NamedTuple):
    """A moment at which a schedule has fired.

    ``schedule``: its name. ``missed``: how many ticks just before this one were missed.
    """

    schedule: str
    at: datetime
    missed: int


def tick_of(options: str | None) -> Tick | None:
    """Return the tick that made a task, from its options; None if no tick made it."""
    stored = task_options.decode(options).tick
    if stored is None:
        return None
    at = clock.to_datetime(stored.at)
    assert at is not None
    return Tick(stored.schedule, at, stored.missed)


def as_schedule(record: ScheduleRecord) -> Schedule:
    """Return a schedule as users see it."""
    return Schedule(
        record.name,
        record.queue,
        record.cron,
        None if record.every is None else record.every / 1e6,
        record.timezone,
        record.overlap,
        record.catch_up,
        bool(record.paused),
        clock.to_datetime(record.next_at),
        clock.to_datetime(record.last_at),
        record.last_task,
        record.skipped,
        record.missed,
        clock.to_datetime(record.declared_at),
    )


class TickInfo(NamedTuple):
    """A tick that is over. ``outcome``: ran, skipped or missed.

    ``task``: the task that it made; for a skipped one, the task that was unfinished. ``missed``: how many ticks were
    missed together, of which this is the newest.
    """

    at: datetime
    outcome: str
    task: int | None
    missed: int


# -- operating -------------------------------------------------------------------------------------


def find_schedule(store: Store, queue: str, name: str) -> ScheduleRecord:
    """Return a schedule. Raises UnknownSchedule."""
    found = store.schedules(queue, name)
    if not found:
        raise UnknownSchedule(queue, name, store.schedules())
    return found[0]


def set_paused(store: Store, queue: str, name: str, paused: bool, action: NewAction | None = None) -> Schedule:
    """Pause or resume a schedule, and return it. Raises UnknownSchedule."""
    if not store.pause_schedule(queue, name, paused, clock.now(), settle, action):
        raise UnknownSchedule(queue, name, store.schedules())
    return as_schedule(find_schedule(store, queue, name))


def run_now(store: Store, queue: str, name: str, action: NewAction | None = None) -> int:
    """Enqueue a task of a schedule without a tick; return its id. Raises UnknownSchedule.

    If an unfinished task has the key of the schedule's tasks, no task is stored, and the id of that task is returned.
    """
    record = find_schedule(store, queue, name)
    try:
        task = task_now(record, clock.now())
    except ValueError as error:
        raise TaskQueueError(str(error)) from None
    id = store.enqueue([[task]], action=action).ids[0]
    store.wakeups.ring()
    return id


def tick_infos(store: Store, queue: str, name: str, limit: int) -> list[TickInfo]:
    """Return the latest ticks of a schedule, newest first. Raises UnknownSchedule."""
    find_schedule(store, queue, name)
    found = []
    for tick in store.ticks(queue, name, limit):
        at = clock.to_datetime(tick.at)
        assert at is not None
        found.append(TickInfo(at, tick.outcome, tick.task, tick.missed))
    return found


# -- declaring -------------------------------------------------------------------------------------


class Times(NamedTuple):
    """When a schedule fires and what happens then: the options of ``schedule`` and ``periodic``, checked."""

    cron: str | None
    every: int | None
    timezone: str
    overlap: str
    catch_up: str
    window: int
    jitter: int


def check_times(
    cron: str | None,
    every: float | timedelta | None,
    timezone: str,
    overlap: str,
    catch_up: str,
    window: float | timedelta = 86400,
    jitter: float | timedelta = 0,
) -> Times:
    """Return the checked options.

    Raises TypeError unless exactly one of ``cron`` and ``every`` is given, and ValueError for an invalid value.
    """
    timetable = Timetable(cron=cron, every=every, timezone=timezone)
    if overlap not in get_args(Overlap):
        raise ValueError(f"overlap must be one of {', '.join(get_args(Overlap))}, not {shown(overlap)}")
    if catch_up not in get_args(CatchUp):
        raise ValueError(f"catch_up must be one of {', '.join(get_args(CatchUp))}, not {shown(catch_up)}")
    return Times(
        timetable.cron,
        None if timetable.every is None else round(timetable.every * 1_000_000),
        timezone,
        overlap,
        catch_up,
        clock.after(0, window, "window"),
        clock.after(0, check_seconds(jitter, "jitter", finite=True), "jitter"),
    )


def check_name(name: str) -> str:
    """Return the name of a schedule. Raises ValueError unless it follows the rules of keys."""
    try:
        if name is not None and check_key(name) is not None:
            return name
    except ValueError:
        pass
    raise ValueError(f"a schedule's name must be 1 to 255 characters without U+0000, not {shown(name)}")


def to_target(
    target: Target,
    queue: str,
    policy: RetryPolicy,
    *,
    limit: int = _UNLIMITED,
    options: Mapping[str, object] | None = None,
) -> str:
    """Return what a schedule enqueues at each tick, as it is stored: the columns of the task as a JSON object.

    ``queue`` and ``policy``: those of the schedule's queue. ``limit``: the most bytes of a payload. ``options``: those
    of ``enqueue``, for a target that has none of its own. Arguments and options are checked here, so that no tick fails
    because of them. Raises ValueError, PayloadError and TypeError.
    """
    [batch] = batches_of([target], options or {})
    options = given(batch.options, UsingOptions)
    if impossible := [name for name in _IMPOSSIBLE if name in options]:
        raise ValueError(f"{impossible[0]} cannot be an option of a schedule's task")
    if batch.arguments:
        raise ValueError("the arguments of a schedule's task cannot contain a Task")
    columns = to_columns(options, queue, policy, 0)
    stored = {
        "queue": columns.queue if columns.queue != queue else None,
        "function": batch.function,
        "payload": payload.encode(batch.payloads[0], limit=limit),
        "command": int(batch.is_command),
        "rank": columns.rank,
        "budget": columns.budget,
        "key": columns.key,
        "options": columns.options,
        "meta": columns.meta,
        "start_in": columns.due,
        "expires_in": columns.expires,
    }
    return json.dumps({name: value for name, value in stored.items() if value is not None}, sort_keys=True)


def to_record(queue: str, name: str, target: str, times: Times, *, declared: bool) -> ScheduleRecord:
    """Return the row of a schedule. ``declared``: a worker declares it."""
    return ScheduleRecord(
        queue,
        name,
        target,
        times.cron,
        times.every,
        times.timezone,
        times.overlap,
        times.catch_up,
        times.window,
        times.jitter,
        declared_at=0 if declared else None,
    )


def store_schedule(store: Store, record: ScheduleRecord, action: NewAction | None = None) -> Schedule:
    """Store a schedule, or change the one with this name; return it as it is now."""
    store.declare([record], clock.now(), settle, action)
    with after_a_change():
        return as_schedule(find_schedule(store, record.queue, record.name))


class Declaration(NamedTuple):
    """A schedule that ``periodic`` has declared, to be stored when a worker starts."""

    queue: str
    name: str
    function: object
    target: Target
    times: Times
    policy: RetryPolicy

    def record(self, limit: int) -> ScheduleRecord:
        """Return its row. Raises PayloadError for arguments that are too large for the database."""
        target = to_target(self.target, self.queue, self.policy, limit=limit)
        return to_record(self.queue, self.name, target, self.times, declared=True)


def is_redeclared(known: Declaration, again: Declaration) -> bool:
    """Return whether the same code has run twice, in a reloaded module or in a script that imports itself."""
    return known.function is not again.function and _code_of(known.function) == _code_of(again.function)


def _code_of(function: object) -> tuple[str, str]:
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", "")


def log_changes(records: Sequence[ScheduleRecord], found: Sequence[Declared]) -> None:
    """Log which declarations have changed a schedule."""
    for record, declared in zip(records, found, strict=True):
        before = declared.before
        if before is None or not declared.is_changed:
            continue
        text = "the declaration of a schedule has changed, the new one applies"
        event(logging.INFO, text, schedule=record.name, queue=record.queue)


# -- ticks -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _timetable(cron: str | None, every: int | None, timezone: str) -> Timetable:
    return Timetable(cron=cron, every=None if every is None else every / 1e6, timezone=timezone, now=clock.EARLIEST)


def timetable_of(record: ScheduleRecord) -> Timetable:
    """Return the timetable of a stored schedule. Raises ValueError if this program cannot read it."""
    return _timetable(record.cron, record.every, record.timezone)


def settle(before: ScheduleRecord | None, record: ScheduleRecord, now: int) -> Settled:
    """Return the next tick of a schedule that is new, changed, paused or resumed: see ``Settle`` of the store."""
    try:
        next_at = timetable_of(record).after(now)
    except ValueError:  # only a schedule that another program has stored
        return Settled(record.next_at)
    if before is None or before.paused or before.next_at is None or before.next_at > now:
        return Settled(next_at)
    try:
        timetable = timetable_of(before)
    except ValueError:
        return Settled(next_at)
    return Settled(next_at, timetable.count(before.next_at - 1, now), timetable.latest(now))


def plan_ticks(record: ScheduleRecord, now: int, created_at: int) -> TickPlan:
    """Return what to do about a schedule that is due. ``now``: the time by the clock that decides ticks.

    Raises ValueError if this program cannot read the schedule.
    """
    assert record.next_at is not None
    timetable = timetable_of(record)
    found = plan(timetable, record.next_at, now, record.catch_up, record.catch_up_window / 1e6)  # type: ignore[arg-type]
    late = offset(record.name, record.jitter / 1e6)
    template = _template(record)
    ticks = []
    for index, at in enumerate(found.ticks):
        tick = StoredTick(record.name, at, 0 if index else found.missed)
        task = _task(record, template, at + late, created_at)
        ticks.append(PlannedTick(at, task._replace(options=task_options.with_tick(task.options, tick))))
    return TickPlan(record, ticks, found.missed, found.missed_at, found.next_at)


def task_now(record: ScheduleRecord, now: int) -> NewTask:
    """Return a task of a schedule without a tick. Raises ValueError if this program cannot read it."""
    return _task(record, _template(record), now, now)


def _template(record: ScheduleRecord) -> dict[str, Any]:
    template = json.loads(record.target)
    if not isinstance(template, dict) or not isinstance(template.get("payload"), str):
        raise ValueError(f"the target of schedule {shown(record.name)} cannot be read")
    return template


def _task(record: ScheduleRecord, template: Mapping[str, JSON], due: int, created_at: int) -> NewTask:
    """Return a new task. ``expires_in`` counts from ``created_at``, since the tick may have been long ago."""
    expires_in = template.get("expires_in")
    return NewTask(
        queue=template.get("queue") or record.queue,
        rank=template.get("rank", 0),
        due=min(due + template.get("start_in", 0), clock.LATEST),
        budget=template.get("budget"),
        created_at=created_at,
        key=template.get("key"),
        function=template.get("function"),
        options=template.get("options"),
        payload=template["payload"],
        meta=template.get("meta"),
        command=template.get("command", 0),
        expires=None if expires_in is None else min(created_at + expires_in, clock.LATEST),
    )

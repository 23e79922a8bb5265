"""Schedules on a SQL database: declaring them, and making their ticks.

A tick is made at most once, however many workers find it due. Only one of them moves the schedule's ``next_at`` from
the value that all have read, and the tick's row has a primary key. Both are in the transaction that stores the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..._formats import task_options
from ...states import CANCELLED, FINAL, PENDING, RUNNING, TaskState
from ..connections import Transaction
from ..contract import (
    Declared,
    Link,
    NewAction,
    NewTask,
    Outlook,
    PlannedTick,
    ScheduleRecord,
    Schedules,
    Settle,
    Settled,
    SkippedTick,
    Ticked,
    TickPlan,
    TickRecord,
    Verdict,
    Waits,
)
from ..records import BY_PARENTS, HAS_CHILDREN, WANTS_ENDED, TaskRecord
from .base import is_soon
from .dependencies import as_child
from .tasks import SqlTasks

_DEFINITION = ("target", "cron", "every", "timezone", "overlap", "catch_up", "catch_up_window", "jitter")
_TIMES = ("cron", "every", "timezone")
_SELDOM = 3_600_000_000
"""Microseconds: ``declared_at`` is not stored more often, unless something else changes."""
_EARLIEST = -(2**63)


class SqlSchedules(SqlTasks, Schedules):
    """See Schedules."""

    def declare(
        self, schedules: Sequence[ScheduleRecord], now: int, settle: Settle, action: NewAction | None = None
    ) -> list[Declared]:
        order = sorted(range(len(schedules)), key=lambda index: schedules[index][:2])

        def run(tx: Transaction) -> list[Declared]:
            found = {index: self._declare(tx, schedules[index], now, settle) for index in order}
            self._log(tx, action, Verdict(True, None, None))
            return [found[index] for index in range(len(schedules))]

        return self._connections.write(run)

    def _declare(self, tx: Transaction, new: ScheduleRecord, now: int, settle: Settle) -> Declared:
        while (old := _lock(tx, new)) is None:
            time = _time(tx, now)
            declared_at = None if new.declared_at is None else time
            first = new._replace(next_at=settle(None, new, time).next_at, declared_at=declared_at)
            if tx.change("insert_schedule", first._asdict()):
                return Declared(None, True)
        time = _time(tx, now)
        is_changed = any(getattr(old, name) != getattr(new, name) for name in _DEFINITION)
        declared_at = _declared_at(old, new, time, is_changed=is_changed)
        if is_changed or declared_at != old.declared_at:
            tx.change("declare_schedule", {**new._asdict(), "declared_at": declared_at})
        if any(getattr(old, name) != getattr(new, name) for name in _TIMES):
            _settle(tx, old, settle(old, new, time))
        return Declared(old, is_changed)

    def remove_schedule(self, queue: str, name: str, action: NewAction | None = None) -> bool:
        def run(tx: Transaction) -> bool:
            is_removed = bool(tx.change("delete_schedule", {"queue": queue, "name": name}))
            self._log(tx, action, Verdict(is_removed, None, None))
            return is_removed

        return self._connections.write(run, alone=action is None)

    def pause_schedule(
        self, queue: str, name: str, paused: bool, now: int, settle: Settle, action: NewAction | None = None
    ) -> bool:
        def run(tx: Transaction) -> bool:
            old = _lock(tx, {"queue": queue, "name": name})
            if old is not None and bool(old.paused) != paused:
                settled = settle(old, old, _time(tx, now))
                _settle(tx, old._replace(paused=int(paused)), settled)
            self._log(tx, action, Verdict(old is not None, None, None))
            return old is not None

        return self._connections.write(run)

    def schedules(self, queue: str | None = None, name: str | None = None) -> list[ScheduleRecord]:
        query = "schedules" if queue is None else "schedules_of_queue" if name is None else "schedule"
        rows = self._connections.query(query, {"queue": queue, "name": name})
        return [ScheduleRecord(*row) for row in rows]

    def ticks(self, queue: str, name: str, limit: int) -> list[TickRecord]:
        values = {"queue": queue, "schedule": name, "limit": limit}
        return [TickRecord(*row) for row in self._connections.query("ticks", values)]

    # -- ticks -------------------------------------------------------------------------------------

    def outlook(self, now: int) -> Outlook:
        return Outlook(*self._connections.query("outlook", {"now": now})[0])

    def due_schedules(self, now: int, limit: int) -> list[ScheduleRecord]:
        rows = self._connections.query("due_schedules", {"now": now, "limit": limit})
        return [ScheduleRecord(*row) for row in rows]

    def misplaced_schedules(self, now: int) -> list[ScheduleRecord]:
        return [ScheduleRecord(*row) for row in self._connections.query("misplaced_schedules", {"now": now})]

    def make_ticks(self, plans: Sequence[TickPlan], now: int) -> Ticked:
        ordered = sorted(plans, key=lambda plan: plan.schedule[:2])
        ticked, is_partial = self._connections.write(lambda tx: self._make_ticks(tx, ordered, now))
        if is_partial:
            self.decide_children(now)
        return ticked

    def _make_ticks(self, tx: Transaction, plans: Sequence[TickPlan], now: int) -> tuple[Ticked, bool]:
        making = _Making(now)
        moved = [plan for plan in plans if _move(tx, plan)]
        making.missed = [plan for plan in moved if _miss(tx, plan.schedule, plan.missed, plan.missed_at)]
        passes = [
            _Pass(plan.schedule, _unmade(tx, plan), plan.missed if plan in making.missed else 0) for plan in moved
        ]
        making.tasks |= self._lock_previous(tx, passes)
        for each in passes:
            for tick in each.ticks:
                self._make_tick(tx, making, each, tick)
        if rows := [row._asdict() for each in passes for row in each.rows.values()]:
            tx.change_each("complete_tick", rows)
        if counts := [each.counts() for each in passes if each.ticks or each.missed]:
            tx.change_each("count_ticks", counts)
        for queue, number in making.wakes.items():
            self._wake(tx, queue, number)
        return Ticked(making.new, making.skipped, making.missed), making.is_partial

    def _lock_previous(self, tx: Transaction, passes: Sequence[_Pass]) -> dict[int, _Previous]:
        """Lock the previous tasks, unless overlaps are allowed, and the open parents of those that are replaced."""
        about = [each.schedule for each in passes if each.ticks and each.schedule.overlap != "allow"]
        ids = {each.last_task for each in about if each.last_task is not None}
        replaced = {each.last_task for each in about if each.last_task is not None and each.overlap == "replace"}
        return _locked(tx, ids | {parent for _, parent in _open_parents(tx, replaced)})

    def _make_tick(self, tx: Transaction, making: _Making, each: _Pass, tick: PlannedTick) -> None:
        schedule, previous = each.schedule, making.unfinished(each.last_task)
        if schedule.overlap == "allow" or previous is None:
            self._store_tick(tx, making, each, tick, {})
        elif schedule.overlap == "skip":
            _skip(making, each, tick.at, previous.id)
        elif schedule.overlap == "replace":
            self._store_tick(tx, making, each, tick, self._replace(tx, making, previous))
        elif previous.blocked & BY_PARENTS:
            _take_newer(tx, making, each, tick, previous)
        else:
            self._store_tick(tx, making, each, tick, {previous.id: previous.state})

    def _replace(self, tx: Transaction, making: _Making, previous: _Previous) -> dict[int, TaskState]:
        """Cancel the previous task; return the tasks that the new one waits for, with their states."""
        parents = [parent for _, parent in _open_parents(tx, [previous.id])]
        if new := set(parents) - set(making.tasks):
            making.tasks |= _locked(tx, new)
        tx.change("cancel", {"id": previous.id, "now": making.now, "running": 1})
        if previous.state == RUNNING:
            parents.append(previous.id)
        else:
            making.tasks[previous.id] = previous._replace(state=CANCELLED)
            if previous.flow & HAS_CHILDREN:
                making.is_partial |= self._decide(tx, {previous.id: CANCELLED}, making.now).is_partial
        found = [making.unfinished(parent) for parent in parents]
        return {parent.id: parent.state for parent in found if parent is not None}

    def _store_tick(
        self, tx: Transaction, making: _Making, each: _Pass, tick: PlannedTick, parents: Mapping[int, TaskState]
    ) -> None:
        """Store the task of a tick, which waits for ``parents`` to end. An unfinished task with its key skips it."""
        task, waiting = tick.task, {id: (state, None) for id, state in parents.items()}
        waits = Waits([Link(parent) for parent in parents], WANTS_ENDED, delay=None)
        if parents:
            task = as_child(task, waiting, waits)
        if task.key is None:
            [id] = self._insert_any(tx, [task])
            making.wake(task)
        else:
            [id], is_new = self._insert_unless_taken(tx, [task])
            if not is_new:
                _skip(making, each, tick.at, id)
                return
        ended = self._store_expiry(tx, [id], task)
        if parents:
            self._store_links(tx, [id], waits, waiting, task.created_at, ended)
        making.new.append((id, task))
        making.tasks[id] = _Previous(id, PENDING, task.blocked, task.flow)
        making.options[id] = task.options
        each.ran(tick.at, id)

    # -- pruning -----------------------------------------------------------------------------------

    def prune_ticks(self, before: int, limit: int) -> int:
        last = self._connections.query("first_ticks", {"after": _EARLIEST, "limit": limit})[0][0]
        return 0 if last is None else self._change_alone("delete_ticks", {"last": min(last, before - 1)})


class _Previous(NamedTuple):
    """A row of lock_previous."""

    id: int
    state: TaskState
    blocked: int
    flow: int


class _Making:
    """What a transaction that makes ticks has found and stored so far."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.tasks: dict[int, _Previous] = {}
        """Tasks that this transaction has locked or stored."""
        self.options: dict[int, str | None] = {}
        """The options of tasks that this transaction has stored."""
        self.new: list[tuple[int, NewTask]] = []
        self.skipped: list[SkippedTick] = []
        self.missed: list[TickPlan] = []
        self.wakes: dict[str, int | None] = {}
        """For each queue, how many waiting workers to wake; None for all."""
        self.is_partial = False

    def unfinished(self, id: int | None) -> _Previous | None:
        """Return a task if it exists and has not ended."""
        found = None if id is None else self.tasks.get(id)
        return None if found is None or found.state in FINAL else found

    def wake(self, task: NewTask) -> None:
        """Wake a waiting worker at the commit, if the new task is due soon."""
        if not task.blocked and is_soon(task.due, task.created_at):
            number = self.wakes.get(task.queue, 0)
            self.wakes[task.queue] = None if number is None or task.command else number + 1


class _Pass:
    """The ticks of one schedule that a transaction makes."""

    def __init__(self, schedule: ScheduleRecord, ticks: Sequence[PlannedTick], missed: int) -> None:
        self.schedule = schedule
        self.ticks = ticks
        self.missed = missed
        self.rows: dict[int, TickRecord] = {}
        self.last_task = schedule.last_task
        self.in_a_row = schedule.skips_in_a_row
        self._skipped = 0

    def ran(self, at: int, task: int) -> None:
        """Note that a tick has made a task."""
        self._row(at, "ran", task)
        self.last_task, self.in_a_row = task, 0

    def skipped(self, at: int, task: int) -> None:
        """Note that a tick was skipped because of an unfinished task."""
        self._row(at, "skipped", task)
        self._skipped += 1
        self.in_a_row += 1

    def _row(self, at: int, outcome: str, task: int) -> None:
        self.rows[at] = TickRecord(self.schedule.queue, self.schedule.name, at, outcome, task)

    def counts(self) -> dict[str, object]:
        """Return the values of count_ticks."""
        place = {"queue": self.schedule.queue, "name": self.schedule.name, "last_task": self.last_task}
        return {**place, "skipped": self._skipped, "missed": self.missed, "skips_in_a_row": self.in_a_row}


def _time(tx: Transaction, now: int) -> int:
    """Return the time by the clock that decides ticks. Call it after taking a lock, which may have taken long."""
    return int(tx.rows("database_time", {"now": now})[0][0])


def _lock(tx: Transaction, schedule: ScheduleRecord | Mapping[str, object]) -> ScheduleRecord | None:
    values = schedule._asdict() if isinstance(schedule, ScheduleRecord) else schedule
    row = tx.row("lock_schedule", values)
    return None if row is None else ScheduleRecord(*row)


def _settle(tx: Transaction, schedule: ScheduleRecord, settled: Settled) -> None:
    """Store the next tick of a locked schedule, and the row of ticks that were missed."""
    is_missed = _miss(tx, schedule, settled.missed, settled.missed_at)
    values = {**schedule._asdict(), "next_at": settled.next_at}
    values |= {"last_at": settled.missed_at, "missed": settled.missed if is_missed else 0}
    tx.change("settle_schedule", values)


def _miss(tx: Transaction, schedule: ScheduleRecord, missed: int, at: int | None) -> bool:
    """Store one row for ticks that were missed together, if there are any."""
    if at is None or not missed:
        return False
    return bool(tx.change("insert_tick", TickRecord(*schedule[:2], at, "missed", None, missed)._asdict()))


def _move(tx: Transaction, plan: TickPlan) -> bool:
    """Move a schedule to its next tick; return False if it was moved or changed since it was read."""
    moments = [tick.at for tick in plan.ticks] + ([] if plan.missed_at is None else [plan.missed_at])
    place = {"queue": plan.schedule.queue, "name": plan.schedule.name, "seen": plan.schedule.next_at}
    return bool(tx.change("move_schedule", {**place, "next_at": plan.next_at, "last_at": max(moments, default=None)}))


def _unmade(tx: Transaction, plan: TickPlan) -> list[PlannedTick]:
    """Store the rows of ticks; return the ticks that had no row yet."""
    rows = [(tick, TickRecord(*plan.schedule[:2], tick.at, "ran", None)) for tick in plan.ticks]
    return [tick for tick, row in rows if tx.change("insert_tick", row._asdict())]


def _skip(making: _Making, each: _Pass, at: int, task: int) -> None:
    each.skipped(at, task)
    making.skipped.append(SkippedTick(each.schedule, at, task, each.in_a_row))


def _take_newer(tx: Transaction, making: _Making, each: _Pass, tick: PlannedTick, waiting: _Previous) -> None:
    """Give the newer tick to a task that waits for the one before it. Its older tick counts as skipped."""
    options = making.options.get(waiting.id)
    if options is None:
        options = TaskRecord(*tx.rows("get", {"id": waiting.id})[0]).options
    older = task_options.decode(options).tick
    values = {"id": waiting.id, "options": tick.task.options, "due": tick.task.due, "now": making.now}
    tx.change("take_newer_tick", values)
    making.options[waiting.id] = tick.task.options
    in_a_row = each.in_a_row
    each.ran(tick.at, waiting.id)
    if older is not None and older.at != tick.at:
        each.in_a_row = in_a_row
        blockers = [parent for _, parent in _open_parents(tx, [waiting.id])]
        _skip(making, each, older.at, blockers[0] if blockers else waiting.id)


def _declared_at(old: ScheduleRecord, new: ScheduleRecord, now: int, *, is_changed: bool) -> int | None:
    """Return when a worker last declared a schedule, if it is declared now. A recent time is kept, to save writes."""
    if new.declared_at is None:
        return None if is_changed else old.declared_at
    is_recent = old.declared_at is not None and 0 <= now - old.declared_at < _SELDOM
    return old.declared_at if is_recent and not is_changed else now


def _locked(tx: Transaction, ids: Iterable[int]) -> dict[int, _Previous]:
    wanted = sorted(ids)
    rows = tx.rows("lock_previous", {"ids": tx.array(wanted)}) if wanted else []
    return {id: _Previous(id, TaskState(state), blocked, flow) for id, state, blocked, flow in rows}


def _open_parents(tx: Transaction, children: Iterable[int]) -> list[tuple[int, int]]:
    """Return the edges to parents that have not ended, by child."""
    wanted = sorted(children)
    rows: list[Any] = tx.rows("blockers", {"ids": tx.array(wanted)}) if wanted else []
    return rows

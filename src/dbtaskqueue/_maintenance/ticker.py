"""Makes the ticks of schedules: when one is due, its task is stored.

There is no leader and no scheduler process. Each worker knows when the next tick is due, sleeps until then, and checks
again without a lock, since another worker may have been faster. The store makes sure that only one makes the tick.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from .. import schedules
from .._store.contract import NewTask, Outlook, ScheduleRecord, Store, Ticked, TickPlan
from .._system import clock
from .._system.log import event
from ..events import Events, TasksEnqueued

_LONGEST = 10.0
"""Seconds between checks, since another process may have added a schedule."""
_SPREAD = 0.02
"""Seconds by which checks of different workers for the same tick are spread at random."""
_TOGETHER = 100
"""The most schedules whose ticks are made in one transaction."""
_MOST_TICKS = 1000
"""The most ticks of more than one schedule in one transaction: after an outage, a schedule may have many."""
_MOST = 10
"""The most transactions in a call, so that other duties have their turn."""
_BROKEN = 1.0
"""Seconds between checks while this worker cannot read a schedule that is due."""
_TOLERANCE = 1_000_000
_FEW_SKIPS = 3
_KEPT = 30 * 86_400_000_000
"""Microseconds for which the rows of ticks are kept."""
_PRUNE = 3600.0
_PRUNED = 1000
_PRUNE_STEPS = 100


class Ticker:
    """A duty: make the ticks that are due. Sets ``interval`` to the time until the next one.

    ``others``: does the other work of an outlook. It returns how many tasks became due.
    """

    def __init__(self, store: Store, events: Events, others: Callable[[Outlook], int] = lambda outlook: 0) -> None:
        self.interval = 0.0
        self._store = store
        self._events = events
        self._others = others
        self._lock = threading.Lock()
        self._next_check = 0.0
        self._uncounted = 0
        """How many tasks became due by ticks since the last call of ``tick``."""
        self._offset: int | None = None
        """The clock that decides ticks minus the monotonic clock, in microseconds; None before the first check."""
        self._unreadable: dict[tuple[str, str], ScheduleRecord] = {}
        self._next_prune = time.monotonic() + _PRUNE * random.random()

    def __call__(self) -> None:
        """Make the ticks that are due, unless that was just done."""
        left = self._next_check - time.monotonic()
        if left > 0:
            self.interval = left
        else:
            self._tick()

    def tick(self) -> int:
        """Make the ticks that are due. Return how many tasks became due since the last call, in any thread.

        So a caller that then claims tasks misses none that the maintenance thread has just made.
        """
        self._tick()
        count, self._uncounted = self._uncounted, 0
        return count

    def _tick(self) -> None:
        with self._lock:
            self.interval = 1.0  # if the database is unavailable
            pause = 0.0
            for _ in range(_MOST):
                pause = self._make_due()
                if pause > 0:
                    break
            self.interval = pause + _SPREAD * random.random()
            self._next_check = time.monotonic() + self.interval
            if time.monotonic() >= self._next_prune:
                self._prune()

    def _make_due(self) -> float:
        """Make ticks in one transaction; return in how many seconds more may be due."""
        outlook = self._store.outlook(clock.now())
        self._uncounted += self._others(outlook)
        now, next_at = outlook.now, outlook.next_tick
        if self._find_misplaced(now):
            return 0.0
        if next_at is None or next_at > now:
            return _LONGEST if next_at is None else min(_LONGEST, (next_at - now) / 1e6)
        due = self._store.due_schedules(now, _TOGETHER + len(self._unreadable))
        plans = [plan for schedule in due if (plan := self._planned(schedule, now)) is not None]
        if not plans:
            return _BROKEN
        self._carry_out(_first(plans))
        return 0.0

    def _planned(self, schedule: ScheduleRecord, now: int) -> TickPlan | None:
        """Return what to do about a schedule that is due; None if this worker cannot read it, but others may."""
        place = schedule.queue, schedule.name
        known = self._unreadable.get(place)
        if known is not None and known[2:10] == schedule[2:10]:
            return None
        self._unreadable.pop(place, None)
        try:
            return schedules.plan_ticks(schedule, now, clock.now())
        except Exception as error:  # an unknown time zone, or whatever another program has stored
            self._unreadable[place] = schedule
            text = "a schedule cannot be read, this worker makes none of its ticks"
            event(logging.ERROR, text, schedule=schedule.name, queue=schedule.queue, error=error)
            return None

    def _carry_out(self, plans: Sequence[TickPlan]) -> None:
        now = clock.now()
        ticked = self._store.make_ticks(plans, now)
        _report(ticked)
        if not ticked.tasks:
            return
        self._uncounted += sum(_is_due(task, now) for _, task in ticked.tasks)
        self._store.wakeups.ring()
        if self._events.wants(TasksEnqueued):
            self._events.emit(TasksEnqueued([id for id, _ in ticked.tasks], [task for _, task in ticked.tasks]))

    # -- a clock that is set back ------------------------------------------------------------------

    def _find_misplaced(self, now: int) -> bool:
        """Correct schedules whose next tick is too late, since the clock was set back. Return whether there were any.

        At the first check, only schedules that show it are read; when the clock jumps, all of them.
        """
        offset = now - time.monotonic_ns() // 1000
        before, self._offset = self._offset, offset
        if before is None:
            found = self._store.misplaced_schedules(now)
        elif offset < before - _TOLERANCE:
            found = [schedule for schedule in self._store.schedules() if not schedule.paused]
        else:
            return False
        plans = [plan for schedule in found if (plan := _moved_back(schedule, now)) is not None]
        for at in range(0, len(plans), _TOGETHER):
            self._store.make_ticks(plans[at : at + _TOGETHER], clock.now())
        if plans:
            event(logging.WARNING, "the clock was set back, schedules are due earlier", schedules=len(plans))
        return bool(plans)

    # -- old ticks ---------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Delete the rows of old ticks, in steps. The next call deletes the rest."""
        self._next_prune = time.monotonic() + _PRUNE
        before = self._store.outlook(clock.now()).now - _KEPT
        for _ in range(_PRUNE_STEPS):
            if not self._store.prune_ticks(before, _PRUNED):
                return


def _first(plans: Sequence[TickPlan]) -> list[TickPlan]:
    """Return the first plan, and as many of the next ones as fit into one transaction."""
    some, ticks = [plans[0]], len(plans[0].ticks)
    for plan in plans[1:_TOGETHER]:
        ticks += len(plan.ticks)
        if ticks > _MOST_TICKS:
            break
        some.append(plan)
    return some


def _moved_back(schedule: ScheduleRecord, now: int) -> TickPlan | None:
    """Return a plan that only corrects the next tick, or None if it is right or cannot be read."""
    try:
        next_at = schedules.timetable_of(schedule).after(now)
    except ValueError:
        return None
    if schedule.next_at is None or next_at is None or schedule.next_at <= next_at:
        return None
    return TickPlan(schedule, [], 0, None, next_at)


def _is_due(task: NewTask, now: int) -> bool:
    return not task.blocked and task.due <= now


def _report(ticked: Ticked) -> None:
    for plan in ticked.missed:
        schedule, queue, missed = plan.schedule.name, plan.schedule.queue, plan.missed
        event(logging.WARNING, "a schedule has missed ticks", schedule=schedule, queue=queue, missed=missed)
    for skip in ticked.skipped:
        if skip.in_a_row >= _FEW_SKIPS:
            event(
                logging.WARNING,
                "a schedule skips ticks, its previous task is unfinished",
                schedule=skip.schedule.name,
                queue=skip.schedule.queue,
                task_id=skip.task,
                in_a_row=skip.in_a_row,
            )

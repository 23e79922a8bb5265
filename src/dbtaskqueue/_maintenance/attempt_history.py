"""Counts the attempts that this process has ended, and stores the counts.

Each process has rows of its own, one for each minute, queue and function, and overwrites them with what it has counted
so far. So a write may be repeated, and nothing counts twice. Counts are only lost if the process is killed before the
next write.
"""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._executors.task_run import TaskRun
from .._formats import buckets
from .._formats.function_names import Pair, counted_as, name_of
from .._store.contract import End, HistoryRecord, Store, TaskRecord, Verdict
from .._system import clock
from ..states import PENDING, RUNNING, TaskState

_MINUTE = 60_000_000
_PERIOD = 60
_LATEST = 5 * 60
"""Minutes after which a row is not written again. After six hours, others may have added it to a longer period."""
_MANY = 10
"""The number of ends from which on they are counted together."""
_SHORT = 100_000
"""Microseconds. A task that took longer is counted by itself: it may have been suspended."""
_VERB, _AT, _CPU, _MEMORY = map(End._fields.index, ("verb", "at", "cpu", "memory"))
_QUEUE, _FUNCTION, _COMMAND = map(TaskRecord._fields.index, ("queue", "function", "command"))
_DUE, _CREATED = map(TaskRecord._fields.index, ("due", "created_at"))


class _Tally:
    """What was counted for a minute, a queue and a function."""

    __slots__ = ("cpu", "memory", "outcomes", "run_times", "seconds", "wait_times")

    def __init__(self) -> None:
        self.outcomes = {"done": 0}
        self.seconds = 0
        self.cpu = 0
        self.memory: int | None = None
        self.run_times = [0] * buckets.SIZE
        self.wait_times = [0] * buckets.SIZE

    def add(self, row: HistoryRecord) -> None:
        """Add what a row of an earlier write has."""
        for outcome in ("done", "failed", "abandoned", "cancelled", "lost", "released"):
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + getattr(row, outcome)
        self.seconds += row.seconds
        self.cpu += row.cpu
        self.memory = _larger(self.memory, row.memory)
        self.run_times = buckets.added(self.run_times, buckets.decode(row.run_times))
        self.wait_times = buckets.added(self.wait_times, buckets.decode(row.wait_times))

    def row(self, minute: int, writer: int, pair: Pair) -> HistoryRecord:
        """Return the row to store."""
        counted = HistoryRecord(_PERIOD, minute * _MINUTE, writer, *pair)._replace(**self.outcomes)  # type: ignore[arg-type]
        return counted._replace(
            seconds=self.seconds,
            cpu=self.cpu,
            memory=self.memory,
            run_times=buckets.encode(self.run_times),
            wait_times=buckets.encode(self.wait_times),
        )


class AttemptHistory:
    """A duty: store what was counted since the last time. It writes nothing if no attempt has ended.

    Any thread may count. Times are those of the database's clock, as far as ``note_time`` has told it.
    """

    interval = 10.0

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = secrets.randbits(62) + 1  # not the worker's id, which is reused in a copy of the database
        self._offset = 0
        self._counting = threading.RLock()  # both are reentrant, since a signal handler may interrupt them
        self._storing = threading.RLock()
        self._minutes: dict[int, dict[Pair, _Tally]] = {}
        self._changed: set[int] = set()
        self._unread: set[int] = set()
        """Minutes that were stored and forgotten before something was counted for them again."""
        self._tried: set[int] = set()
        """Minutes that may have been stored already."""
        self._forgotten = -1

    def note_time(self, now: int) -> None:
        """Note the time of the database's clock, which may differ from that of this machine."""
        self._offset = now - clock.now()

    # -- counting ----------------------------------------------------------------------------------

    def count_all(self, ended: Sequence[tuple[TaskRun, End]], verdicts: Sequence[Verdict]) -> None:
        """Count those ends of a worker that are stored."""
        with self._counting:
            done: dict[tuple[object, ...], _Batch] = {}
            others: Iterable[tuple[tuple[TaskRun, End], Verdict]] = zip(ended, verdicts, strict=True)
            if len(ended) >= _MANY and verdicts[0].stored:
                others = _sorted_out(ended, verdicts, self._offset, done)
            for batch in done.values():
                tally = self._tally(batch.at, batch.record)
                tally.outcomes["done"] += len(batch.ran)
                tally.seconds += sum(batch.ran)
                tally.cpu += batch.cpu
                tally.memory = _larger(tally.memory, batch.memory)
                _add_times(tally.run_times, batch.ran)
                _add_times(tally.wait_times, batch.waited)
            for (run, end), verdict in others:
                if verdict.stored:
                    self._count(run.record, end, verdict.state, run.started_at, run.suspended_for)

    def count(self, record: TaskRecord, end: End, state: TaskState | None, started_at: int | None = None) -> None:
        """Count an end that is stored. ``record``: as of the claim. ``state``: after the end.

        ``started_at``: when its code started, if that is known.
        """
        with self._counting:
            self._count(record, end, state, started_at, 0)

    def _count(
        self, record: TaskRecord, end: End, state: TaskState | None, started_at: int | None, suspended: int
    ) -> None:
        if end.verb == "release" and state == PENDING:
            has_started = record.state == RUNNING or end.started_at is not None or started_at is not None
            if end.unrun or not has_started:
                return  # it has left no attempt
            outcome = "released"
        else:
            outcome = "done" if end.verb == "finish" or state is None else str(state)
        if started_at is None:
            started_at = record.started_at if record.state == RUNNING else end.started_at
        started = end.at if started_at is None else started_at
        ran = max(0, end.at - started - suspended)
        tally = self._tally(end.at, record)
        number = tally.outcomes.get(outcome, 0) + 1
        run_time = buckets.index_of(ran)
        wait_time = buckets.index_of(started - max(record.due, record.created_at))
        memory = _larger(tally.memory, end.memory)
        # No calls from here on: a signal handler that raises an exception runs at calls, and would leave half a count.
        tally.outcomes[outcome] = number
        tally.seconds += ran
        tally.run_times[run_time] += 1
        tally.wait_times[wait_time] += 1
        tally.cpu += end.cpu or 0
        tally.memory = memory

    def _tally(self, at: int, record: TaskRecord) -> _Tally:
        minute, now = (at + self._offset) // _MINUTE, self._now()
        if minute < now - _LATEST:  # stored so long after the end that others may have added up that minute
            minute = now
        if minute not in self._minutes and minute <= self._forgotten:
            self._unread.add(minute)
        self._changed.add(minute)
        tallies = self._minutes.setdefault(minute, {})
        pair = counted_as((record.queue, name_of(record.function, record.command)), tallies)
        if (found := tallies.get(pair)) is None:
            found = tallies[pair] = _Tally()
        return found

    def _now(self) -> int:
        return (clock.now() + self._offset) // _MINUTE

    # -- storing -----------------------------------------------------------------------------------

    def __call__(self) -> None:
        """Store what has changed. Raises StoreUnavailable; then the next call stores it."""
        if not self._changed:
            return
        with self._storing:
            self._read_forgotten()
            rows, changed = self._take()
            try:
                if rows:
                    self._store.write_history(rows)
            except BaseException:
                with self._counting:
                    self._changed |= changed
                raise
            self._forget()

    def _read_forgotten(self) -> None:
        """Read what was stored before the clock was set back to a minute, since the next write overwrites it."""
        for minute in sorted(self._unread):
            rows = self._store.history(minute * _MINUTE, worker=self._writer)
            with self._counting:
                for row in rows:
                    if row.at == minute * _MINUTE and row.period == _PERIOD:
                        self._minutes[minute].setdefault((row.queue, row.function), _Tally()).add(row)
                self._unread.discard(minute)
                self._tried.add(minute)

    def _take(self) -> tuple[list[HistoryRecord], set[int]]:
        """Return the rows to store, and their minutes."""
        oldest = self._now() - _LATEST
        with self._counting:
            changed, self._changed = self._changed - self._unread, self._changed & self._unread
            # rather short than counted twice: an outage of hours has left it open whether it was stored
            lost = {minute for minute in changed if minute < oldest and minute in self._tried}
            rows = [
                tally.row(minute, self._writer, pair)
                for minute in sorted(changed - lost)
                for pair, tally in sorted(self._minutes[minute].items())
            ]
            self._tried |= changed
        return rows, changed - lost

    def _forget(self) -> None:
        """Forget minutes that are over and stored."""
        now = self._now()
        with self._counting:
            over = [minute for minute in self._minutes if minute not in (now - 1, now) and minute not in self._changed]
            for minute in over:
                del self._minutes[minute]
                self._tried.discard(minute)
                self._forgotten = max(self._forgotten, minute)


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None or one > other else other


class _Batch:
    """Short tasks of one function that were done in the same minute."""

    __slots__ = ("at", "cpu", "memory", "ran", "record", "waited")

    def __init__(self, record: TaskRecord, at: int) -> None:
        self.record = record
        self.at = at
        self.cpu = 0
        self.memory: int | None = None
        self.ran: list[int] = []
        self.waited: list[int] = []


def _sorted_out(
    ended: Sequence[tuple[TaskRun, End]],
    verdicts: Sequence[Verdict],
    offset: int,
    done: dict[tuple[object, ...], _Batch],
) -> list[tuple[tuple[TaskRun, End], Verdict]]:
    """Add the usual ends, of short tasks that are done, to ``done``; return the others.

    ``offset``: what the database's clock is ahead.

    This runs for each task, however short it is. Counted one by one, tasks that do nothing would cost a worker 10 % of
    its CPU time, like this 2 %. So fields are read by position, and what is added up later is put into lists.
    """
    verb, at_, cpu, memory, queue_, function_, command_ = _VERB, _AT, _CPU, _MEMORY, _QUEUE, _FUNCTION, _COMMAND
    due_, created_, short = _DUE, _CREATED, _SHORT
    others: list[tuple[tuple[TaskRun, End], Verdict]] = []
    queue = function = command = None
    batch: Any = None
    ran: Callable[[int], None]
    waited: Callable[[int], None]
    first = last = 0
    good = verdicts[0]
    for (run, full_end), verdict in zip(ended, verdicts, strict=True):
        end: tuple[Any, ...] = full_end
        record: tuple[Any, ...] = run.record
        at, started = end[at_], run.started_at
        if (
            started is None
            or not 0 <= (took := at - started) < short
            or end[verb] != "finish"
            or not (verdict is good or verdict.stored)
        ):
            others.append(((run, full_end), verdict))
            continue
        if not (
            first <= at < last
            and record[function_] == function
            and record[queue_] == queue
            and record[command_] == command
        ):
            first = at - (at + offset) % _MINUTE
            last = first + _MINUTE
            kind = queue, function, command = record[queue_], record[function_], record[command_]
            batch = done.get((first, *kind))
            if batch is None:
                batch = done[first, *kind] = _Batch(run.record, at)
            ran, waited = batch.ran.append, batch.waited.append
        due, created = record[due_], record[created_]
        ran(took)
        waited(started - (due if due > created else created))
        if end[cpu] is not None:
            batch.cpu += end[cpu]
        if end[memory] is not None and (batch.memory is None or end[memory] > batch.memory):
            batch.memory = end[memory]
    return others


def _add_times(counts: list[int], times: list[int]) -> None:
    """Add times to the counts of their buckets."""
    times.sort()
    at = 0
    while at < len(times):
        index = buckets.index_of(times[at])
        after = len(times) if index == buckets.SIZE - 1 else bisect_right(times, buckets.LARGEST[index], at)
        counts[index] += after - at
        at = after

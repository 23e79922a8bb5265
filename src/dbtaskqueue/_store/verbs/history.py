"""What attempts did and how queues were, by time, and retention, on a SQL database.

Each attempt counts in exactly one row. Old rows are added up to rows of longer periods: a transaction deletes some and
adds their figures to others, so the sum over the table stays the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..._formats.function_names import MOST_PAIRS, counted_as
from ...states import ABANDONED, CANCELLED, DONE, TaskState
from ..attempt_counts import SECOND, maxima, merged
from ..connections import Transaction, Values
from ..contract import History, HistoryRecord, NewAction, RetentionRecord, SampleRecord
from .base import add_history, log
from .tasks import SqlTasks

_HOUR = 3600 * SECOND
_DAY = 24 * _HOUR
TOTAL = 0
"""The period of the rows that have the sums of all earlier times."""
_MOST_IN_TOTAL = 1000
_STEP = 500
"""The most tasks that one step of a retention deletes."""


class Fold(NamedTuple):
    """Rows of ``period`` seconds that are older than ``age`` microseconds become part of rows of ``longer`` seconds."""

    period: int
    longer: int
    age: int


FOLDS = (
    Fold(60, 600, 6 * _HOUR),
    Fold(600, 3600, 7 * _DAY),
    Fold(3600, 86400, 30 * _DAY),
    Fold(86400, TOTAL, 400 * _DAY),
)
PERIODS = (*(fold.period for fold in FOLDS), TOTAL)


class SqlHistory(SqlTasks, History):
    """See History."""

    def write_history(self, rows: Sequence[HistoryRecord]) -> None:
        values = [row._asdict() for row in rows]
        self._connections.write(lambda tx: tx.change_each("write_history", values))

    def write_samples(self, rows: Sequence[SampleRecord]) -> None:
        values = [row._asdict() for row in rows]
        if len(values) == 1:  # saves the statements of a transaction, in each minute of an idle database
            self._change_alone("write_sample", values[0])
        else:
            self._connections.write(lambda tx: tx.change_each("write_sample", values))

    def history(
        self, start: int, *, queue: str | None = None, function: str | None = None, worker: int | None = None
    ) -> list[HistoryRecord]:
        values = {"start": start, "queue": queue, "function": function, "worker": worker}
        return [HistoryRecord(*row) for row in self._of_all_periods("history", values)]

    def samples(self, start: int, queue: str | None = None) -> list[SampleRecord]:
        return [SampleRecord(*row) for row in self._of_all_periods("samples", {"start": start, "queue": queue})]

    def _of_all_periods(self, query: str, values: Values) -> list[tuple[Any, ...]]:
        def run(tx: Transaction) -> list[tuple[Any, ...]]:
            return [row for period in PERIODS for row in tx.rows(query, {**values, "period": period})]

        return self._connections.read(run)

    def history_totals(self) -> list[HistoryRecord]:
        # one statement, and so one snapshot: a row that is folded meanwhile counts exactly once
        rows = (HistoryRecord(*row) for row in self._connections.query("all_history"))
        return merged(row._replace(period=TOTAL, at=0, worker=0) for row in rows)

    # -- folding -----------------------------------------------------------------------------------

    def fold_history(self, now: int, limit: int) -> int:
        return sum(self._fold_level(fold, now, limit) for fold in FOLDS)

    def _fold_level(self, fold: Fold, now: int, limit: int) -> int:
        last = now - fold.age
        values = {"period": fold.period, "before": last - last % ((fold.longer or 86400) * SECOND), "limit": limit}
        count = 0
        if self._connections.query("has_old_history", values):
            count += self._connections.write(partial(_fold_history, fold.longer, values))
        if self._connections.query("has_old_samples", values):
            count += self._connections.write(partial(_fold_samples, fold.longer, values))
        return count

    # -- duties ------------------------------------------------------------------------------------

    def take_turn(self, name: str, now: int, interval: int) -> bool:
        next_turn = now - now % interval + interval
        values = {"name": name, "now": now, "next": next_turn, "latest": now + 2 * interval}
        if self._change_alone("take_turn", values):
            return True
        return bool(self._change_alone("new_duty", values))

    # -- retention ---------------------------------------------------------------------------------

    def retentions(self) -> list[RetentionRecord]:
        return [RetentionRecord(*row) for row in self._connections.query("retentions")]

    def set_retention(self, retention: RetentionRecord, action: NewAction | None = None) -> None:
        keeps_all = all(limit is None for limit in retention[1:])

        def run(tx: Transaction) -> None:
            tx.change("delete_retention" if keeps_all else "set_retention", retention._asdict())
            if action is not None:
                log(tx, action, 1)

        self._connections.write(run)

    def apply_retention(self, retention: RetentionRecord, now: int) -> Iterator[int]:
        for state in (DONE, CANCELLED, ABANDONED):
            age = getattr(retention, state.value)
            if age is not None:
                for ids in self._older_than(retention.queue, state, now - age):
                    yield self._connections.write(partial(self._prune, ids, None))
        if retention.most is not None:
            yield from self._delete_all_but(retention.queue, retention.most)

    def _older_than(self, queue: str, state: TaskState, before: int) -> Iterator[list[int]]:
        """Yield the ids of tasks that ended before a moment, in ascending order.

        Stops at the first tasks that were all created later, so that it does not read all that are kept. Ids are in
        the order of creation, except after a change of the clock.
        """
        values: dict[str, Any] = {"queue": queue, "state": state, "after": 0, "limit": _STEP}
        while rows := self._connections.query("oldest_ended", values):
            values["after"] = rows[-1][0]
            if ids := [id for id, _, finished_at in rows if finished_at is not None and finished_at < before]:
                yield ids
            if all(created_at >= before for _, created_at, _ in rows):
                return

    def _delete_all_but(self, queue: str, most: int) -> Iterator[int]:
        """Delete the oldest final tasks until only ``most`` are left, or those that unfinished children need."""
        excess = sum(self._count_final(queue, state) for state in (DONE, CANCELLED, ABANDONED)) - most
        values: dict[str, Any] = {"queue": queue, "after": 0}
        while excess > 0:
            values["limit"] = min(excess, _STEP)
            found = [
                row[0]
                for state in (DONE, CANCELLED, ABANDONED)
                for row in self._connections.query("oldest_ended", {**values, "state": state})
            ]
            ids = sorted(found)[: values["limit"]]
            if not ids:
                return
            values["after"] = ids[-1]
            count = self._connections.write(partial(self._prune, ids, None))
            excess -= count
            yield count

    def _count_final(self, queue: str, state: TaskState) -> int:
        return int(self._connections.query("count_ended", {"queue": queue, "state": state})[0][0])


def _fold_history(longer: int, values: Values, tx: Transaction) -> int:
    rows = [HistoryRecord(*row) for row in tx.rows("old_history", values)]
    by_time: defaultdict[int, list[HistoryRecord]] = defaultdict(list)
    for row in rows:
        by_time[_start_of(row.at, longer)].append(row)
    for at, some in sorted(by_time.items()):
        add_history(tx, _bounded(tx, longer, at, some))
    if rows:
        tx.change_each("delete_history", [row._asdict() for row in rows])
    return len(rows)


def _bounded(tx: Transaction, longer: int, at: int, rows: Sequence[HistoryRecord]) -> list[HistoryRecord]:
    """Return rows as they are added to those of a longer period, which may have a limited number of functions."""
    known = {(queue, function) for queue, function in tx.rows("counted_functions", {"period": longer, "at": at})}
    bounded = []
    for row in rows:
        queue, function = counted_as((row.queue, row.function), known, MOST_PAIRS if longer else _MOST_IN_TOTAL)
        known.add((queue, function))
        bounded.append(row._replace(period=longer, at=at, worker=0, queue=queue, function=function))
    return merged(bounded)


def _fold_samples(longer: int, values: Values, tx: Transaction) -> int:
    rows = [SampleRecord(*row) for row in tx.rows("old_samples", values)]
    largest: dict[tuple[int, str], SampleRecord] = {}
    for row in rows if longer else ():  # there is no total of samples
        at = _start_of(row.at, longer)
        sample = row._replace(period=longer, at=at)
        known = largest.get((at, row.queue)) or _stored_sample(tx, sample)
        largest[at, row.queue] = sample if known is None else maxima(known, sample)
    if largest:
        tx.change_each("write_sample", [largest[key]._asdict() for key in sorted(largest)])
    if rows:
        tx.change_each("delete_sample", [row._asdict() for row in rows])
    return len(rows)


def _stored_sample(tx: Transaction, sample: SampleRecord) -> SampleRecord | None:
    row = tx.row("lock_sample", sample._asdict())
    return None if row is None else SampleRecord(*row)


def _start_of(at: int, longer: int) -> int:
    return at - at % (longer * SECOND) if longer else 0

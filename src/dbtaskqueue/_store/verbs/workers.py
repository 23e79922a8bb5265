"""The workers of a SQL database, and the rescue of what they hold."""

from __future__ import annotations

from typing import Any

from ...states import ABANDONED, CANCELLED, FAILED, TaskState
from ..attempt_counts import EndedHere
from ..connections import Transaction
from ..contract import End, Held, LongRunning, Rescued, RetryTime, RunningRecord, TaskRecord, WorkerRecord, Workers
from ..records import EXPIRED_BEFORE_RETRY
from .base import count_attempts, insert_attempt
from .dependencies import Decided, SqlDependencies

_DAY = 86_400_000_000


class SqlWorkers(SqlDependencies, Workers):
    """See Workers."""

    def register(self, worker: WorkerRecord) -> int:
        def run(tx: Transaction) -> int:
            tx.change("forget_lost", {"before": worker.created_at - _DAY})
            return int(tx.rows("register", worker._asdict())[0][0])

        return self._connections.write(run)

    def beat(self, worker: int) -> bool:
        return bool(self._change_alone("beat", {"worker": worker}))

    def deregister(self, worker: int) -> None:
        self._change_alone("deregister", {"worker": worker})

    def workers(self) -> list[WorkerRecord]:
        return [WorkerRecord(*row) for row in self._connections.query("workers")]

    def held(self, worker: int) -> list[Held]:
        return [Held(*row) for row in self._connections.query("held", {"worker": worker})]

    def longest_running(self, limit: int) -> list[LongRunning]:
        return [LongRunning(*row) for row in self._connections.query("longest_running", {"limit": limit})]

    def running(self, limit: int) -> list[RunningRecord]:
        return [RunningRecord(*row) for row in self._connections.query("running", {"limit": limit})]

    def rescue(self, worker: int | None, beat: int, error: str, now: int, retry_time: RetryTime) -> Rescued | None:
        if worker is None and not self._connections.query("vanished_workers"):
            return Rescued(0, [])

        def run(tx: Transaction) -> tuple[Rescued | None, Decided]:
            if worker is None:
                lost = [row[0] for row in tx.rows("vanished_workers")]
            elif tx.change("mark_lost", {"worker": worker, "beat": beat, "now": now}):
                lost = [worker]
            else:
                return None, Decided()
            held = [Held(*row) for each in lost for row in tx.rows("held", {"worker": each})]
            ended: dict[int, TaskState] = {}
            of_each = [_rescue(tx, each, error, now, retry_time, ended) for each in lost]
            rescued = Rescued(sum(one.tasks for one in of_each), [task for one in of_each for task in one.lost])
            self._wake_for(tx, [task.id for task in held], now)
            self._forget_dead_waiters(tx)
            decided = self._decide(tx, ended, now) if ended else Decided()
            if worker is not None:
                tx.change("count_lost_worker", {"now": now})  # last: all rescues lock this row
            return rescued, decided

        rescued, decided = self._connections.write(run)
        self._decide_left_over(decided, now)
        return rescued

    def workers_lost(self) -> int:
        rows = self._connections.query("workers_lost")
        return int(rows[0][0]) if rows else 0

    def _forget_dead_waiters(self, tx: Any) -> None:
        """Remove the registrations of waiting workers that have died, if the engine has such registrations."""


def _rescue(
    tx: Transaction, worker: int, error: str, now: int, retry_time: RetryTime, ended: dict[int, TaskState]
) -> Rescued:
    """Rescue what a worker held. Final tasks are added to ``ended``."""
    count = tx.change("rescue_reserved", {"worker": worker})
    lost: list[TaskRecord] = []
    counted: list[EndedHere] = []
    for row in tx.rows("lost_running", {"worker": worker}):
        record, lost_before = TaskRecord(*row[:-1]), row[-1]
        spent = record.max_attempts is not None and record.attempt >= record.max_attempts
        due = retry_time(record, lost_before, now)
        expired = not spent and record.expires is not None and due >= record.expires
        state = CANCELLED if record.cancel_requested else ABANDONED if spent or expired else FAILED
        due, finished_at = (due, None) if state == FAILED else (record.due, now)
        values = {"id": record.id, "token": record.token, "state": state, "due": due, "at": now}
        if tx.change("rescue_running", {**values, "finished_at": finished_at}):
            text = f"{error}; {EXPIRED_BEFORE_RETRY}" if expired else error
            end = End("fail", record.id, record.token, now, error=text)
            if state != FAILED:
                ended[record.id] = state
            outcome = "cancelled" if state == CANCELLED else "lost"
            insert_attempt(tx, end, worker, record.attempt, record.started_at, outcome)
            ready_at = max(record.due, record.created_at)
            counted.append(
                EndedHere(record.queue, record.function, record.command, outcome, record.started_at, ready_at)
            )
            lost.append(
                record._replace(
                    state=state,
                    due=due,
                    finished_at=finished_at,
                    token=record.token + 1,
                    worker=None,
                    error=text,
                    error_type=None,
                )
            )
    count_attempts(tx, counted, now)
    return Rescued(count + len(lost), lost)

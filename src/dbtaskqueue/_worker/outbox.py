"""The ends of tasks that are not stored yet.

Ends are stored in one transaction with the next claim. While the database is unavailable they wait here, and are tried
again until each is stored or its claim was lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from .. import outcomes
from .._executors.task_run import TaskRun
from .._store.contract import Claim, End, Exchanged, Note, Start, Store, Verdict
from ..errors import StoreUnavailable
from ..events import ClaimLost, Events, Outage, TaskEnded, TaskStarted, logs_finished_tasks
from ..states import DONE
from .membership import Membership


class Outbox:
    """Stores ends as one worker, and emits the results.

    ``failures`` counts the tries since the database was last available.
    """

    def __init__(self, store: Store, membership: Membership, events: Events) -> None:
        self._store = store
        self._membership = membership
        self._events = events
        self._outage = Outage("worker", events)
        self._ended: list[tuple[TaskRun, End]] = []
        self._notes: list[Note] = []
        self.failures = 0
        self.last_report = 0.0
        """When listeners were last called, in monotonic time. Each may take a while."""

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, run: TaskRun, end: End, notes: Sequence[Note] = ()) -> None:
        """Store this end with the next exchange. ``notes`` are the task's last progress and output."""
        self._ended.append((run, end))
        self._notes += notes

    def add_stored(self, run: TaskRun, end: End) -> None:
        """Note an end that is stored already, by the task's own ``transaction()``."""
        verdict = Verdict(True, DONE, run.record.token)
        self._membership.history.count_all([(run, end)], [verdict])
        self._report(run, end, verdict)

    def runs(self) -> list[TaskRun]:
        """Return the tasks whose ends wait here."""
        return [run for run, _ in self._ended]

    def left(self) -> list[tuple[TaskRun, End]]:
        """Return what waits here: tasks and their ends."""
        return list(self._ended)

    def exchange(self, starts: Sequence[Start] = (), claim: Claim | None = None) -> Exchanged:
        """Store everything and claim the next tasks, in one transaction. Raises StoreUnavailable: everything waits."""
        ended = self._ended
        try:
            exchanged = self._membership.exchange(
                starts=starts, notes=self._notes, ends=[end for _, end in ended], claim=claim
            )
        except StoreUnavailable as error:
            self.failed(error)
            raise
        self._outage.ends()
        self.failures, self._ended, self._notes = 0, [], []
        if ended:
            self._membership.history.count_all(ended, exchanged.ended)
        emits_all = bool(ended) and self._emits_all()
        for (run, end), verdict in zip(ended, exchanged.ended, strict=True):
            if not verdict.stored or run.error is not None or emits_all:
                self._report(run, end, verdict)
        return exchanged

    def _emits_all(self) -> bool:
        """Return whether tasks that did not fail are reported, too. A listener may be added while the worker runs."""
        return logs_finished_tasks() or self._events.wants(TaskEnded) or self._events.wants(TaskStarted)

    def failed(self, error: StoreUnavailable) -> None:
        """Note that the database is unavailable. Also called when another call of this worker has failed."""
        self._outage.starts(error)
        self.failures += 1

    def _report(self, run: TaskRun, end: End, verdict: Verdict) -> None:
        """Emit how a claim ended, once, after it is certain that the end is stored."""
        self.last_report = time.monotonic()
        try:
            settled = outcomes.settled(self._store, end, verdict)
        except StoreUnavailable as unavailable:
            self._ended.append((run, end))  # the next try finds out whether it was stored, and stores nothing twice
            self.failed(unavailable)
            return
        if settled.stored and not verdict.stored:
            self._membership.history.count_all([(run, end)], [settled])
        verdict = settled
        record, error = run.record, run.error
        run.error = None  # its traceback refers to the run: the cycle would keep the task's objects in memory
        attempt = record.attempt if run.started_at is None else run.attempt
        if not verdict.stored:
            self._events.emit(ClaimLost(record, attempt, verdict.state))
        elif error is not None or not end.unrun:
            if end.started_at is not None and self._events.wants(TaskStarted):
                self._events.emit(TaskStarted(record, attempt))
            self._events.emit(TaskEnded(record, attempt, verdict.state or DONE, end, error, run.seconds))

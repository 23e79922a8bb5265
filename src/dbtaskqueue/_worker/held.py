"""The tasks that a plain ``fetch()`` user holds: reserved or running, each until its holder ends it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from .. import outcomes
from .._executors.task_run import TaskRun
from .._store.contract import Claim, End, Start, Store, TaskRecord, Verdict
from .._system import clock
from .._system.backoff import doubling, jittered
from ..errors import StoreUnavailable
from ..events import Events, TaskEnded, TaskStarted
from ..states import DONE, RESERVED, RUNNING
from .lost_claims import LostClaims
from .membership import Membership

T = TypeVar("T")

_PAUSES = tuple(doubling(tries, 0.05, 1.6) for tries in range(6))
"""Seconds between repeats of a write that may have been stored: a random time from half of this to all of it."""
_CHECK = 1.0


class FetchMembership(Membership):
    """A plain ``fetch()`` user as a worker among others, and what it holds.

    Its row is removed when its handle is closed and its last running task has ended.
    """

    def __init__(self, store: Store, lease: float, events: Events) -> None:
        super().__init__(store, lease, events, runs_tasks=False)

    def _reset(self) -> None:
        super()._reset()
        self._holds: dict[int, tuple[int, bool]] = {}  # id: (token, whether it runs)
        self._in_doubt: dict[tuple[int, int], str] = {}  # (id, token): the verb that may have been stored
        self._unsettled: dict[tuple[int, int], tuple[TaskRecord, End]] = {}  # ends that may be stored, not counted yet
        self._leaving = False
        self._claiming = 0
        self._lost_claims = LostClaims(self.held, self._known_claims, self.release)
        self.duties = [_LostClaimsDuty(self._check_lost_claims)]

    # -- leaving -----------------------------------------------------------------------------------

    def leave(self, unstored: Sequence[tuple[TaskRun, End]] = ()) -> None:
        """Release what is reserved; remove the row now, or when the last running task has ended."""
        with self._lock:
            self._leaving = True
            in_a_claim = self._claiming > 0  # this thread has the lock: a signal handler has interrupted it
        if not in_a_claim:
            super().leave(unstored)
        elif self._loop is not None:
            self._loop.soon(self._leave_now)

    def _leave_now(self) -> None:
        with self._lock:
            self._release_reserved()
            if not self._leaving or self._holds:
                return
        self._remove()

    def _release_reserved(self) -> None:
        if self.id is None:
            return
        now = clock.now()
        reserved = [(task, token) for task, (token, runs) in self._holds.items() if not runs]
        if reserved:
            ends = [End("release", task, token, now, unrun=True) for task, token in reserved]
            self.store.exchange(self.id, ends=ends)
        for task, _ in reserved:
            self._holds.pop(task, None)

    def _forget_claims(self) -> None:
        self._holds.clear()
        self._in_doubt.clear()

    # -- claiming ----------------------------------------------------------------------------------

    def claim(self, queues: Sequence[str], limit: int, hold: Callable[[TaskRecord], T]) -> list[T]:
        """Reserve up to ``limit`` due tasks, and pass each to ``hold``. If interrupted, leave nothing reserved.

        ``hold`` returns an object that releases its task when it is garbage-collected.
        """
        with self._lock:
            self._leaving = False  # a queue can be used after a disconnect; after a close, fetch() leaves again
            try:
                self._claiming += 1
                return self._claim(self.join(), queues, limit, hold)
            finally:
                self._claiming -= 1

    def _claim(self, worker: int, queues: Sequence[str], limit: int, hold: Callable[[TaskRecord], T]) -> list[T]:
        try:
            records = self.store.exchange(worker, claim=Claim(queues, limit, clock.now())).claimed
            holders = [hold(record) for record in records]
            self._holds.update((record.id, (record.token, False)) for record in records)
            return holders
        except BaseException as error:
            if not isinstance(error, StoreUnavailable) or error.maybe_done:
                self._lost_claims.suspect()
                with contextlib.suppress(StoreUnavailable):  # the check stays due, and the duty repeats it
                    self._check_lost_claims()
            raise

    def _known_claims(self) -> set[tuple[int, int]]:
        return {(task, token) for task, (token, _) in self._holds.items()}

    def _check_lost_claims(self) -> None:
        with self._lock:  # a claim of another thread that is in progress is not lost
            if self._lost_claims.is_due:
                self._lost_claims.check()

    # -- starting and ending -----------------------------------------------------------------------

    def start(self, record: TaskRecord, now: int) -> Verdict:
        """Store that a reserved task starts."""
        start = Start(record.id, record.token, now)
        self._note(record, runs=True)  # before it is stored, or else leave() in another thread would release it
        try:
            verdict = self._ask(
                "start",
                start,
                lambda: self.store.exchange(record.worker or 0, starts=[start]).started[0],
                lambda verdict: verdict._replace(stored=verdict.token == start.token and verdict.state == RUNNING),
            )
        except BaseException:
            self._note(record, runs=False)
            if self._leaving:
                with contextlib.suppress(StoreUnavailable):
                    self.leave()
            raise
        if not verdict.stored:
            self._note(record, runs=False)
        if verdict.stored and self.events.wants(TaskStarted):
            self.events.emit(TaskStarted(record, record.attempt + 1))
        self._forget_if_over(record, verdict)
        return verdict

    def _note(self, record: TaskRecord, *, runs: bool) -> None:
        with self._lock:
            if self._holds.get(record.id, (None,))[0] == record.token:
                self._holds[record.id] = record.token, runs

    def end(self, record: TaskRecord, end: End) -> Verdict:
        """Store how a held task ends."""
        if end.verb == "release" and record.state == RESERVED:
            end = end._replace(unrun=True)  # even if it is running, because the call that started it was interrupted
        claim = (end.id, end.token)
        try:
            verdict = self._ask(
                end.verb,
                end,
                lambda: self.store.exchange(record.worker or 0, ends=[end]).ended[0],
                lambda verdict: outcomes.settled(self.store, end, verdict),
            )
        except BaseException as error:
            if not isinstance(error, StoreUnavailable) or self._in_doubt.get(claim) == end.verb:
                self._unsettled[claim] = record, end
            raise
        if verdict.stored:
            self._unsettled.pop(claim, None)
            self.history.count(record, end, verdict.state)
        if verdict.stored and self.events.wants(TaskEnded):
            self.events.emit(TaskEnded(record, record.attempt, verdict.state or DONE, end, in_worker=False))
        self._forget_if_over(record, verdict)
        return verdict

    def _ask(
        self, verb: str, what: Start | End, ask: Callable[[], Verdict], settle: Callable[[Verdict], Verdict]
    ) -> Verdict:
        """Store a transition. If it may have been stored already, finding its state under our own token is success.

        A try without an answer, or one that was interrupted, is remembered. So if the database stays unavailable and
        the holder calls again later, that call counts as a repeat, too.
        """
        claim = (what.id, what.token)
        for pause in (*_PAUSES, None):
            try:
                verdict = ask()
                break
            except StoreUnavailable as error:
                if error.maybe_done:
                    self._in_doubt[claim] = verb
                if self._in_doubt.get(claim) != verb:
                    raise
                if pause is None:
                    raise StoreUnavailable(str(error), maybe_done=True) from error
                time.sleep(jittered(pause))
            except BaseException:  # interrupted, such as by KeyboardInterrupt
                self._in_doubt[claim] = verb
                raise
        if self._in_doubt.get(claim) != verb:
            return verdict
        verdict = settle(verdict)
        self._in_doubt.pop(claim, None)  # cleared already if this worker was marked lost meanwhile
        return verdict

    def _settle_ends(self) -> None:
        """Repeat ends whose callers did not: calls that were interrupted, or whose answers were lost."""
        for record, end in list(self._unsettled.values()):
            self._in_doubt[end.id, end.token] = end.verb
            self.end(record, end)

    def _forget_if_over(self, record: TaskRecord, verdict: Verdict) -> None:
        """Forget the task if it has ended, including by an earlier try whose answer was lost."""
        if verdict.token == record.token and verdict.state in (RESERVED, RUNNING):
            return
        with self._lock:
            if self._holds.get(record.id, (None,))[0] == record.token:
                del self._holds[record.id]
        if self._leaving:
            self.leave()

    def drop(self, record: TaskRecord, *, runs: bool) -> None:
        """End a held task that was garbage-collected. A finalizer calls this, so another thread does the work soon."""
        loop = self._loop
        if loop is not None and os.getpid() == self.pid:
            loop.soon(partial(self._end_dropped, record, runs))

    def _end_dropped(self, record: TaskRecord, runs: bool) -> None:
        with self._lock:
            if self._holds.get(record.id, (None,))[0] != record.token:
                return  # it was released when the handle was closed
        _, end = self._unsettled.get((record.id, record.token), (record, None))
        self.end(record, end or (outcomes.fail(record, outcomes.DROPPED) if runs else outcomes.release(record)))


class _LostClaimsDuty:
    """A duty: check for claims whose answer was lost, while any may still arrive."""

    interval = _CHECK

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check

    def __call__(self) -> None:
        self._check()

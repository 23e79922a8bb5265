"""A claimant's place among the workers: its row, its heart, what it holds.

A ``Worker`` has one, and so has a ``TaskQueue`` from its first ``fetch`` on. It joins at the first
claim and leaves when it is closed and holds nothing that runs.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from .. import outcomes
from .._maintenance.clock_watch import ClockWatch
from .._maintenance.heartbeat import HeartProcess, ThreadHeartbeat
from .._maintenance.loop import Duty, MaintenanceLoop
from .._maintenance.rescuer import Rescuer
from .._store.contract import Claim, End, Exchanged, Held, Note, Start, Store, TaskRecord, Verdict, WorkerRecord
from .._system import clock
from .._system.log import Outage, event
from .._system.place import here
from ..errors import StoreUnavailable
from ..states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, RESERVED, RUNNING, TaskState

T = TypeVar("T")

INTENDED: dict[str, frozenset[TaskState]] = {
    "start": frozenset({RUNNING}),
    "finish": frozenset({DONE}),
    "fail": frozenset({FAILED, ABANDONED, CANCELLED}),
    "release": frozenset({PENDING, CANCELLED}),
}
"""The states that a start or an end leads to. If the task has one of them under the same token, it was stored."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each repeat of a write that may have been stored; half of it at least."""

LOOKS = (0.0, 1.0, 5.0, 25.0, 60.0)
"""Seconds after a claim whose answer was lost to look for it: it may have been on its way still, and arrive later."""


class Membership:
    """One worker in the eyes of the others.

    ``runs_tasks``: this process itself runs task code, which may starve its threads, so the heart is a
    process of its own. A plain ``fetch()`` user gets one only where pids cannot speak for it. For the worker's row:
    ``executor``, how it runs them; ``queues``, what it serves; ``functions``, what it has code for (see WorkerRecord).
    """

    def __init__(
        self,
        store: Store,
        lease: float,
        *,
        runs_tasks: bool,
        executor: str | None = None,
        queues: Sequence[str] | None = None,
        functions: Sequence[str | None] | None = None,
    ) -> None:
        self.store = store
        self.lease = lease
        self.duties: list[Duty] = []
        self._runs_tasks = runs_tasks
        self._executor = executor
        self._queues = queues
        self._functions = functions
        self._reset()
        _members.add(self)

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.id: int | None = None
        self._place = here()
        self._lock = threading.RLock()
        self._held: dict[int, tuple[int, bool]] = {}  # id: (token, whether it runs)
        self._in_doubt: dict[tuple[int, int], str] = {}  # (id, token): the verb that may have been stored
        self._leaving = False
        self._claiming = 0
        self._owed: list[End] = []
        self._loop: MaintenanceLoop | None = None
        self._heart: HeartProcess | ThreadHeartbeat | None = None
        self.rescuer = Rescuer(self.store, self._place)
        self.rescuer.on_look = self._on_look
        self._clock_watch = ClockWatch(self.store)
        self.on_lost: Callable[[], None] = lambda: None
        self.on_left: Callable[[], None] = lambda: None

    # -- joining and leaving -----------------------------------------------------------------------

    def join(self) -> int:
        """This claimant's worker id; at the first call it gets its row and its heart."""
        with self._lock:
            if self.id is None:
                self.id = self.store.register(self._row())
                self._leaving = False
                self._start_heart(self.id)
            return self.id

    def leave(self, owed: Sequence[End] = ()) -> None:
        """Give back what is reserved; leave the workers now, or when the last running task has ended.

        ``owed`` are ends that a session could not store. It gives back everything, too: what is held after
        its end is known to nobody, and since this process lives, nobody would rescue it.
        """
        with self._lock:
            self._leaving = True
            self._owed += owed
            in_a_claim = self._claiming > 0  # of this thread, which has the lock: a signal's handler is asking
        if not in_a_claim:
            try:
                self._leave_now()
                return
            except StoreUnavailable:  # a living process is not rescued: it must do this itself, later
                pass
        if self._loop is not None:
            self._loop.soon(self._leave_now)

    def _leave_now(self) -> None:
        self._give_back_reserved()
        self._leave_if_idle()

    def _give_back_reserved(self) -> None:
        with self._lock:
            if self.id is None:
                return
            now = clock.now()
            reserved = [(task, token) for task, (token, runs) in self._held.items() if not runs]
            releases = [End("release", task, token, now) for task, token in reserved]
            if self._owed or releases:
                self.store.exchange(self.id, ends=[*self._owed, *releases])
            self._owed.clear()
            for task, _ in reserved:
                self._held.pop(task, None)
            if self._runs_tasks:
                self._give_back_unknown(self.id)

    def _leave_if_idle(self) -> None:
        with self._lock:
            if not self._leaving or self._held:
                return
            if self.id is not None:
                self.store.deregister(self.id)
            elif self._loop is None:
                return  # it has left already
            loop, heart = self._loop, self._heart
            self.id = self._loop = self._heart = None
        # not under the lock: the loop may be waiting for it
        if loop is not None:
            loop.stop()
        if heart is not None:
            heart.stop()
        self.on_left()

    def _row(self) -> WorkerRecord:
        place = self._place
        return WorkerRecord(
            id=0,
            host=socket.gethostname(),
            pid=self.pid,
            boot=place.boot if place else None,
            namespace=place.namespace if place else None,
            started=place.started if place else None,
            lease=self.lease,
            beat=0,
            created_at=clock.now(),
            lost_at=None,
            executor=self._executor,
            queues=None if self._queues is None else json.dumps(self._queues),
            functions=None if self._functions is None else json.dumps(self._functions),
        )

    # -- the heart ---------------------------------------------------------------------------------

    def _start_heart(self, worker: int) -> None:
        if self._loop is None:
            name = f"worker-{worker}"
            self._loop = MaintenanceLoop(name, Outage(name, silent=self._runs_tasks))  # there the session speaks
            self._loop.start()
            duties: list[Duty] = [self.rescuer, self._clock_watch, *self.duties]
            for duty in duties:
                self._loop.add(duty)
        pids_speak = self.store.place_is_shared and self._place is not None and self._place.is_initial
        self._set_heart(worker, in_process=self._runs_tasks or not pids_speak)

    def _set_heart(self, worker: int, *, in_process: bool) -> None:
        assert self._loop is not None
        if self._heart is not None:
            self._loop.remove(self._heart)
            self._heart.stop()
        self._heart = self._new_heart(worker, in_process)
        self._loop.add(self._heart)

    def _new_heart(self, worker: int, in_process: bool) -> HeartProcess | ThreadHeartbeat:
        if in_process:
            try:
                return HeartProcess(self.store, worker, self.lease, self._was_lost)
            except OSError as error:
                event(logging.WARNING, "no heart process can be started, a thread beats instead", error=error)
        return ThreadHeartbeat(self.store, worker, self.lease, self._was_lost)

    def _on_look(self, workers: Sequence[WorkerRecord]) -> None:
        with self._lock:
            if self.id is None:
                return
            if not any(worker.id == self.id and worker.lost_at is None for worker in workers):
                self._was_lost()
            elif isinstance(self._heart, ThreadHeartbeat) and self._is_watched_from_elsewhere(workers):
                self._set_heart(self.id, in_process=True)

    def _is_watched_from_elsewhere(self, workers: Sequence[WorkerRecord]) -> bool:
        return any(worker.lost_at is None and self.rescuer.is_elsewhere(worker) for worker in workers)

    def _was_lost(self) -> None:
        """Others took this worker for dead: what it held is theirs; it goes on as a new worker."""
        with self._lock:
            self._held.clear()
            self._in_doubt.clear()
            self.id = None
            if self._heart is not None and self._loop is not None:
                self._loop.remove(self._heart)
                self._heart.stop()
                self._heart = None
        self.on_lost()

    def look(self) -> int:
        """What the maintenance does now and then, now: how many tasks became due by it."""
        return self.rescuer.look() + self._clock_watch.look()

    # -- claims ------------------------------------------------------------------------------------

    def claim(self, queues: Sequence[str], limit: int, hold: Callable[[TaskRecord], T]) -> list[T]:
        """Reserve up to ``limit`` due tasks, each given to ``hold``. Interrupted, it leaves nothing reserved.

        Until ``hold`` made a holder of it, which is released when it is dropped, nobody knows of a claim.
        """
        with self._lock:
            try:
                self._claiming += 1
                worker = self.join()
                return self._claim(worker, queues, limit, hold)
            finally:
                self._claiming -= 1

    def _claim(self, worker: int, queues: Sequence[str], limit: int, hold: Callable[[TaskRecord], T]) -> list[T]:
        try:
            records = self.store.exchange(worker, claim=Claim(queues, limit, clock.now())).claimed
            holders = [hold(record) for record in records]
            self._held.update((record.id, (record.token, False)) for record in records)
            return holders
        except BaseException as error:
            if not isinstance(error, StoreUnavailable) or error.maybe_done:
                self._give_back_unknown_in_time(worker)
            raise

    def exchange(
        self,
        *,
        starts: Sequence[Start] = (),
        notes: Sequence[Note] = (),
        ends: Sequence[End] = (),
        claim: Claim | None = None,
    ) -> Exchanged:
        """Store starts, notes and ends and claim what comes next, in one transaction, as this worker."""
        return self.store.exchange(self.join(), starts=starts, notes=notes, ends=ends, claim=claim)

    def _give_back_unknown_in_time(self, worker: int) -> None:
        assert self._loop is not None
        self._loop.add(LaterLooks(self._loop, partial(self._give_back_unknown, worker)))
        try:
            self._give_back_unknown(worker)
        except StoreUnavailable:
            self._loop.soon(partial(self._give_back_unknown, worker))

    def _give_back_unknown(self, worker: int) -> None:
        """Release what the database says this worker holds and nobody here knows of."""
        with self._lock:  # or it would be what another thread is just claiming
            unknown = [held for held in self.store.held(worker) if held.id not in self._held]
            if unknown:
                self.store.exchange(worker, ends=[End("release", held.id, held.token, clock.now()) for held in unknown])

    def held(self) -> list[Held]:
        """What the database says that this worker holds."""
        return [] if self.id is None else self.store.held(self.id)

    def start(self, record: TaskRecord, now: int) -> Verdict:
        """Store that a reserved task starts."""
        start = Start(record.id, record.token, now)
        verdict = self._surely(
            "start", start, lambda: self.store.exchange(record.worker or 0, starts=[start]).started[0]
        )
        with self._lock:
            if verdict.stored and record.id in self._held:
                self._held[record.id] = record.token, True
        self._forget_if_over(record, verdict)
        return verdict

    def end(self, record: TaskRecord, end: End) -> Verdict:
        """Store how a held task ends."""
        verdict = self._surely(end.verb, end, lambda: self.store.exchange(record.worker or 0, ends=[end]).ended[0])
        self._forget_if_over(record, verdict)
        return verdict

    def _surely(self, verb: str, what: Start | End, ask: Callable[[], Verdict]) -> Verdict:
        """Repeat what may have been stored; finding the intended state under one's own token is success.

        The doubt is remembered: when the database stays away and the holder asks again, later, that is a repeat, too.
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
                time.sleep(pause * random.uniform(0.5, 1))
        if self._in_doubt.get(claim) != verb:
            return verdict
        del self._in_doubt[claim]
        return verdict._replace(stored=verdict.token == what.token and verdict.state in INTENDED[verb])

    def _forget_if_over(self, record: TaskRecord, verdict: Verdict) -> None:
        """What ended may have been stored by an earlier try, so that the last one found nothing to do."""
        if verdict.token == record.token and verdict.state in (RESERVED, RUNNING):
            return
        with self._lock:
            if self._held.get(record.id, (None,))[0] == record.token:
                del self._held[record.id]
        if self._leaving:
            self.leave()

    def drop(self, record: TaskRecord, *, runs: bool) -> None:
        """A held task was garbage-collected. Called by a finalizer, so only noted here and done soon."""
        loop = self._loop
        if loop is not None and os.getpid() == self.pid:
            loop.soon(partial(self._end_dropped, record, runs))

    def _end_dropped(self, record: TaskRecord, runs: bool) -> None:
        with self._lock:
            if self._held.get(record.id, (None,))[0] != record.token:
                return  # given back with everything else, when its handle was closed
        self.end(record, outcomes.fail(record, outcomes.DROPPED) if runs else outcomes.release(record))

    # -- forks -------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """The claims, the row and the heart stay with the parent."""
        if isinstance(self._heart, HeartProcess):
            self._heart.disown()
        self._reset()


class LaterLooks:
    """A duty that ends by itself: look for a claim whose answer was lost until it cannot arrive any more."""

    def __init__(self, loop: MaintenanceLoop, look: Callable[[], object]) -> None:
        self.interval, *self._later = LOOKS[1:]
        self._loop = loop
        self._look = look

    def __call__(self) -> None:
        if self._later:
            self.interval = self._later.pop(0)
        else:
            self._loop.remove(self)
        self._look()


_members: weakref.WeakSet[Membership] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for member in list(_members):
        member.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _leave_all() -> None:
    """A process that ends politely leaves nothing reserved, so that nobody has to rescue it."""
    for member in list(_members):
        if member.pid == os.getpid():
            member.leave()

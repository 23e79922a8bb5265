"""A process's place among the workers: its row, its heartbeat, and the duties of every worker.

A ``Worker`` has one, and so has a ``TaskQueue`` from its first ``fetch`` on (``held.FetchMembership``). It joins at the
first claim.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Sequence

from .. import outcomes
from .._executors.task_run import TaskRun
from .._maintenance.attempt_history import AttemptHistory
from .._maintenance.clock_watch import ClockWatch
from .._maintenance.decider import Decider
from .._maintenance.expirer import Expirer
from .._maintenance.heartbeat import HeartbeatProcess, ThreadHeartbeat
from .._maintenance.loop import Duty, MaintenanceLoop
from .._maintenance.rescuer import Rescuer
from .._maintenance.ticker import Ticker
from .._maintenance.upkeep import Upkeep
from .._store.contract import Claim, End, Exchanged, Held, Note, Outlook, Start, Store, WorkerRecord
from .._system import clock
from .._system.log import event
from .._system.place import here
from .._version import __version__
from ..errors import StoreUnavailable, TaskQueueError
from ..events import Events, Outage, WorkerJoined, WorkerLeft
from ..states import RUNNING


class Membership:
    """One worker as the others see it.

    ``runs_tasks``: this process runs task code, which may block its threads. So the heartbeat needs its own process. A
    plain ``fetch()`` user gets one only if other workers cannot check its pid. ``executor``, ``queues``, ``functions``,
    ``commands`` and ``slots`` are stored in the worker's row (see WorkerRecord).
    """

    def __init__(
        self,
        store: Store,
        lease: float,
        events: Events,
        *,
        runs_tasks: bool,
        executor: str | None = None,
        queues: Sequence[str] | None = None,
        functions: Sequence[str | None] | None = None,
        commands: bool = False,
        slots: int | None = None,
    ) -> None:
        self.store = store
        self.lease = lease
        self.events = events
        self.duties: list[Duty] = []
        self._runs_tasks = runs_tasks
        self._executor = executor
        self._queues = queues
        self._functions = functions
        self._commands = commands
        self._slots = slots
        self.on_lost: Callable[[], None] = lambda: None
        self.on_left: Callable[[], None] = lambda: None
        self._reset()
        _members.add(self)

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.id: int | None = None
        self._place = here()
        self._lock = threading.RLock()
        self._unstored: list[tuple[TaskRun, End]] = []
        self._loop: MaintenanceLoop | None = None
        self._heartbeat: HeartbeatProcess | ThreadHeartbeat | None = None
        self.rescuer = Rescuer(self.store, self._place, self.events)
        self.rescuer.on_workers = self._on_workers
        self.history = AttemptHistory(self.store)
        self._upkeep = Upkeep(self.store)
        self._clock_watch = ClockWatch(self.store)
        self._expirer = Expirer(self.store)
        self._decider = Decider(self.store)
        self._ticker = Ticker(self.store, self.events, self._act_on)

    # -- joining and leaving -----------------------------------------------------------------------

    def join(self) -> int:
        """Return this worker's id. The first call adds its row and starts its heartbeat."""
        with self._lock:
            if self.id is None:
                self.id = self.store.register(self._row())
                self._start_heartbeat(self.id)
                self.events.emit(WorkerJoined(self.id))
            return self.id

    def leave(self, unstored: Sequence[tuple[TaskRun, End]] = ()) -> None:
        """Store these ends, release what is still held, and remove the row; later, if the database is unavailable.

        Tasks of a live process are not rescued. So a task that it still held after leaving would be stuck.
        """
        with self._lock:
            self._unstored += unstored
        try:
            self._leave_now()
        except StoreUnavailable:
            if self._loop is not None:
                self._loop.soon(self._leave_now)

    def _leave_now(self) -> None:
        with self._lock:
            if self.id is not None:
                self._store_unstored(self.id)
                self.release(self.store.held(self.id))
        self._remove()

    def _store_unstored(self, worker: int) -> None:
        if self._unstored:
            ends = [end for _, end in self._unstored]
            verdicts = self.store.exchange(worker, ends=ends).ended
            settled = [outcomes.settled(self.store, *each) for each in zip(ends, verdicts, strict=True)]
            self.history.count_all(self._unstored, settled)
            self._unstored = []

    def _remove(self) -> None:
        """Store what was counted, remove the row, and stop the heartbeat and the duties."""
        self.history()
        with self._lock:
            worker = self.id
            if worker is not None:
                self.store.deregister(worker)
            elif self._loop is None:
                return  # it has left already
            loop, heartbeat = self._loop, self._heartbeat
            self.id = self._loop = self._heartbeat = None
        # without the lock: the loop may be waiting for it
        if loop is not None:
            loop.stop()
            self.history()  # a write of the loop may have failed after the first call here had found nothing to do
        if heartbeat is not None:
            heartbeat.stop()
        if worker is not None:
            self.events.emit(WorkerLeft(worker))
        self.on_left()

    def leave_at_exit(self) -> None:
        """Leave before the process ends. Store what was counted, even if the row stays because tasks still run."""
        if self._loop is not None:
            self._loop.stop()  # first, since it may store ends that must be counted
        with contextlib.suppress(TaskQueueError):
            self._settle_ends()
        self.leave()
        try:
            self.history()
        except StoreUnavailable as error:
            event(logging.WARNING, "the process ends before the history has all of its attempts", error=error)

    def _settle_ends(self) -> None:
        """Store ends that may or may not be stored, and count them. A worker's loop has done so already."""

    def release(self, held: Sequence[Held]) -> None:
        """Release tasks that this worker holds according to the database. Raises StoreUnavailable."""
        if held and self.id is not None:
            now = clock.now()
            running = {each.id: self.store.get(each.id) for each in held if each.state == RUNNING}
            ends = [End("release", each.id, each.token, now) for each in held]
            verdicts = self.store.exchange(self.id, ends=ends).ended
            for end, verdict in zip(ends, verdicts, strict=True):
                if verdict.stored and (record := running.get(end.id)) is not None:
                    self.history.count(record, end, verdict.state)

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
            commands=int(self._commands),
            version=__version__,
            slots=self._slots,
        )

    # -- the heartbeat -----------------------------------------------------------------------------

    def _start_heartbeat(self, worker: int) -> None:
        if self._loop is None:
            name = f"worker-{worker}"
            outage = Outage(name, self.events, silent=self._runs_tasks)  # a worker's own loop reports it
            self._loop = MaintenanceLoop(name, outage)
            self._loop.start()
            common: list[Duty] = [self.rescuer, self._clock_watch, self._decider, self._ticker]
            common += [self.history, self._upkeep]
            duties: list[Duty] = [*common, *self.duties]
            for duty in duties:
                self._loop.add(duty)
        pids_suffice = self.store.place_is_shared and self._place is not None and self._place.is_initial
        self._set_heartbeat(worker, in_process=self._runs_tasks or not pids_suffice)

    def _set_heartbeat(self, worker: int, *, in_process: bool) -> None:
        assert self._loop is not None
        if self._heartbeat is not None:
            self._loop.remove(self._heartbeat)
            self._heartbeat.stop()
        self._heartbeat = self._new_heartbeat(worker, in_process)
        self._loop.add(self._heartbeat)

    def _new_heartbeat(self, worker: int, in_process: bool) -> HeartbeatProcess | ThreadHeartbeat:
        if in_process:
            try:
                return HeartbeatProcess(self.store, worker, self.lease, self._was_lost)
            except OSError as error:
                event(logging.WARNING, "no heartbeat process can be started, a thread sends heartbeats", error=error)
        return ThreadHeartbeat(self.store, worker, self.lease, self._was_lost)

    def _on_workers(self, workers: Sequence[WorkerRecord]) -> None:
        """Note the rows of all workers, which the rescuer has read."""
        with self._lock:
            if self.id is None:
                return
            if not any(worker.id == self.id and worker.lost_at is None for worker in workers):
                self._was_lost()
            elif isinstance(self._heartbeat, ThreadHeartbeat) and self._is_watched_from_elsewhere(workers):
                self._set_heartbeat(self.id, in_process=True)

    def _is_watched_from_elsewhere(self, workers: Sequence[WorkerRecord]) -> bool:
        return any(worker.lost_at is None and self.rescuer.is_elsewhere(worker) for worker in workers)

    def _was_lost(self) -> None:
        """Continue as a new worker: another one has marked this one lost and has taken its tasks."""
        with self._lock:
            self._forget_claims()
            self.id = None
            if self._heartbeat is not None and self._loop is not None:
                self._loop.remove(self._heartbeat)
                self._heartbeat.stop()
                self._heartbeat = None
        self.on_lost()

    def _forget_claims(self) -> None:
        """Forget all claims, which belong to other workers now. Called with the lock."""

    def maintain(self) -> int:
        """Do now what the maintenance does at intervals. Return how many tasks became due by that."""
        return self.rescuer.check() + self._clock_watch.check() + self._ticker.tick()

    def tick(self) -> int:
        """Make the ticks of schedules that are due now. Return how many tasks became due."""
        return self._ticker.tick()

    def _act_on(self, outlook: Outlook) -> int:
        """Do what is left to do, such as deciding children. Return how many tasks ended or became due."""
        self.history.note_time(outlook.now)
        self._upkeep.see(outlook)
        self.rescuer.see(outlook.orphaned)
        newest = None if outlook.newest is None or outlook.newest_at is None else (outlook.newest, outlook.newest_at)
        fixed = self._clock_watch.see(newest)
        expired = outlook.expires is not None and outlook.expires <= clock.now()
        count = self._expirer() if expired else 0
        return fixed + count + (self._decider.decide() if outlook.undecided is not None else 0)

    def expire(self) -> int:
        """Abandon expired tasks now. Call it when a claim has found nothing although a task is due."""
        return self._expirer()

    # -- claims ------------------------------------------------------------------------------------

    def exchange(
        self,
        *,
        starts: Sequence[Start] = (),
        notes: Sequence[Note] = (),
        ends: Sequence[End] = (),
        claim: Claim | None = None,
    ) -> Exchanged:
        """Store starts, notes and ends and claim the next tasks, in one transaction, as this worker."""
        return self.store.exchange(self.join(), starts=starts, notes=notes, ends=ends, claim=claim)

    def held(self) -> list[Held]:
        """Return what this worker holds according to the database."""
        return [] if self.id is None else self.store.held(self.id)

    # -- forks -------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Start over: the claims, the row and the heartbeat stay with the parent."""
        if isinstance(self._heartbeat, HeartbeatProcess):
            self._heartbeat.disown()
        self._reset()


_members: weakref.WeakSet[Membership] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for member in list(_members):
        member.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _leave_all() -> None:
    """At a normal exit, release everything, so that no task needs a rescue."""
    for member in list(_members):
        if member.pid == os.getpid():
            member.leave_at_exit()

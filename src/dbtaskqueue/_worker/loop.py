"""The loop of a worker: claim tasks, run them, store how they ended, repeat. The loop's own thread does all writes.

The executor's threads put a task that has ended on a list and ring a bell. The loop collects it. In one transaction, it
stores how tasks ended and claims the next ones. The loop's parts: ``outbox`` has the ends that are not stored yet,
``batching`` decides how many short tasks are claimed together, ``membership`` is this worker among the others.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from .. import outcomes
from .._executors import EXECUTORS, task_log
from .._executors.lookup import Lookup
from .._executors.runner import Runner
from .._executors.task_run import Settings, TaskRun
from .._formats.task_options import has_limits
from .._maintenance.cancel_watch import CancelWatch
from .._maintenance.progress_report import ProgressReport
from .._maintenance.supervision import HANGS, Supervision
from .._maintenance.task_watch import TaskWatch
from .._store.contract import Claim, End, Exchanged, Held, Start, Store, TaskRecord
from .._system import clock
from .._system.backoff import doubling, jittered
from .._system.log import Throttle, event
from .._system.systemd import Notifier
from ..checkpoints import StoredCheckpoints
from ..checks import listed
from ..errors import ChildFailed, StoreUnavailable
from ..events import Events, TaskStarted
from ..states import PENDING
from .batching import MAX_RESERVED, STORED_WITHIN, Batch, BatchSize, is_late
from .due import wait_until_due
from .lost_claims import LostClaims
from .membership import Membership
from .outbox import Outbox
from .run_limits import RunLimits
from .served import ServedQueues
from .stopping import StopSwitch

_LONGEST_WAIT = 5.0
_RETRY_PAUSE = 0.05, 5.0
_LAST_TRIES = 5.0
"""Seconds for which a stopping worker continues to retry writes that are not stored yet."""


class LoopSettings(NamedTuple):
    """The settings of a ``Worker`` for its loop. ``lease`` and ``drain_timeout`` in seconds."""

    queues: Sequence[str]
    concurrency: int
    executor: str
    cancel_grace: float
    tasks_per_child: int
    lease: float
    drain_timeout: float
    allow_commands: bool


class LoopHealth(NamedTuple):
    """What a worker's loops do: see ``WorkerHealth``. ``seconds`` since the slowest of them made its last turn."""

    alive: bool
    claims: bool
    doing: str
    seconds: float


class WorkerLoop:
    """The state of one ``Worker.run``. ``stop.request`` may be called in any thread and in signal handlers.

    ``declare`` stores the schedules that the worker's code declares.
    """

    def __init__(
        self,
        store: Store,
        settings: LoopSettings,
        *,
        lookup: Lookup,
        limits: RunLimits,
        batch: BatchSize,
        events: Events,
        notifier: Notifier,
        declare: Callable[[], object],
    ) -> None:
        self._store = store
        self._declare = declare
        self._is_prepared = False
        self._settings = settings
        self._queues = ServedQueues(store, settings.queues)
        self._lookup = lookup
        self._limits = limits
        self._size = batch
        self._batch = Batch()
        self._events = events
        self._has_processes = settings.executor == "process"
        self._active: set[TaskRun] = set()
        self._finished: deque[TaskRun] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.stop = StopSwitch(self._bell, settings.drain_timeout)
        self._membership = Membership(
            store,
            settings.lease,
            events,
            runs_tasks=True,
            executor=settings.executor,
            queues=settings.queues,
            functions=None if lookup.may_grow else lookup.runs(),
            commands=settings.allow_commands,
            slots=settings.concurrency,
        )
        self._membership.on_lost = self._cancel_all
        self._membership.duties += [
            CancelWatch(self._membership.held, self._running),
            ProgressReport(self._running, lambda notes: self._membership.exchange(notes=notes)),
        ]
        self._watch = TaskWatch(self._running, events, measures=self._has_processes)
        self._outbox = Outbox(store, self._membership, events)
        self._lost_claims = LostClaims(self._membership.held, self._known_claims, self._release_lost)
        self._throttle = Throttle()
        self._may_have_more = True
        """Whether another claim may find tasks: the last one reached its limit, or the database has changed since."""
        self._last_turn = time.monotonic()
        self._supervision = Supervision(notifier, events, self._last_turn_of_all, self._status)
        runner = Runner(
            lookup,
            max_payload=store.max_payload,
            checkpoints=partial(StoredCheckpoints, store),
            is_draining=lambda: self.stop.is_on,
        )
        self._executor = EXECUTORS[settings.executor](
            Settings(settings.concurrency, settings.cancel_grace, settings.tasks_per_child, runner, store.url), self
        )

    def announce_stop(self, *, typed: bool) -> None:
        """Log that the worker stops: see ``StopSwitch.announce``."""
        self.stop.announce(sum(run.started_at is not None for run in self._running()), typed=typed)

    def run(self) -> None:
        """Run tasks until stopped or until a limit is reached. Then drain, and remove the worker's row."""
        if not self._has_processes:
            task_log.listen()
        try:
            while not self.stop.is_on:
                if self._is_prepared or self._prepare():
                    self._turn()
                if not self._outbox.failures:
                    self._supervision.ready()
                if self._is_complete():
                    break
                self._pause()
        finally:
            if not self._has_processes:
                task_log.stop_listening()
            with contextlib.closing(self._supervision):
                self._end()
        if self.stop.exception is not None:
            raise self.stop.exception

    def _end(self) -> None:
        try:
            self._drain()
        finally:  # always, since a worker whose row stays would hold its tasks as long as this process is alive
            self._executor.close()
            self._watch.stop()
            self._membership.leave(self._outbox.left())

    def _running(self) -> list[TaskRun]:
        return list(self._active)

    def _prepare(self) -> bool:
        """Store the code's schedules. In a burst, also make the ticks that are due. Return False in an outage."""
        self._last_turn = time.monotonic()
        try:
            self._declare()
            if self._limits.burst:
                self._membership.tick()
            self._is_prepared = True
        except StoreUnavailable as error:
            self._outbox.failed(error)
        return self._is_prepared

    # -- one turn of the loop ----------------------------------------------------------------------

    def _turn(self) -> None:
        """Store how tasks ended, and claim the next ones."""
        self._collect()
        self._check_lost_claims()
        if (self._batch.is_open or self._is_short_of_room()) and self._batch.has_waited_long:
            self._release(self._executor.take_back())
        starts = self._late_starts()
        claim = self._next_claim()
        if not (starts or claim or self._outbox):
            return
        only_claims = not self._outbox
        exchanged = self._exchange(starts, claim)
        if exchanged is None:
            return
        if claim is None:
            self._may_have_more = self._may_have_more or exchanged.released > 0
            return
        is_full = len(exchanged.claimed) >= claim.limit
        # what was released after the claim, and children of tasks that have expired now
        finds_more = exchanged.released > 0 or (only_claims and not exchanged.claimed and self._expire() > 0)
        self._may_have_more = is_full or finds_more or self._finds_more()
        self._dispatch(exchanged.claimed, claim)

    def _exchange(self, starts: list[tuple[TaskRun, Start]], claim: Claim | None) -> Exchanged | None:
        """Store starts and ends, and claim tasks. Return None while the database is unavailable."""
        try:
            exchanged = self._outbox.exchange([start for _, start in starts], claim)
        except StoreUnavailable as error:
            if claim is not None and error.maybe_done:
                self._lost_claims.suspect()
            return None
        ready = self._batch.on_starts(starts, exchanged.started)
        if self._events.wants(TaskStarted):
            self._emit_starts([run for run, _ in starts if run.start_stored])
        if ready:
            self._submit(ready)
        return exchanged

    def _next_claim(self) -> Claim | None:
        room = self._limits.room
        if self.stop.is_on or self._batch or not (self._may_have_more or self._outbox) or room == 0:
            return None
        size = 1 if self._is_held_up() else self._size.next()
        most = self._executor.most
        limit = size if size > 1 and most else most - len(self._active)
        if limit <= 0 or (size > 1 and self._active):
            return None
        if not self._knows_queues():
            return None
        return Claim(
            self._queues.names,
            limit if room is None else min(limit, room),
            clock.now(),
            start=size == 1,
            batched=size > 1,
            commands=self._settings.allow_commands,
        )

    def _knows_queues(self) -> bool:
        """Before the first claim, read which queues match the patterns. Return False in an outage."""
        try:
            self._queues.read_once()
        except StoreUnavailable as error:
            self._outbox.failed(error)
            return False
        return True

    def _finds_more(self) -> bool:
        """Before a burst ends, rescue tasks of dead workers and find new queues. Return whether there were any."""
        if not self._limits.burst or self._active:
            return False
        try:
            return self._membership.maintain() > 0 or self._queues.read()
        except StoreUnavailable as error:
            self._outbox.failed(error)
            return True

    def _expire(self) -> int:
        """Abandon expired tasks, and return how many. A claim leaves them out, but they count as due.

        This is only needed after a claim that stored no ends and found nothing, although a task was due.
        """
        try:
            return self._membership.expire()
        except StoreUnavailable as error:
            self._outbox.failed(error)
            return 0

    def _is_short_of_room(self) -> bool:
        """Return whether claimed tasks wait because a shortage keeps the executor below its concurrency."""
        return self._executor.most < self._settings.concurrency and not self._executor.is_drained()

    def _is_held_up(self) -> bool:
        """Return whether a task runs that is not short. Then nothing is claimed that would have to wait for it."""
        return any(run.started_at is not None and is_late(run.started_at) for run in self._active)

    def _late_starts(self) -> list[tuple[TaskRun, Start]]:
        return self._batch.late_starts(self._active, may_isolate=not self._outbox)

    def _dispatch(self, records: list[TaskRecord], claim: Claim) -> None:
        """Run the claimed tasks. Release those that this worker has no code for."""
        if not records:
            return
        self._queues.rotate()
        self._batch.note_claim()
        runs = []
        for record in records:
            run = TaskRun(record, start_stored=claim.start)
            if self._lookup.has(record):
                runs.append(run)
            else:
                self._release_unknown(run)
        if not runs:
            return
        self._limits.count(len(runs))
        if claim.start and self._events.wants(TaskStarted):
            self._emit_starts(runs)
        self._submit(self._batch.open(runs) if claim.batched else runs)

    def _submit(self, runs: list[TaskRun]) -> None:
        self._active.update(runs)
        if not self._watch.is_started:
            options = [run.record.options for run in runs if run.record.options is not None]
            self._watch.start_if_needed(any(map(has_limits, options)))
        self._executor.submit(runs)

    def _emit_starts(self, runs: list[TaskRun]) -> None:
        for run in runs:
            self._events.emit(TaskStarted(run.record, run.attempt))

    # -- what has ended ----------------------------------------------------------------------------

    def _collect(self) -> None:
        """Put the ends of tasks into the outbox."""
        self._last_turn = time.monotonic()
        durations = []
        while self._finished:
            run = self._finished.popleft()
            if run not in self._active:
                continue  # its claim was lost meanwhile
            self._active.remove(run)
            durations.append(run.seconds)
            if run.has_ended:
                self._may_have_more = True  # its transaction may have released children
                self._outbox.add_stored(run, outcomes.finish(run.record, None, run.ended_at, run.unstored_start))
            else:
                notes = run.notes()
                self._outbox.add(run, self._end_of(run), notes)
        if durations:
            self._size.learn(len(durations), sum(durations), max(durations))
            self._limits.note_activity()
        self._batch.close_if_stored(self._active)

    def _end_of(self, run: TaskRun) -> End:
        if run.error is None:
            end = outcomes.finish(run.record, run.result, run.ended_at, run.unstored_start)
        else:
            end = self._end_after_error(run, run.error)
        return end if run.cpu is None and run.memory is None else end._replace(cpu=run.cpu, memory=run.memory)

    def _end_after_error(self, run: TaskRun, error: BaseException) -> End:
        record, started_at = run.record, run.unstored_start
        if run.worker_stops:
            run.error = None  # it has stopped because it was asked to
            return outcomes.release(record, started_at=started_at)
        if run.exceeded is not None:
            if error.__traceback__ is None:  # of a child; another one would form a cycle with the run
                run.exceeded.__context__, run.exceeded.__suppress_context__ = error, True
            run.error, run.backoff = run.exceeded, None
            error = run.exceeded
        try:
            chosen = outcomes.chosen_end(record, error, started_at)
            may_retry = not self._ends_with_process(record, error)
            return chosen or outcomes.fail(record, error, retry=may_retry, started_at=started_at, backoff=run.backoff)
        except Exception as broken:  # an unreadable row fails its task, not the worker
            text = outcomes.describe(broken)
            return End("fail", record.id, record.token, clock.now(), final=True, started_at=started_at, error=text)

    def _ends_with_process(self, record: TaskRecord, error: BaseException) -> bool:
        """Return whether the task is abandoned because its process has ended: see ``Functions``."""
        is_end = isinstance(error, ChildFailed) and error.type_in_child is None
        return is_end and getattr(self._lookup.find(record), "ends_with_process", False)

    # -- releasing ---------------------------------------------------------------------------------

    def _release(self, runs: list[TaskRun]) -> None:
        """Release claimed tasks that have not started; they keep their due time."""
        for run in [*runs, *self._batch.take_isolated()]:
            self._active.discard(run)
            self._limits.count(-1)
            self._outbox.add(run, outcomes.release(run.record, None))

    def _release_unknown(self, run: TaskRun) -> None:
        """Release a task that this worker has no code for. Another worker may have it, or the next version."""
        record, end = run.record, outcomes.release_unknown(run.record)
        self._outbox.add(run, end)
        if self._throttle.lets(record.function):
            lacks = "no callback for tasks without a function" if record.function is None else "no such function"
            event(
                logging.WARNING,
                f"this worker has {lacks}, the task is released",
                task_id=record.id,
                queue=record.queue,
                function=record.function,
                retry_in=outcomes.retry_in(end, PENDING),
                known=listed([name for name in self._lookup.runs() if name is not None]),
            )

    def _check_lost_claims(self) -> None:
        if self._lost_claims.is_due:
            try:
                self._lost_claims.check()
            except StoreUnavailable as error:
                self._outbox.failed(error)

    def _known_claims(self) -> set[tuple[int, int]]:
        known = [*self._active, *self._batch.waiting(), *self._outbox.runs()]
        return {(run.record.id, run.record.token) for run in known}

    def _release_lost(self, lost: Sequence[Held]) -> None:
        for held in lost:
            if (record := self._store.get(held.id)) is not None:
                self._outbox.add(TaskRun(record, start_stored=True), outcomes.release(record, None))

    def _cancel_all(self) -> None:
        """Cancel all tasks, because another worker has marked this one lost. Others run its tasks now."""
        for run in self._running():
            run.cancel()

    # -- waiting -----------------------------------------------------------------------------------

    def _pause(self) -> None:
        """Sleep until there is something to do."""
        failures = self._outbox.failures
        if self.stop.is_on or self._finished or (self._outbox and not failures):
            return
        if failures:
            self._sleep(jittered(doubling(failures, *_RETRY_PAUSE)))
        elif self._batch and not self._active:
            return
        elif not self._batch.is_open and (len(self._active) >= self._executor.most or self._limits.room == 0):
            self._sleep(MAX_RESERVED if self._is_short_of_room() else _LONGEST_WAIT)
        elif self._active and (self._batch.is_open or self._may_have_more):
            self._sleep(STORED_WITHIN)
        elif not self._may_have_more:
            self._wait_until_due()

    def _sleep(self, seconds: float) -> None:
        """Sleep until the bell rings. The next turn handles all rings so far."""
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=seconds)
            while True:
                self._bell.get_nowait()

    def _wait_until_due(self) -> None:
        self._last_turn = time.monotonic()
        seconds = _LONGEST_WAIT
        if not self._active and self._limits.burst:
            seconds = 0.0
        elif not self._active and (left := self._limits.idle_left()) is not None:
            seconds = min(seconds, left)
        try:
            self._may_have_more = wait_until_due(
                self._store, self._queues, seconds, commands=self._settings.allow_commands, bell=self._bell
            )
        except StoreUnavailable as error:
            self._outbox.failed(error)
            self._may_have_more = True

    def _is_complete(self) -> bool:
        """Return whether a limit ends the run: it is reached, nothing runs, and everything is stored."""
        if self._active or self._outbox or self._batch or self._finished:
            return False
        if self._limits.room == 0:
            return True
        if self._may_have_more or self._outbox.failures:
            return False
        return self._limits.is_reached_when_idle

    # -- stopping ----------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Release tasks that have not started. Wait for running ones, then stop and release those that are left."""
        if self.stop.start_draining():  # otherwise a limit was reached, and the program may continue
            self._supervision.stopping()
        self._executor.drain()
        self._release(self._executor.take_back())
        self._wait_for_running_tasks()
        self._release(self._executor.take_back())
        self._collect()
        for run in self._running():
            event(logging.WARNING, "task released, its worker stops", task_id=run.record.id, queue=run.record.queue)
            run.worker_stops = True
            run.cancel()
        self._let_code_stop()
        for run in self._running():
            self._outbox.add(run, outcomes.release(run.record, started_at=run.unstored_start))
        self._active.clear()
        deadline = time.monotonic() + _LAST_TRIES
        while self._outbox and not self._store_outbox() and time.monotonic() < deadline:
            time.sleep(STORED_WITHIN)
        if self._outbox:
            event(logging.ERROR, "the worker stops before the ends of all tasks are stored", tasks=len(self._outbox))

    def _wait_for_running_tasks(self) -> None:
        deadline = time.monotonic() + self._settings.drain_timeout
        while self._active and not self.stop.is_immediate and time.monotonic() < deadline:
            self._release(self._executor.take_back())  # a child may have been given more tasks than it will start
            self._collect()
            self._store_outbox()
            if self._active and not self._finished:
                soon = STORED_WITHIN if self._batch.is_open or self._outbox else MAX_RESERVED
                self._sleep(max(0.0, min(soon, deadline - time.monotonic())))

    def _let_code_stop(self) -> None:
        """Wait until code that can be stopped has ended, so that it never runs at the same time on another worker."""
        deadline = time.monotonic() + self._executor.grace
        while (rest := deadline - time.monotonic()) > 0 and any(run.stop is not None for run in self._active):
            if not self._finished:
                self._sleep(min(rest, _LONGEST_WAIT))  # a turn of the loop: a long grace is not a worker that hangs
            self._collect()
        self._collect()

    def _store_outbox(self) -> bool:
        """Store everything in the outbox, without a claim. Return False if the database is unavailable."""
        starts = self._late_starts()
        return not (self._outbox or starts) or self._exchange(starts, None) is not None

    # -- in the threads that notify systemd and answer probes --------------------------------------

    def health(self) -> LoopHealth:
        """Return whether the loops turn, and whether tasks are claimed. It reads only memory."""
        seconds = time.monotonic() - self._last_turn_of_all()
        doing = self._doing() if self._is_prepared or self._outbox.failures else "starting"
        return LoopHealth(seconds <= HANGS, doing == "working", doing, seconds)

    def _last_turn_of_all(self) -> float:
        return min(max(self._last_turn, self._outbox.last_report), self._executor.last_turn())

    def _doing(self) -> str:
        return "stopping" if self.stop.is_on else "database unavailable" if self._outbox.failures else "working"

    def _status(self) -> str:
        queues = ",".join(self._settings.queues)
        return f"{self._doing()}, running {len(self._active)} of {self._settings.concurrency}, queues {queues}"

    # -- in the executor's threads: Callbacks ------------------------------------------------------

    def ended(self, run: TaskRun) -> None:
        """See Callbacks."""
        self._finished.append(run)
        if not self._batch.is_open or self._executor.is_drained():
            self._bell.put(None)

    def room_changed(self) -> None:
        """See Callbacks."""
        self._bell.put(None)

    def broken(self, error: BaseException) -> None:
        """See Callbacks."""
        self.stop.exception = self.stop.exception or error
        self.stop.request()

"""One run of a worker: claim, run, store how it ended, again. All writes come from one thread.

Threads that run tasks put what they have done on a list and ring a bell; the session's own thread
collects it, and in one transaction stores these ends and claims what comes next. An end that cannot be
stored because the database is away is owed, and tried again until it is stored or its claim is gone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from .. import outcomes
from .._executors import EXECUTORS, task_log
from .._executors.lookup import Lookup
from .._executors.runner import Runner
from .._executors.task_run import Settings, TaskRun
from .._formats.payload import JSON
from .._formats.task_options import has_limits
from .._maintenance.cancel_watch import CancelWatch
from .._maintenance.limit_watch import LimitWatch
from .._maintenance.loop import MaintenanceLoop
from .._maintenance.progress_report import ProgressReport
from .._maintenance.supervision import Supervision
from .._maintenance.usage_watch import UsageWatch
from .._store.contract import Claim, End, Exchanged, Note, Start, Store, TaskRecord, Verdict
from .._system import clock
from .._system.log import Outage, Throttle, event, first_line, logger
from .._system.systemd import Notifier
from ..checkpoints import StoredCheckpoints
from ..checks import check_count, check_seconds, counted, listed
from ..errors import StoreUnavailable
from ..states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, RUNNING, TaskState
from .batching import BatchSize
from .membership import INTENDED, LOOKS, Membership

_STORED_WITHIN = 0.1
"""Seconds after which the ends of short tasks, and the start of one that is not short, are stored."""
_PATIENCE = 1.0
"""Seconds that a claimed task may wait for a free slot before it is given back."""
_LONGEST_WAIT = 5.0
_BACKOFF = 0.05, 5.0
_LAST_TRIES = 5.0
"""Seconds that a worker which is stopping goes on trying to store what it owes."""

_STATES = {"done": DONE, "failed": FAILED, "abandoned": ABANDONED, "cancelled": CANCELLED, "released": PENDING}
"""The state in which an end with this outcome leaves a task."""

OnError = Callable[[TaskRecord, BaseException], object]
Callback = Callable[[JSON], JSON]  # or, of an async def, what is awaited for it


class RunLimits:
    """When a run ends by itself: see ``Worker.run``."""

    def __init__(self, burst: bool, max_tasks: int | None, idle_timeout: float | timedelta | None) -> None:
        self.burst = burst
        self.max_tasks = None if max_tasks is None else check_count(max_tasks, "max_tasks")
        self.idle_timeout = None if idle_timeout is None else check_seconds(idle_timeout, "idle_timeout")


class WorkerLoop:
    """Everything that one ``Worker.run`` knows. ``request_stop`` may be called from anywhere."""

    def __init__(
        self,
        store: Store,
        queues: list[str],
        *,
        code: Lookup,
        concurrency: int,
        executor: str,
        cancel_grace: float,
        tasks_per_child: int,
        lease: float,
        drain_timeout: float,
        on_error: OnError | None,
        limits: RunLimits,
        batch: BatchSize,
        allow_commands: bool,
        notifier: Notifier,
    ) -> None:
        self._store = store
        self._queues = deque(queues)
        self._served = ",".join(queues)
        self._code = code
        self._concurrency = concurrency
        self._drain_timeout = drain_timeout
        self._on_error = on_error
        self._limits = limits
        self._verbose = logger.isEnabledFor(logging.INFO)
        self._batch = batch
        self._has_processes = executor == "process"
        self._membership = Membership(
            store, lease, runs_tasks=True, executor=executor, queues=queues, functions=code.runs()
        )
        self._membership.on_lost = self._cancel_all
        self._membership.duties += [
            CancelWatch(self._membership.held, lambda: list(self._active)),
            ProgressReport(lambda: list(self._active), lambda notes: self._membership.exchange(notes=notes)),
        ]
        self._watch = MaintenanceLoop("limits", Outage("limits"))
        self._is_watching = False
        self._commands = allow_commands
        self._outage = Outage("worker")
        self._throttle = Throttle()
        self._failures = 0
        self._stops = 0
        self._announced = ""
        self._exit: BaseException | None = None
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._finished: deque[TaskRun] = deque()
        self._active: set[TaskRun] = set()
        self._isolated: deque[TaskRun] = deque()
        self._owed: list[tuple[TaskRun, End]] = []
        self._last_words: list[Note] = []
        self._in_batch = False
        self._hungry = True
        self._looks: list[float] = []
        self._started = 0
        self._last_claim = self._last_task = self._last_turn = time.monotonic()
        self._supervision = Supervision(notifier, self._last_turn_of_all, self._status)
        runner = Runner(
            code,
            max_payload=store.max_payload,
            checkpoints=partial(StoredCheckpoints, store),
            is_draining=lambda: self._stops > 0,
        )
        settings = Settings(concurrency, cancel_grace, tasks_per_child, runner, store.url)
        self._executor = EXECUTORS[executor](settings, self)

    def request_stop(self) -> None:
        """Drain; asked a second time, stop at once. Safe in a signal handler and in any thread."""
        self._stops += 1
        self._bell.put(None)

    def announce_stop(self, *, typed: bool) -> None:
        """Log that the worker stops, and how long that may take. Never call it in a signal handler: see ``signals``.

        ``typed``: a person has pressed Ctrl-C, and should see the confirmation even if only warnings are shown.
        """
        running = sum(work.started_at is not None for work in list(self._active))
        tasks = counted(running)
        if not running:
            text = "stopping"
        elif self._stops > 1:
            text = f"stopping now: {tasks} stopped and released"
        else:
            may_run = "until they finish" if self._drain_timeout == math.inf else f"for {self._drain_timeout:g} s more"
            again = "press Ctrl-C" if typed else "send the signal"
            text = f"stopping: {tasks} may run {may_run}; {again} again to stop now"
        if text != self._announced:
            self._announced = text
            event(logging.WARNING if typed and running else logging.INFO, text)

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stops > 0

    def run(self) -> None:
        """Work until stopped or a limit is reached, then drain and leave the workers."""
        if not self._has_processes:
            task_log.listen()
        try:
            while not self._stops:
                self._step()
                if not self._failures:
                    self._supervision.ready()
                if self._is_complete():
                    break
                self._pause()
        finally:
            if not self._has_processes:
                task_log.stop_listening()
            with contextlib.closing(self._supervision):
                self._end()
        if self._exit is not None:
            raise self._exit

    def _end(self) -> None:
        try:
            self._drain()
        finally:  # whatever went wrong: a worker that stayed would hold its tasks as long as this process lives
            self._executor.close()
            if self._is_watching:
                self._watch.stop()
            self._membership.leave([end for _, end in self._owed])

    # -- one turn of the loop ----------------------------------------------------------------------

    def _step(self) -> None:
        """Store what ended, claim what comes next."""
        self._collect()
        if self._looks and self._looks[0] <= time.monotonic():
            self._look_for_unknown_claims()
        if (self._in_batch or self._is_short()) and time.monotonic() - self._last_claim > _PATIENCE:
            self._give_back(self._executor.take_back())
        starts = self._late_starts()
        claim = self._next_claim()
        if not (starts or claim or self._owed):
            return
        exchanged = self._exchange(starts, claim)
        if exchanged is None:
            return
        self._heed_starts(starts, exchanged.started)
        if claim is not None:
            self._hungry = len(exchanged.claimed) >= claim.limit or self._finds_more()  # fewer: nothing else is due
            self._dispatch(exchanged.claimed, claim)

    def _finds_more(self) -> bool:
        """Whether dead workers held something: a burst does not end without having looked."""
        if not self._limits.burst or self._active:
            return False
        try:
            return self._membership.look() > 0
        except StoreUnavailable as gone:
            self._fail(gone)
            return True

    def _fail(self, gone: StoreUnavailable) -> None:
        self._outage.starts(gone)
        self._failures += 1

    def _next_claim(self) -> Claim | None:
        room = None if self._limits.max_tasks is None else self._limits.max_tasks - self._started
        if self._stops or self._isolated or not (self._hungry or self._owed) or room == 0:
            return None
        size = 1 if self._is_held_up() else self._batch.next()
        most = self._executor.most
        limit = size if size > 1 and most else most - len(self._active)
        if limit <= 0 or (size > 1 and self._active):
            return None
        return Claim(
            self._queues, limit if room is None else min(limit, room), clock.now(), size == 1, size > 1, self._commands
        )

    def _is_short(self) -> bool:
        """Whether claimed tasks wait because a shortage keeps the executor below its concurrency."""
        return self._executor.most < self._concurrency and not self._executor.is_drained()

    def _is_held_up(self) -> bool:
        """Whether a task runs that is not short: then nothing is claimed that would wait behind it."""
        before = clock.now() - int(_STORED_WITHIN * 1e6)
        return any(work.started_at is not None and work.started_at <= before for work in self._active)

    def _exchange(self, starts: list[tuple[TaskRun, Start]], claim: Claim | None) -> Exchanged | None:
        owed = self._owed
        try:
            exchanged = self._membership.exchange(
                starts=[start for _, start in starts],
                notes=self._last_words,
                ends=[end for _, end in owed],
                claim=claim,
            )
        except StoreUnavailable as gone:
            self._fail(gone)
            if claim is not None and gone.maybe_done:
                self._looks = [time.monotonic() + after for after in LOOKS]
            return None
        self._outage.ends()
        self._failures, self._owed, self._last_words = 0, [], []
        for (work, end), verdict in zip(owed, exchanged.ended, strict=True):
            if not verdict.stored or work.error is not None or self._verbose:
                self._heed_end(work, end, verdict)
        return exchanged

    def _look_for_unknown_claims(self) -> None:
        """Owe the release of what the database says is held, but nobody here knows: a claim's answer was lost."""
        known = {work.record.id for work in (*self._active, *self._isolated)}
        known |= {work.record.id for work, _ in self._owed}
        try:
            for held in self._membership.held():
                if held.id not in known and (record := self._store.get(held.id)) is not None:
                    self._owed.append((TaskRun(record, start_stored=True), outcomes.release(record, None)))
        except StoreUnavailable as gone:
            self._fail(gone)
            return
        self._looks = [look for look in self._looks if look > time.monotonic()]

    def _dispatch(self, records: list[TaskRecord], claim: Claim) -> None:
        if not records:
            return
        self._queues.rotate(-1)
        self._last_claim = time.monotonic()
        works = []
        for record in records:
            work = TaskRun(record, start_stored=claim.start)
            if self._code.has(record):
                works.append(work)
            else:
                self._release_unknown(work)
        if not works:
            return
        self._last_task = self._last_claim
        self._started += len(works)
        self._in_batch = claim.batched
        if claim.batched:
            self._isolated.extend(work for work in works if work.record.isolated)
            works = [work for work in works if not work.record.isolated]
        self._submit(works)

    def _release_unknown(self, work: TaskRun) -> None:
        """Release a task that this worker has no code for. Another worker may have it, or the next version."""
        record, end = work.record, outcomes.release_unknown(work.record)
        self._owed.append((work, end))
        if self._throttle.lets(record.function):
            lacks = "no callback for tasks without a function" if record.function is None else "no such function"
            event(
                logging.WARNING,
                f"this worker has {lacks}, the task is released",
                task_id=record.id,
                queue=record.queue,
                function=record.function,
                retry_in=_retry_in(end, PENDING),
                known=listed([name for name in self._code.runs() if name is not None]),
            )

    def _submit(self, works: list[TaskRun]) -> None:
        self._active.update(works)
        if not self._is_watching and (self._has_processes or any(has_limits(work.record.options) for work in works)):
            self._start_watching()
        self._executor.submit(works)

    def _start_watching(self) -> None:
        """Limits do not wait for a database: they have a thread of their own, from when there is one to watch."""
        self._is_watching = True
        self._watch.add(LimitWatch(lambda: list(self._active)))
        if self._has_processes:
            self._watch.add(UsageWatch(lambda: list(self._active)))
        self._watch.start()

    def _collect(self) -> None:
        """Turn outcomes into ends."""
        self._last_turn = time.monotonic()
        durations = []
        while self._finished:
            work = self._finished.popleft()
            if work not in self._active:
                continue  # it was given up meanwhile
            self._active.remove(work)
            durations.append(work.seconds)
            if work.has_ended:
                end = outcomes.finish(work.record, None, work.ended_at)
                self._heed_end(work, end, Verdict(True, DONE, work.record.token))
                continue
            self._last_words += work.notes()
            end = self._end_of(work)
            if work.cpu is not None or work.memory is not None:
                end = end._replace(cpu=work.cpu, memory=work.memory)
            self._owed.append((work, end))
        if durations:
            self._batch.learn(len(durations), sum(durations), max(durations))
            self._last_task = time.monotonic()
        self._in_batch = self._in_batch and not all(work.start_stored for work in self._active)

    def _end_of(self, work: TaskRun) -> End:
        record, error, started_at = work.record, work.error, work.unstored_start
        if error is not None and work.given_back:
            work.error = None  # it did as it was told
            return outcomes.release(record, started_at=started_at)
        if error is not None and work.exceeded is not None:
            work.error = error = work.exceeded
        if error is None:
            return outcomes.finish(record, work.result, work.ended_at, started_at)
        try:
            return outcomes.chosen_end(record, error, started_at) or outcomes.fail(record, error, started_at=started_at)
        except Exception as broken:  # a row with nonsense in it fails its task, not the worker
            text = outcomes.describe(broken)
            return End("fail", record.id, record.token, clock.now(), final=True, started_at=started_at, error=text)

    def _heed_end(self, work: TaskRun, end: End, verdict: Verdict) -> None:
        """Log how an attempt ended, and call ``on_error`` for one that failed."""
        try:
            verdict = self._settled(end, verdict)
        except StoreUnavailable as gone:
            self._owed.append((work, end))  # the next try finds out whether it was stored; nothing is stored twice
            self._fail(gone)
            return
        record, error = work.record, work.error
        attempt = record.attempt if work.started_at is None else work.attempt
        fields: dict[str, Any] = {"task_id": record.id, "queue": record.queue}
        fields |= {"function": record.function, "attempt": attempt}
        if not verdict.stored:
            event(logging.WARNING, "the claim on a task was lost before it finished", **fields, state=verdict.state)
        elif error is None:
            if not end.unrun:
                event(logging.INFO, f"task {verdict.state}", **fields, seconds=round(work.seconds, 3))
        else:
            fields |= {"max_attempts": record.max_attempts, "retry_in": _retry_in(end, verdict.state)}
            kind = getattr(error, "name", type(error).__name__)
            message = first_line(error).removeprefix(f"{kind}: ")  # the error of a child repeats its name
            event(logging.WARNING, f"task {verdict.state}", **fields, error=kind, message=message)
            if self._on_error is not None and verdict.state in (FAILED, ABANDONED):
                due = record.due if end.due is None else end.due
                self._call_on_error(
                    self._on_error,
                    record._replace(state=verdict.state, attempt=attempt, due=due, error=end.error),
                    error,
                )
            work.error = None  # its traceback leads back to the work: no cycle may keep what the task had in hand

    def _settled(self, end: End, verdict: Verdict) -> Verdict:
        """The verdict on an end, also if an earlier try stored it and its answer was lost."""
        if verdict.stored:
            return verdict
        if verdict.token == end.token:  # under its token only this worker could have ended it
            return verdict._replace(stored=verdict.state in INTENDED[end.verb])
        for attempt in self._store.attempts(end.id, end.token):  # it may have been claimed or retried since
            if (attempt.token, attempt.finished_at) == (end.token, end.at) and attempt.outcome in _STATES:
                return Verdict(True, _STATES[attempt.outcome], end.token)
        return verdict

    def _call_on_error(self, on_error: OnError, record: TaskRecord, error: BaseException) -> None:
        self._last_turn = time.monotonic()
        with contextlib.suppress(StoreUnavailable):  # then it gets what is known here
            record = self._store.get(record.id) or record
        try:
            on_error(record, error)
        except Exception as broken:
            event(logging.ERROR, "on_error raised", exc_info=broken, task_id=record.id)
        except BaseException as leaving:  # raised when all is in order: here, what was just claimed would be forgotten
            self._exit = self._exit or leaving
            if not self._stops:
                self.request_stop()

    # -- batches -----------------------------------------------------------------------------------

    def _late_starts(self) -> list[tuple[TaskRun, Start]]:
        """Starts to be stored by themselves: of a task to be run alone, of one that turned out long."""
        starts = []
        if self._isolated and not self._active and not self._owed:
            work = self._isolated[0]
            starts.append((work, Start(work.record.id, work.record.token, clock.now())))
        before = clock.now() - int(_STORED_WITHIN * 1e6)
        for work in self._active:
            if not work.start_stored and work.started_at is not None and work.started_at <= before:
                starts.append((work, Start(work.record.id, work.record.token, work.started_at)))
        return starts

    def _heed_starts(self, starts: list[tuple[TaskRun, Start]], verdicts: list[Verdict]) -> None:
        for (work, _), verdict in zip(starts, verdicts, strict=True):
            if verdict.stored or (verdict.token == work.record.token and verdict.state == RUNNING):
                work.start_stored = True
                work.record = work.record._replace(attempt=work.record.attempt + 1)
            else:
                work.cancel()
            if self._isolated and work is self._isolated[0]:
                self._isolated.popleft()
                if work.start_stored:
                    self._submit([work])

    def _give_back(self, works: list[TaskRun]) -> None:
        """Owe the release of claimed tasks that have not started; they keep their due time."""
        for work in [*works, *self._isolated]:
            self._active.discard(work)
            self._started -= 1
            self._owed.append((work, outcomes.release(work.record, None)))
        self._isolated.clear()

    # -- waiting -----------------------------------------------------------------------------------

    def _pause(self) -> None:
        """Sleep until there is something to do."""
        if self._stops or self._finished or (self._owed and not self._failures):
            return
        if self._failures:
            first, last = _BACKOFF
            self._sleep(min(last, first * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1))
        elif self._isolated and not self._active:
            return
        elif not self._in_batch and (len(self._active) >= self._executor.most or self._is_full()):
            self._sleep(_PATIENCE if self._is_short() else _LONGEST_WAIT)
        elif self._active and (self._in_batch or self._hungry):
            self._sleep(_STORED_WITHIN)
        elif not self._hungry:
            self._wait_for_due()

    def _sleep(self, seconds: float) -> None:
        try:
            self._bell.get(timeout=seconds)
            while True:  # one look answers all rings
                self._bell.get_nowait()
        except queue.Empty:
            pass

    def _wait_for_due(self) -> None:
        self._last_turn = time.monotonic()
        with self._store.wakeups.waiting(tuple(self._queues)) as ticket:
            try:
                due = self._store.next_due(self._queues, commands=self._commands)
            except StoreUnavailable as gone:
                self._fail(gone)
                self._hungry = True
                return
            pause = _LONGEST_WAIT if due is None else min(_LONGEST_WAIT, (due - clock.now()) / 1e6)
            if pause <= 0:
                self._hungry = True
                return
            if self._limits.burst and not self._active:
                return
            if self._limits.idle_timeout is not None and not self._active:
                pause = min(pause, self._last_task + self._limits.idle_timeout - time.monotonic())
            self._store.wakeups.wait_on(self._bell, ticket, pause)

    def _is_full(self) -> bool:
        return self._limits.max_tasks is not None and self._started >= self._limits.max_tasks

    def _is_complete(self) -> bool:
        """Whether a limit ends the run: nothing runs, nothing is owed, and the limit is reached."""
        if self._active or self._owed or self._isolated or self._finished:
            return False
        if self._is_full():
            return True
        if self._hungry or self._failures:
            return False
        idle = time.monotonic() - self._last_task
        return self._limits.burst or (self._limits.idle_timeout is not None and idle >= self._limits.idle_timeout)

    # -- stopping ----------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Give back what has not started, wait for what runs, then give that back, too."""
        if self._stops:  # else a limit was reached, and the program may well go on
            self._supervision.stopping()
        self._stops = max(self._stops, 1)
        self._executor.drain()
        self._give_back(self._executor.take_back())
        deadline = time.monotonic() + self._drain_timeout
        while self._active and self._stops == 1 and time.monotonic() < deadline:
            self._give_back(self._executor.take_back())  # a child may have been given more than it will start
            self._collect()
            self._store_owed()
            if self._active and not self._finished:
                soon = _STORED_WITHIN if self._in_batch or self._owed else _PATIENCE
                self._sleep(max(0.0, min(soon, deadline - time.monotonic())))
        self._give_back(self._executor.take_back())
        self._collect()
        for work in list(self._active):
            event(logging.WARNING, "task given back, its worker stops", task_id=work.record.id, queue=work.record.queue)
            work.given_back = True
            work.cancel()
        self._let_them_stop()
        for work in list(self._active):
            self._owed.append((work, outcomes.release(work.record, started_at=work.unstored_start)))
        self._active.clear()
        deadline = time.monotonic() + _LAST_TRIES
        while self._owed and not self._store_owed() and time.monotonic() < deadline:
            time.sleep(_STORED_WITHIN)
        if self._owed:
            event(logging.ERROR, "the worker stops before the ends of all tasks are stored", tasks=len(self._owed))

    def _let_them_stop(self) -> None:
        """Where code can be stopped, it has ended before another worker starts with its task."""
        deadline = time.monotonic() + self._executor.grace
        while (rest := deadline - time.monotonic()) > 0 and any(work.stop is not None for work in self._active):
            if not self._finished:
                self._sleep(rest)
            self._collect()
        self._collect()

    def _store_owed(self) -> bool:
        if self._owed or self._late_starts():
            starts = self._late_starts()
            exchanged = self._exchange(starts, None)
            if exchanged is None:
                return False
            self._heed_starts(starts, exchanged.started)
        return True

    def _cancel_all(self) -> None:
        """This worker was taken for dead: its tasks are others' now."""
        for work in list(self._active):
            work.cancel()

    # -- in the thread that tells systemd ----------------------------------------------------------

    def _last_turn_of_all(self) -> float:
        return min(self._last_turn, self._executor.last_turn())

    def _status(self) -> str:
        doing = "stopping" if self._stops else "database unavailable" if self._failures else "working"
        return f"{doing}, running {len(self._active)} of {self._concurrency}, queues {self._served}"

    # -- in the threads that run tasks: Callbacks ---------------------------------------------------

    def ended(self, work: TaskRun) -> None:
        """See Callbacks."""
        self._finished.append(work)
        if not self._in_batch or self._executor.is_drained():
            self._bell.put(None)

    def room_changed(self) -> None:
        """See Callbacks."""
        self._bell.put(None)

    def broken(self, error: BaseException) -> None:
        """See Callbacks."""
        self._exit = self._exit or error
        self.request_stop()


def _retry_in(end: End, state: TaskState | None) -> float | str:
    """Seconds until a task that is in this state after its end is due again, or "never"."""
    if state not in (FAILED, PENDING) or end.due is None:
        return "never"
    return round(max(0, end.due - end.at) / 1e6, 3)

"""What ``doctor`` reports about a database: facts, and problems with a suggested fix."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Protocol

from .._formats.display import duration
from .._store.contract import Finding, ScheduleRecord, Store, TaskRecord, WorkerRecord
from .._system import clock
from .._system.place import here
from ..checks import counted, listed
from ..outcomes import UNKNOWN_DELAYS
from ..overview import LATEST, functions_of, is_lost, name_of, queues_of, serves, summarize
from ..states import ABANDONED, DONE, FAILED, PENDING, RUNNING

_MOST_SLOW = 10
_MOST_RUNNING = 500
_MOST_WAITING = 500
_MOST_BLOCKED, _MOST_PARENTS = 100, 100
"""The newest blocked tasks of a queue that are read, and the open parents of each."""
_LATE = 60_000_000
"""Microseconds after which a schedule that is due is late."""
_DAY = 86_400_000_000
_UNDECLARED = 30 * _DAY
_REFRESHED = 3_600_000_000
"""Microseconds: a declaration is not stored again within this time."""
_MOST_SCHEDULES, _MOST_TICKS = 100, 100
_SLOW_FACTOR, _SLOW_SAMPLES = 3, 5
"""A running task is slow after three times the 95th percentile of its function, if at least five attempts are known."""
_NEVER_SLOW = 1.0
"""Seconds. For functions that take milliseconds, any task that happens to be running would count as slow."""


class CommandLine(Protocol):
    """Returns a command line that the user may run next, for the same database and, if given, a queue."""

    def __call__(self, command: str, *words: str, queue: str | None = None) -> str:
        """Return the command line of ``dbtaskqueue command``."""
        ...


def check(store: Store, queues: list[str], command_line: CommandLine) -> list[Finding]:
    """Check the database, its workers and these queues.

    Reads a bounded number of tasks, except where the store checks its own integrity and counts abandoned tasks.
    """
    workers, place = store.workers(), here()
    alive = [worker for worker in workers if not is_lost(worker, place)]
    return [
        *store.findings(),
        Finding("workers", f"{len(alive)} alive, {len(workers) - len(alive)} lost"),
        Finding("queues", listed(queues)),
        *_paused(store, queues, command_line),
        _oldest_due(store, queues, command_line, any_alive=bool(alive)),
        *_unknown_functions(store, queues, command_line, alive),
        *_unserved_parents(store, queues, command_line, alive),
        *_late_schedules(store, queues, command_line),
        *_missed_ticks(store, queues, command_line),
        *_undeclared_schedules(store, queues, command_line, alive),
        *_abandoned(store, queues, command_line),
        *_slow(store, queues, command_line),
    ]


def _paused(store: Store, queues: list[str], command_line: CommandLine) -> Iterator[Finding]:
    for name in filter(store.is_paused, queues):
        yield Finding("paused", f"queue {name}", command_line("resume", queue=name))


def _oldest_due(store: Store, queues: list[str], command_line: CommandLine, *, any_alive: bool) -> Finding:
    now = clock.now()
    times = [(since, name) for name in queues if (since := store.waiting_since(name, now)) is not None]
    if not times:
        return Finding("oldest due", "nothing is due")
    since, name = min(times)
    waited = f"a task of queue {name} has waited {(now - since) / 1e6:.1f} s"
    if any_alive:
        return Finding("oldest due", waited)
    return Finding("oldest due", f"{waited}; no worker is alive", command_line("worker", "MODULE:NAME", queue=name))


def _unknown_functions(
    store: Store, queues: list[str], command_line: CommandLine, alive: list[WorkerRecord]
) -> Iterator[Finding]:
    """Find due tasks whose function no live worker has code for, including tasks just released for this reason."""
    before = clock.now() + round(UNKNOWN_DELAYS[1] * 1e6)
    for name in queues:
        known = _known_functions(name, alive)
        if known is None:
            continue
        waiting = Counter(store.next_functions(name, _MOST_WAITING, before))
        for function in sorted(waiting.keys() - known, key=str):
            number = waiting[function]
            tasks = f"{counted(number)} {'waits' if number == 1 else 'wait'}"
            value = (
                f"{tasks} without a function, and no live worker of the queue {name} has a callback"
                if function is None
                else f"{function}: {tasks}, and no live worker of the queue {name} knows it; the live workers know:"
                f" {listed(sorted(each for each in known if each is not None))}"
            )
            start = command_line("worker", "MODULE:NAME", queue=name)
            yield Finding("function", value, f"start a worker with the code for it: {start}")


def _known_functions(queue: str, alive: list[WorkerRecord]) -> set[str | None] | None:
    """Return what the live workers of a queue have code for; None if there are none, or if one has not stored it."""
    known: set[str | None] | None = None
    for worker in alive:
        is_served, functions = serves(worker, queue), functions_of(worker)
        if is_served is None or functions is None:  # a plain fetch() user, a worker of version 0.1.0, or a damaged row
            return None
        if is_served:
            known = (known or set()) | set(functions)
    return known


def _unserved_parents(
    store: Store, queues: list[str], command_line: CommandLine, alive: list[WorkerRecord]
) -> Iterator[Finding]:
    """Find queues that no live worker serves and that have parents of blocked tasks, perhaps of other queues."""
    if any(queues_of(worker) is None for worker in alive):  # a plain fetch() user may serve any queue
        return
    children: defaultdict[str, set[int]] = defaultdict(set)
    for name in queues:
        for task in store.tasks(name, None, _MOST_BLOCKED, None, blocked=True):
            parents = store.summaries([edge.parent for edge in store.open_parents(task.id, _MOST_PARENTS)])
            for parent in parents.values():
                if parent.state in (PENDING, FAILED) and not parent.blocked:
                    children[parent.queue].add(task.id)
    for queue in sorted(children):
        if not any(serves(worker, queue) for worker in alive):
            number, example = len(children[queue]), min(children[queue])
            tasks = f"{counted(number)} {'waits' if number == 1 else 'wait'} for parents in the queue {queue}"
            yield Finding(
                "blocked",
                f"{tasks}, which no live worker serves (task {example})",
                command_line("worker", "MODULE:NAME", queue=queue),
            )


def _schedules(store: Store, queues: list[str]) -> list[ScheduleRecord]:
    return [schedule for schedule in store.schedules() if schedule.queue in queues]


def _late_schedules(store: Store, queues: list[str], command_line: CommandLine) -> Iterator[Finding]:
    """Find schedules that have been due for a minute: any worker of the database would have made their ticks."""
    now = store.outlook(clock.now()).now
    late = [
        schedule
        for schedule in _schedules(store, queues)
        if not schedule.paused and schedule.next_at is not None and schedule.next_at < now - _LATE
    ]
    if late:
        names = listed([schedule.name for schedule in late])
        longest = duration((now - min(schedule.next_at or now for schedule in late)) / 1e6)
        value = f"{counted(len(late), 'schedule')} due for up to {longest}: {names}"
        yield Finding("late schedules", value, f"start a worker: {command_line('worker', 'MODULE:NAME')}")


def _missed_ticks(store: Store, queues: list[str], command_line: CommandLine) -> Iterator[Finding]:
    """Find schedules whose ticks were missed within a day."""
    since = store.outlook(clock.now()).now - _DAY
    for schedule in [schedule for schedule in _schedules(store, queues) if schedule.missed][:_MOST_SCHEDULES]:
        recent = [tick for tick in store.ticks(schedule.queue, schedule.name, _MOST_TICKS) if tick.at >= since]
        if missed := sum(tick.missed for tick in recent):
            history = command_line("schedules", "history", schedule.name, queue=schedule.queue)
            value = f"{counted(missed, 'tick')} of schedule {schedule.name} of queue {schedule.queue} within a day"
            yield Finding("missed ticks", value, f"keep a worker running; see {history}")


def _undeclared_schedules(
    store: Store, queues: list[str], command_line: CommandLine, alive: list[WorkerRecord]
) -> Iterator[Finding]:
    """Find schedules that code has declared once, but that no worker has declared for 30 days.

    A worker declares its schedules only when it starts. So a worker that has run for longer may still have them.
    """
    before = store.outlook(clock.now()).now - _UNDECLARED
    for schedule in _schedules(store, queues):
        if schedule.declared_at is None or schedule.declared_at >= before:
            continue
        until = schedule.declared_at + _REFRESHED
        if not any(serves(worker, schedule.queue) is not False and worker.created_at <= until for worker in alive):
            remove = command_line("schedules", "remove", schedule.name, queue=schedule.queue)
            value = f"schedule {schedule.name} of queue {schedule.queue} has not been declared for 30 days"
            yield Finding("undeclared schedule", value, f"if it is no longer wanted: {remove}")


def _abandoned(store: Store, queues: list[str], command_line: CommandLine) -> Iterator[Finding]:
    for name in queues:
        number = store.count(name, final=True)[ABANDONED]
        if number:
            fix = command_line("list", "--state", "abandoned", queue=name)
            yield Finding("abandoned", f"{counted(number)} of queue {name}", fix)


def _slow(store: Store, queues: list[str], command_line: CommandLine) -> Iterator[Finding]:
    for name in queues:
        running = [task for task in store.tasks(name, RUNNING, _MOST_RUNNING, None) if not task.suspended]
        if running:
            done = [attempt for attempt in store.ended(name, LATEST) if attempt.outcome == DONE]
            usual = {each.function: each.p95 for each in summarize(done) if each.count >= _SLOW_SAMPLES}
            findings = [found for task in running if (found := _slow_task(task, usual, command_line))]
            yield from findings[:_MOST_SLOW]
            if len(findings) > _MOST_SLOW:
                fix = command_line("list", "--state", "running", queue=name)
                yield Finding("slow", f"{len(findings) - _MOST_SLOW} more of queue {name}", fix)


def _slow_task(task: TaskRecord, usual: dict[str, float | None], command_line: CommandLine) -> Finding | None:
    function = name_of(task.function, task.command)
    p95 = usual.get(function)
    now = clock.now()
    runs = (now - (task.started_at or now)) / 1e6
    if p95 is None or runs <= max(_SLOW_FACTOR * p95, _NEVER_SLOW):
        return None
    others = f"95 % of {function} took at most {duration(p95)}"
    return Finding("slow", f"task {task.id} has run for {duration(runs)}; {others}", command_line("show", str(task.id)))

"""Queues, functions, schedules, workers, and what takes too long."""

from __future__ import annotations

from typing import NamedTuple

from ..._store.contract import ScheduleRecord, TickRecord
from ...errors import TaskNotFound
from ...history import HistoryPoint, Retention, retention_of
from ...monitoring.health import check
from ...overdue import Unusual
from ...overview import FunctionStats
from ...queue import TaskQueue
from ...schedules import find_schedule
from ...states import ABANDONED, FAILED
from . import trends
from .sources import Failure, Queue, Running, Sources, Worker, failed_at, grouped
from .tasks import Row, row

_TICKS = 50
_LATEST = 20
_MOST_LATE = 200


class QueuePage(NamedTuple):
    """What the page of a queue shows. ``queue`` is None until its tasks are counted."""

    name: str
    queue: Queue | None
    running: list[Running]
    next: list[Row]
    failures: list[Failure]
    functions: list[FunctionStats] | None
    schedules: list[ScheduleRecord]
    retention: Retention
    trend: list[HistoryPoint] | None


def queue_page(sources: Sources, queue: TaskQueue, name: str, since: str) -> QueuePage:
    """Read a queue. A queue without tasks exists, too: it may be paused, or have only been named."""
    store, looks = queue.store, sources.looks
    queues = sources.queues()
    found = next((each for each in queues or () if each.name == name), None)
    if queues is not None and found is None:
        found = Queue(name, store.is_paused(name), 0, 0, 0, 0, 0, 0, 0, 0)
    newest = looks.part(
        ("newest", name), lambda: [row(sources, each) for each in store.tasks(name, None, 10, None)], 2.0
    )
    return QueuePage(
        name,
        found,
        [each for each in sources.running() if each.queue == name],
        newest,
        sources.failures_of(name) if found is None or found.failed or found.abandoned else [],
        sources.functions(name),
        [each for each in sources.schedules() if each.queue == name],
        looks.part(("retention", name), lambda: retention_of(store, name), 5.0),
        trends.points(sources, queue, since, name=name),
    )


class FunctionRow(NamedTuple):
    """A function in a queue."""

    queue: str
    stats: FunctionStats


class FunctionPage(NamedTuple):
    """What the page of a function shows."""

    name: str
    rows: list[FunctionRow]
    running: list[Running]
    failures: list[Failure]
    trend: list[HistoryPoint] | None


def functions(sources: Sources) -> list[FunctionRow] | None:
    """Return the functions of all queues, by their failures and names; None if nothing is known yet."""
    known = [(name, sources.functions(name)) for name in sources.names()]
    if known and all(stats is None for _, stats in known):
        return None
    rows = [FunctionRow(name, each) for name, stats in known for each in stats or ()]
    return sorted(rows, key=lambda each: (each.stats.function, each.queue))


def function_page(sources: Sources, queue: TaskQueue, name: str, since: str) -> FunctionPage:
    """Read a function."""
    rows = [each for each in functions(sources) or () if each.stats.function == name]

    def read() -> list[Failure]:
        wanted = [(each.queue, state) for each in rows if each.stats.failures for state in (FAILED, ABANDONED)][:10]
        found = [task for key, state in wanted for task in sources.slow.tasks(key, state, 2 * _LATEST, None)]
        return grouped(sorted((each for each in found if each.function == name), key=failed_at, reverse=True))

    failures = sources.looks.counted(("failures of function", name), read, 5.0) or []
    running = [each for each in sources.running() if each.function == name]
    return FunctionPage(name, rows, running, failures, trends.points(sources, queue, since, function=name))


class SchedulePage(NamedTuple):
    """What the page of a schedule shows."""

    schedule: ScheduleRecord
    ticks: list[TickRecord]


def schedule_page(queue: TaskQueue, name: str, schedule: str) -> SchedulePage:
    """Read a schedule. Raises UnknownSchedule."""
    return SchedulePage(find_schedule(queue.store, name, schedule), queue.store.ticks(name, schedule, _TICKS))


class WorkerPage(NamedTuple):
    """What the page of a worker shows."""

    worker: Worker
    functions: list[str]
    running: list[Running]


def worker_page(sources: Sources, id: int) -> WorkerPage:
    """Read a worker. Raises TaskNotFound."""
    found = next((each for each in sources.workers() if each.id == id), None)
    if found is None:
        raise TaskNotFound(f"worker {id} is not known: it has left, or was lost more than a day ago")
    running = [each for each in sources.running() if each.worker == id]
    return WorkerPage(found, sources.functions_of(id), running)


class Late(NamedTuple):
    """A task that needs a look. ``advice``: what to do next; ``verb``: the button for that."""

    task: Unusual
    running: Running | None
    advice: str
    verb: str


_ADVICE = {
    "overdue": ("Look at its progress and output. If it hangs, cancel it.", "cancel"),
    "stalled": ("Read the end of its output. If it hangs, cancel it.", "cancel"),
    "suspended": ("It keeps its memory while it is suspended.", "continue"),
    "ending": ("Its code does not check for cancellation. See its output.", ""),
}


def late(sources: Sources) -> list[Late]:
    """Return the tasks that are overdue, stalled, suspended, or still running after a request to cancel."""
    running = {each.id: each for each in sources.running()}
    return [Late(each, running.get(each.id), *_ADVICE[each.trouble]) for each in sources.unusual()[:_MOST_LATE]]


def findings(sources: Sources, queue: TaskQueue) -> list[tuple[str, str, str | None, bool]] | None:
    """Return what ``doctor`` finds, checked at most once a minute for everybody; None if not known yet."""

    def command_line(command: str, *words: str, queue: str | None = None) -> str:
        return " ".join(["dbtaskqueue", command, *words, *(["--queue", queue] if queue else [])])

    def read() -> list[tuple[str, str, str | None, bool]]:
        found = check(sources.slow, sources.names(), command_line)
        return [(each.name, each.value, each.advice, each.broken) for each in found]

    return sources.looks.counted("doctor", read, 60.0)

"""The overview: what needs someone."""

from __future__ import annotations

from typing import NamedTuple

from ..._store.contract import ScheduleRecord
from ..._system import clock
from ...history import HistoryPoint
from ...overdue import Unusual
from . import trends
from .sources import MOST_RUNNING, Failure, Queue, Running, Sources, Worker

_HOUR = 3_600_000_000
_MINUTE = 60_000_000
_MOST_SCHEDULES = 8


class Need(NamedTuple):
    """Something that needs someone. ``kind``: "bad" or "warn". ``at``: since when. ``action``, ``link``: what next."""

    kind: str
    title: str
    detail: str
    at: int | None
    action: str
    link: tuple[str, dict[str, object]]


class Overview(NamedTuple):
    """What the overview shows. ``queues`` is None until the tasks are counted."""

    needs: list[Need]
    totals: dict[str, int | None]
    queues: list[Queue] | None
    running: list[Running]
    more_running: bool
    failures: list[Failure]
    workers: list[Worker]
    schedules: list[ScheduleRecord]
    trend: list[HistoryPoint] | None


def read(sources: Sources) -> Overview:
    """Read what the overview shows."""
    queues = sources.queues()
    running, workers, schedules = sources.running(), sources.workers(), sources.schedules()
    failures = sources.failures(queues or [])
    return Overview(
        needs(queues or [], sources.unusual(), workers, schedules, failures),
        totals(queues),
        queues,
        running[:MOST_RUNNING],
        len(running) > MOST_RUNNING,
        failures,
        workers,
        schedules[:_MOST_SCHEDULES],
        trends.points(sources, sources.queue, "1h"),
    )


def totals(queues: list[Queue] | None) -> dict[str, int | None]:
    """Return the number of tasks of all queues by what they do; None where it is not counted yet."""

    def add(name: str) -> int | None:
        values = [getattr(queue, name) for queue in queues or ()]
        return None if queues is None or None in values else sum(values)

    found = {name: add(name) for name in ("running", "waiting", "blocked", "failed", "abandoned", "reserved")}
    if found["waiting"] is not None and found["failed"] is not None:
        found["waiting"] = max(0, found["waiting"] - found["failed"])
    return found


# -- what needs someone ----------------------------------------------------------------------------


def needs(
    queues: list[Queue],
    unusual: list[Unusual],
    workers: list[Worker],
    schedules: list[ScheduleRecord],
    failures: list[Failure],
) -> list[Need]:
    """Return what needs someone, the worst first."""
    found = [
        *_without_workers(queues, workers),
        *_late(unusual),
        *_lost(workers),
        *_abandoned(queues, failures),
        *_paused(queues),
        *_late_schedules(schedules),
    ]
    return sorted(found, key=lambda need: need.kind != "bad")


def _without_workers(queues: list[Queue], workers: list[Worker]) -> list[Need]:
    waiting = [
        each for each in queues if each.due_since and not each.paused and not each.workers + each.unknown_workers
    ]
    if not waiting:
        return []
    since = min(each.due_since or 0 for each in waiting)
    if not any(worker.state == "alive" for worker in workers):
        return [Need("bad", "No worker is alive", "Tasks wait.", since, "Workers", ("/workers", {}))]
    return [
        Need(
            "bad",
            f"No worker serves {each.name}",
            f"{each.waiting:,} {'task waits' if each.waiting == 1 else 'tasks wait'}.",
            each.due_since,
            "Show the queue",
            ("/queue", {"name": each.name}),
        )
        for each in waiting[:5]
    ]


_TROUBLES = {
    "overdue": "longer than usual",
    "stalled": "without progress",
    "ending": "still running after a request to cancel",
}


def _late(unusual: list[Unusual]) -> list[Need]:
    found = []
    for trouble, words in _TROUBLES.items():
        late = [each for each in unusual if each.trouble == trouble]
        if len(late) == 1:
            title = f"Task {late[0].id}: {words}"
            found.append(Need("warn", title, late[0].function, None, "Show", (f"/tasks/{late[0].id}", {})))
        elif late:
            title = f"{len(late):,} tasks: {words}"
            found.append(Need("warn", title, "", None, "Show", ("/overdue", {})))
    return found


def _lost(workers: list[Worker]) -> list[Need]:
    recently = clock.now() - _HOUR
    lost = [each for each in workers if each.state == "lost" and (each.lost_at or recently) >= recently]
    silent = [each for each in workers if each.state == "silent"]
    found = []
    if lost:
        title = f"Worker {lost[0].id} was lost" if len(lost) == 1 else f"{len(lost)} workers were lost"
        at = max(each.lost_at or 0 for each in lost) or None
        found.append(Need("warn", title, "Its tasks run again elsewhere.", at, "Workers", ("/workers", {})))
    if silent:
        title = f"Worker {silent[0].id} is silent" if len(silent) == 1 else f"{len(silent)} workers are silent"
        found.append(Need("warn", title, "It sends no heartbeat.", None, "Workers", ("/workers", {})))
    return found


def _abandoned(queues: list[Queue], failures: list[Failure]) -> list[Need]:
    count = sum(each.abandoned or 0 for each in queues)
    if not count:
        return []
    newest = max((each.at for each in failures if each.state == "abandoned"), default=None)
    title = "1 task was abandoned" if count == 1 else f"{count:,} tasks were abandoned"
    detail = "They are not retried automatically." if count > 1 else "It is not retried automatically."
    return [Need("warn", title, detail, newest, "Show", ("/tasks", {"state": "abandoned"}))]


def _paused(queues: list[Queue]) -> list[Need]:
    return [
        Need(
            "warn",
            f"Queue {each.name} is paused",
            f"{each.waiting:,} {'task waits' if each.waiting == 1 else 'tasks wait'}." if each.waiting else "",
            each.due_since,
            "Show the queue",
            ("/queue", {"name": each.name}),
        )
        for each in queues
        if each.paused
    ][:5]


def _late_schedules(schedules: list[ScheduleRecord]) -> list[Need]:
    now = clock.now()
    late = [each for each in schedules if not each.paused and each.next_at and each.next_at < now - _MINUTE]
    if not late:
        return []
    title = f"Schedule {late[0].name} is late" if len(late) == 1 else f"{len(late)} schedules are late"
    return [Need("bad", title, "No worker makes its ticks.", late[0].next_at, "Schedules", ("/schedules", {}))]

"""Format snapshots for the command watch: the lines of a screen, or for a pipe, a line for each change.

rich is imported in the functions that use it, as in output.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._formats.display import byte_size, short_duration
from .._formats.progress import Progress, part_done
from .._system.clock import to_datetime
from ..monitoring.snapshot import Failure, QueueSnapshot, Running, ScheduleSnapshot, Snapshot, WorkerSnapshot
from ..monitoring.tasks import attempt_text
from ..states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, RESERVED, RUNNING, TaskState
from .output import WIDE, escaped, local, queue_name, styled

if TYPE_CHECKING:
    from rich.text import Text

_GAP = 2
_BAR = 8
_TALL = 20
"""The number of rows from which on there are blank lines between the parts."""
_LONGEST = 500
_WARNING_LINES = 3
"""The most lines of a warning about the database."""
_COUNTED = (PENDING, RESERVED, RUNNING, FAILED, DONE, ABANDONED)


class Column(NamedTuple):
    """A column of a part. ``width``: in cells; None takes what the other columns leave."""

    name: str
    width: int | None = None
    right: bool = False


class Part(NamedTuple):
    """One of the parts of the screen."""

    columns: Sequence[Column]
    rows: Sequence[tuple[str, ...]]
    nothing: str
    more: str = ""


# -- the screen ------------------------------------------------------------------------------------


def screen(
    snapshot: Snapshot | None, columns: int, rows: int, *, now: int, title: str = "", key: str = "q", warning: str = ""
) -> list[Text]:
    """Return at most ``rows`` lines of at most ``columns`` cells.

    ``now`` in microseconds. ``key`` is the one that quits. ``warning`` is shown at the top.
    """
    from rich.text import Text

    lines = [_header(columns, title, f"{local(to_datetime(now))[11:]}  {key} quits")]
    for line in textwrap.wrap(escaped(warning[:_LONGEST]), columns)[:_WARNING_LINES]:
        lines.append(_cut(Text(line, style="bold red"), columns))
    parts = [] if snapshot is None else _parts(snapshot, now, wide=columns >= WIDE)
    blank = len(parts) if rows >= _TALL else 0
    rooms = shares([max(1, len(part.rows)) for part in parts], rows - len(lines) - len(parts) - blank)
    for part, room in zip(parts, rooms, strict=True):
        if blank:
            lines.append(Text())
        lines += _drawn(part, room, columns)
    return lines[:rows]


def shares(wants: Sequence[int], room: int) -> list[int]:
    """Share ``room`` rows among the parts: none gets more than it wants, and small parts get all that they want."""
    given = [0] * len(wants)
    left = max(0, room)
    while left > 0 and given != list(wants):
        for index, want in enumerate(wants):
            if given[index] < want and left > 0:
                given[index] += 1
                left -= 1
    return given


def _header(columns: int, title: str, right: str) -> Text:
    from rich.text import Text

    left = Text(escaped(f"dbtaskqueue {title}"[:_LONGEST]))
    left.truncate(max(columns - len(right) - _GAP, 0), overflow="ellipsis", pad=True)
    return _cut(Text.assemble((left.plain, "bold"), " " * _GAP, (right, "dim")), columns)


def _drawn(part: Part, room: int, columns: int) -> Iterator[Text]:
    from rich.text import Text

    yield _row(part.columns, [column.name for column in part.columns], columns, style="bold")
    if not part.rows and room > 0:
        yield _cut(Text(part.nothing, style="dim"), columns)
    shown = part.rows[:room]
    is_cut = len(part.rows) > room
    if is_cut and room > 0:
        shown = shown[:-1]
    for row in shown:
        yield _row(part.columns, row, columns)
    if is_cut and room > 0:
        yield _cut(Text(f"… and {len(part.rows) - len(shown)} more{part.more}", style="dim"), columns)


def _row(columns: Sequence[Column], cells: Sequence[str], width: int, style: str = "") -> Text:
    """Return the cells in their columns. The column without a width gets the rest."""
    from rich.text import Text

    fixed = sum(column.width or 0 for column in columns) + _GAP * (len(columns) - 1)
    line = Text(style=style)
    for index, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        shown = Text(cell) if style else styled(cell)
        room = max(4, width - fixed) if column.width is None else column.width
        shown.truncate(room, overflow="ellipsis")
        if column.right:
            shown.align("right", room)
        elif index < len(columns) - 1:
            shown.align("left", room)
        line.append_text(shown)
        line.append("" if index == len(columns) - 1 else " " * _GAP)
    return _cut(line, width)


def _cut(line: Text, columns: int) -> Text:
    line.truncate(columns, overflow="crop")
    line.no_wrap = True
    return line


def _parts(snapshot: Snapshot, now: int, *, wide: bool) -> list[Part]:
    return [
        _queues(snapshot, wide),
        _workers(snapshot, now),
        _running(snapshot, now, wide),
        *([_schedules(snapshot, now, wide)] if snapshot.schedules else []),
        _failures(snapshot, now, wide),
    ]


def _queues(snapshot: Snapshot, wide: bool) -> Part:
    states = (*_COUNTED, CANCELLED) if wide else _COUNTED
    names = [str(state) for state in states]
    if any(queue.blocked for queue in snapshot.queues):
        # a narrow screen has no room for both; reserved tasks start soon
        names[1 : 1 if wide else 2] = ["blocked"]
    columns = (
        Column("queues"),
        *(Column(name, max(7, len(name)), right=True) for name in names),
        Column("waits", 6, right=True),
    )
    rows = [
        (
            queue_name(queue.name, paused=queue.paused),
            *(number(queue.blocked if name == "blocked" else queue.counts[TaskState(name)]) for name in names),
            short_duration(queue.waited),
        )
        for queue in sorted(snapshot.queues, key=lambda queue: (-_unfinished(queue), queue.name))
    ]
    return Part(columns, rows, "no tasks in any queue")


def _unfinished(queue: QueueSnapshot) -> int:
    return sum(queue.counts[state] for state in (PENDING, RESERVED, RUNNING, FAILED))


def _workers(snapshot: Snapshot, now: int) -> Part:
    columns = (
        Column("workers", 8),
        Column("state", 6),
        Column("executor", 8),
        Column("runs", 5, right=True),
        Column("up", 6, right=True),
        Column("pid", 8, right=True),
        Column("host"),
    )
    runs = [task.worker for task in snapshot.running]
    rows = [
        (
            str(worker.id),
            worker.state,
            worker.executor or "(fetch)",
            f"{runs.count(worker.id)}{'+' if snapshot.more else ''}",
            short_duration((now - worker.created_at) / 1e6),
            str(worker.pid),
            worker.host,
        )
        for worker in sorted(snapshot.workers, key=_alive_first)
    ]
    return Part(columns, rows, "no workers")


def _alive_first(worker: WorkerSnapshot) -> tuple[int, int]:
    return ("alive", "silent", "lost").index(worker.state), worker.id if worker.state != "lost" else -worker.id


def _running(snapshot: Snapshot, now: int, wide: bool) -> Part:
    columns = [
        Column("running", 8),
        Column("runs", 6, right=True),
        Column("progress", _BAR + 5),
        Column("eta", 6, right=True),
        Column("memory", 10, right=True),
        Column("cpu", 5, right=True),
        Column("task"),
    ]
    if wide:
        columns[1:1] = [Column("attempt", 7), Column("queue", 16)]
    rows = [_running_row(task, now, wide) for task in snapshot.running]
    return Part(columns, rows, "no running tasks", ", at least" if snapshot.more else "")


def _running_row(task: Running, now: int, wide: bool) -> tuple[str, ...]:
    more = (attempt_text(task.attempt, task.max_attempts), task.queue) if wide else ()
    message = task.progress.message if task.progress else None
    name = f"{message} · {task.what}" if message else task.what
    return (
        str(task.id),
        *more,
        short_duration(None if task.started_at is None else (now - task.started_at) / 1e6),
        bar(task.progress),
        short_duration(task.progress.eta if task.progress else None),
        byte_size(task.usage.memory) if task.usage else "",
        "" if task.cpu is None else f"{min(task.cpu, 99.99):.0%}",
        f"({', '.join(task.words)}) {name}" if task.words else name,
    )


def _schedules(snapshot: Snapshot, now: int, wide: bool) -> Part:
    columns = [
        Column("next in", 8, right=True),
        Column("last ago", 8, right=True),
        Column("outcome", 7),
        Column("task", 8, right=True),
        Column("schedules"),
    ]
    if wide:
        columns[4:4] = [Column("queue", 16)]
    rows = [_schedule_row(schedule, now, wide) for schedule in snapshot.schedules]
    return Part(columns, rows, "no schedules")


def _schedule_row(schedule: ScheduleSnapshot, now: int, wide: bool) -> tuple[str, ...]:
    coming = None if schedule.next_at is None else max(0, schedule.next_at - now) / 1e6
    return (
        "paused" if schedule.paused else short_duration(coming) or "never",
        short_duration(None if schedule.last_at is None else (now - schedule.last_at) / 1e6),
        schedule.outcome or "",
        "" if schedule.task is None else str(schedule.task),
        *((schedule.queue,) if wide else ()),
        schedule.name,
    )


def _failures(snapshot: Snapshot, now: int, wide: bool) -> Part:
    columns = [
        Column("failures", 8),
        Column("state", 9),
        Column("attempt", 7),
        Column("ago", 6, right=True),
        Column("next", 6, right=True),
        Column("error"),
    ]
    if wide:
        columns[1:1] = [Column("queue", 16)]
    rows = [_failure_row(failure, now, wide) for failure in snapshot.failures]
    return Part(columns, rows, "no failed tasks")


def _failure_row(failure: Failure, now: int, wide: bool) -> tuple[str, ...]:
    soon = max(0.0, (failure.due - now) / 1e6)
    return (
        str(failure.id),
        *((failure.queue,) if wide else ()),
        failure.state,
        attempt_text(failure.attempt, failure.max_attempts),
        short_duration((now - failure.at) / 1e6),
        short_duration(soon) if failure.state == FAILED else "",
        failure.error,
    )


# -- words -----------------------------------------------------------------------------------------


def number(count: int) -> str:
    """Return a count in at most seven characters."""
    return str(count) if count < 10_000_000 else f"{count / 1e6:.0f}M"


def bar(progress: Progress | None) -> str:
    """Return progress as a bar with a percentage, or as a number if there is no total."""
    part = part_done(progress)
    if part is not None:
        full = int(part * _BAR)
        return f"{'█' * full}{'░' * (_BAR - full)} {int(part * 100):3}%"
    if progress is not None and isinstance(progress.done, int | float):
        return f"{progress.done:.6g}"
    return ""


# -- a pipe ----------------------------------------------------------------------------------------


def changes(before: Snapshot | None, after: Snapshot) -> list[str]:
    """Return a line for each change since the snapshot ``before``, with control characters escaped."""
    at = local(to_datetime(after.at))[11:]
    return [f"{at} {escaped(line[:_LONGEST])}" for line in _changes(before, after)]


def _changes(before: Snapshot | None, after: Snapshot) -> Iterator[str]:
    known = {_queue_line(queue) for queue in before.queues} if before else set()
    yield from (line for line in map(_queue_line, after.queues) if line not in known)
    workers = {worker.id: worker for worker in before.workers} if before else {}
    for worker in after.workers:
        previous = workers.pop(worker.id, None)
        if previous is None or previous.state != worker.state:
            yield f"worker {worker.id} {worker.state} executor={worker.executor or '-'} pid={worker.pid} {worker.host}"
    for missing in workers.values():
        yield f"worker {missing.id} has left"
    were_running = {(task.id, task.token): task for task in before.running} if before else {}
    for ended in after.ended:
        yield f"task {ended.id} is {ended.state} queue={ended.queue} attempt={ended.attempt}"
    for task in after.running:
        yield from _task_changes(were_running.get((task.id, task.token)), task)
    yield from _ticks(before, after)
    failures = {(each.id, each.attempt, each.state) for each in before.failures} if before else set()
    for each in reversed(after.failures):
        if (each.id, each.attempt, each.state) not in failures:
            attempt = attempt_text(each.attempt, each.max_attempts)
            yield f"task {each.id} {each.state} queue={each.queue} attempt={attempt} {each.error}"


def _ticks(before: Snapshot | None, after: Snapshot) -> Iterator[str]:
    """Yield a line for each new tick. The last tick of a schedule that is new in the snapshot may be an old one."""
    known = {(each.queue, each.name): each.last_at for each in before.schedules} if before else {}
    for each in after.schedules:
        place = each.queue, each.name
        is_old = before is not None and place not in known and (each.last_at or 0) < before.at
        if each.last_at is not None and each.last_at != known.get(place) and not is_old:
            made = "" if each.task is None else f" task={each.task}"
            yield f"schedule {each.name} {each.outcome} queue={each.queue}{made}"


def _queue_line(queue: QueueSnapshot) -> str:
    counts = " ".join(f"{state}={queue.counts[state]}" for state in (*_COUNTED, CANCELLED))
    blocked = f" blocked={queue.blocked}" if queue.blocked else ""
    return f"queue {queue.name} {counts}{blocked}{' paused' if queue.paused else ''}"


def _task_changes(before: Running | None, task: Running) -> Iterator[str]:
    if before is None:
        attempt = attempt_text(task.attempt, task.max_attempts)
        yield f"task {task.id} runs queue={task.queue} attempt={attempt} worker={task.worker} {task.what}"
    if task.words != (before.words if before else ()):
        yield f"task {task.id} {', '.join(task.words) or 'continues'}"
    if task.progress is not None and _progress_text(task.progress) != _progress_text(
        before.progress if before else None
    ):
        eta = short_duration(task.progress.eta)
        words = f"task {task.id}", _progress_text(task.progress), eta and f"eta={eta}", task.progress.message
        yield " ".join(filter(None, words))


def _progress_text(progress: Progress | None) -> str:
    part = part_done(progress)
    if part is not None:
        return f"{int(part * 100)}%"
    return f"at {progress.done}" if progress is not None else ""

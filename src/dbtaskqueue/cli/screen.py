"""What the command watch shows, as functions of what was seen: a screen of lines, or on a pipe what has changed.

rich is imported where it is used, as in output.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._formats.progress import Progress, part_done
from .._system.clock import to_datetime
from ..states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, RESERVED, RUNNING
from .looks import Failure, Lane, Look, Running, Seen
from .output import harmless, in_bytes, lasted, local, styled

if TYPE_CHECKING:
    from rich.text import Text

_GAP = 2
_BAR = 8
_WIDE = 110
"""Columns from which on there is room for what is left out on a small screen."""
_TALL = 20
"""Rows from which on there are blank lines between the parts."""
_LONGEST = 500
_TROUBLE = 3
"""Lines that the words of a database in trouble may take."""
_COUNTED = (PENDING, RESERVED, RUNNING, FAILED, DONE, ABANDONED)


class Column(NamedTuple):
    """A column of a part: as wide as ``width``, or as wide as is left (None)."""

    name: str
    width: int | None = None
    right: bool = False


class Part(NamedTuple):
    """One of the four parts of the screen."""

    columns: Sequence[Column]
    rows: Sequence[tuple[str, ...]]
    nothing: str
    more: str = ""


# -- the screen ------------------------------------------------------------------------------------


def screen(
    look: Look | None, columns: int, rows: int, *, now: int, title: str = "", key: str = "q", trouble: str = ""
) -> list[Text]:
    """At most ``rows`` lines of at most ``columns`` cells.

    ``now`` in microseconds; ``key`` is the one that leaves; ``trouble`` is said on top.
    """
    from rich.text import Text

    lines = [_header(columns, title, f"{local(to_datetime(now))[11:]}  {key} quits")]
    for line in textwrap.wrap(harmless(trouble[:_LONGEST]), columns)[:_TROUBLE]:
        lines.append(_cut(Text(line, style="bold red"), columns))
    parts = [] if look is None else _parts(look, now, wide=columns >= _WIDE)
    blank = len(parts) if rows >= _TALL else 0
    rooms = shares([max(1, len(part.rows)) for part in parts], rows - len(lines) - len(parts) - blank)
    for part, room in zip(parts, rooms, strict=True):
        if blank:
            lines.append(Text())
        lines += _drawn(part, room, columns)
    return lines[:rows]


def shares(wants: Sequence[int], room: int) -> list[int]:
    """How many rows each part gets of ``room``: none more than it wants, and the small ones all that they want."""
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

    left = Text(harmless(f"dbtaskqueue {title}"[:_LONGEST]))
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
    """The cells in their columns; the one without a width gets what is left."""
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


def _parts(look: Look, now: int, *, wide: bool) -> list[Part]:
    return [_queues(look, wide), _workers(look, now), _running(look, now, wide), _failures(look, now, wide)]


def _queues(look: Look, wide: bool) -> Part:
    states = (*_COUNTED, CANCELLED) if wide else _COUNTED
    columns = (
        Column("queues"),
        *(Column(str(state), max(7, len(state)), right=True) for state in states),
        Column("waits", 6, right=True),
    )
    rows = [
        (
            f"{lane.name} (paused)" if lane.paused else lane.name,
            *(number(lane.counts[state]) for state in states),
            lasted(lane.waited),
        )
        for lane in sorted(look.queues, key=lambda lane: (-_unfinished(lane), lane.name))
    ]
    return Part(columns, rows, "no queue has tasks")


def _unfinished(lane: Lane) -> int:
    return lane.counts[PENDING] + lane.counts[RESERVED] + lane.counts[RUNNING] + lane.counts[FAILED]


def _workers(look: Look, now: int) -> Part:
    columns = (
        Column("workers", 8),
        Column("state", 6),
        Column("executor", 8),
        Column("runs", 5, right=True),
        Column("up", 6, right=True),
        Column("pid", 8, right=True),
        Column("host"),
    )
    holds = [task.worker for task in look.running]
    rows = [
        (
            str(worker.id),
            worker.state,
            worker.executor or "(fetch)",
            f"{holds.count(worker.id)}{'+' if look.more else ''}",
            lasted((now - worker.created_at) / 1e6),
            str(worker.pid),
            worker.host,
        )
        for worker in sorted(look.workers, key=_alive_first)
    ]
    return Part(columns, rows, "no workers")


def _alive_first(worker: Seen) -> tuple[int, int]:
    return ("alive", "silent", "lost").index(worker.state), worker.id if worker.state != "lost" else -worker.id


def _running(look: Look, now: int, wide: bool) -> Part:
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
    return Part(columns, [_running_row(task, now, wide) for task in look.running], "nothing runs", _at_least(look))


def _at_least(look: Look) -> str:
    return ", at least" if look.more else ""


def _running_row(task: Running, now: int, wide: bool) -> tuple[str, ...]:
    more = (_attempt(task), task.queue) if wide else ()
    message = task.progress.message if task.progress else None
    name = f"{message} · {task.what}" if message else task.what
    return (
        str(task.id),
        *more,
        lasted(None if task.started_at is None else (now - task.started_at) / 1e6),
        bar(task.progress),
        lasted(task.progress.eta if task.progress else None),
        in_bytes(task.usage.memory) if task.usage else "",
        "" if task.cpu is None else f"{min(task.cpu, 99.99):.0%}",
        f"({', '.join(task.words)}) {name}" if task.words else name,
    )


def _failures(look: Look, now: int, wide: bool) -> Part:
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
    return Part(columns, [_failure_row(failure, now, wide) for failure in look.failures], "no task stands failed")


def _failure_row(failure: Failure, now: int, wide: bool) -> tuple[str, ...]:
    soon = max(0.0, (failure.due - now) / 1e6)
    return (
        str(failure.id),
        *((failure.queue,) if wide else ()),
        failure.state,
        _attempt(failure),
        lasted((now - failure.at) / 1e6),
        lasted(soon) if failure.state == FAILED else "",
        failure.error,
    )


def _attempt(task: Running | Failure) -> str:
    return str(task.attempt) if task.max_attempts is None else f"{task.attempt}/{task.max_attempts}"


# -- words -----------------------------------------------------------------------------------------


def number(count: int) -> str:
    """A count in at most seven characters."""
    return str(count) if count < 10_000_000 else f"{count / 1e6:.0f}M"


def bar(progress: Progress | None) -> str:
    """A progress as a bar with its percentage, or as the number that it is."""
    part = part_done(progress)
    if part is not None:
        full = int(part * _BAR)
        return f"{'█' * full}{'░' * (_BAR - full)} {int(part * 100):3}%"
    if progress is not None and isinstance(progress.done, int | float):
        return f"{progress.done:.6g}"
    return ""


# -- a pipe ----------------------------------------------------------------------------------------


def changes(before: Look | None, after: Look) -> list[str]:
    """What is to be told of a look after another one, a line for each thing that has changed; harmless."""
    at = local(to_datetime(after.at))[11:]
    return [f"{at} {harmless(line[:_LONGEST])}" for line in _changes(before, after)]


def _changes(before: Look | None, after: Look) -> Iterator[str]:
    yield from _news([_told(lane) for lane in before.queues] if before else [], map(_told, after.queues))
    workers = {worker.id: worker for worker in before.workers} if before else {}
    for worker in after.workers:
        known = workers.pop(worker.id, None)
        if known is None or known.state != worker.state:
            yield f"worker {worker.id} {worker.state} executor={worker.executor or '-'} pid={worker.pid} {worker.host}"
    for gone in workers.values():
        yield f"worker {gone.id} has left"
    ran = {(task.id, task.token): task for task in before.running} if before else {}
    for ended in after.ended:
        yield f"task {ended.id} is {ended.state} queue={ended.queue} attempt={ended.attempt}"
    for task in after.running:
        yield from _told_of(ran.get((task.id, task.token)), task)
    failures = {(each.id, each.attempt, each.state) for each in before.failures} if before else set()
    for each in reversed(after.failures):
        if (each.id, each.attempt, each.state) not in failures:
            yield f"task {each.id} {each.state} queue={each.queue} attempt={_attempt(each)} {each.error}"


def _news(before: Iterable[str], after: Iterable[str]) -> Iterator[str]:
    known = set(before)
    yield from (line for line in after if line not in known)


def _told(lane: Lane) -> str:
    counts = " ".join(f"{state}={lane.counts[state]}" for state in (*_COUNTED, CANCELLED))
    return f"queue {lane.name} {counts}{' paused' if lane.paused else ''}"


def _told_of(before: Running | None, task: Running) -> Iterator[str]:
    if before is None:
        yield f"task {task.id} runs queue={task.queue} attempt={_attempt(task)} worker={task.worker} {task.what}"
    if task.words != (before.words if before else ()):
        yield f"task {task.id} {', '.join(task.words) or 'continues'}"
    if task.progress is not None and _step(task.progress) != _step(before.progress if before else None):
        eta = lasted(task.progress.eta)
        yield " ".join(
            filter(None, (f"task {task.id}", _step(task.progress), eta and f"eta={eta}", task.progress.message))
        )


def _step(progress: Progress | None) -> str:
    part = part_done(progress)
    if part is not None:
        return f"{int(part * 100)}%"
    return f"at {progress.done}" if progress is not None else ""

"""Everything about one task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from markupsafe import Markup

from ..._formats import progress as progress_format
from ..._formats import task_options
from ..._formats.limits import Limits
from ..._formats.progress import Progress, Usage, part_done, read_usage
from ..._store.contract import HAS_CHILDREN, HAS_PARENTS, AttemptRecord, SavedRecord, Summary, TaskRecord
from ..._system import clock
from ...audit import Action
from ...checkpoints import CHECKPOINT, STEP
from ...overview import FunctionStats
from ...queue import TaskQueue
from ...reasons import why
from ...states import FAILED, FINAL, PENDING, RESERVED, RUNNING
from ...task import look_up
from ..charts import Bar, timeline
from ..words import LONGEST, error_line, first, pretty, shown, span
from .sources import Sources, Worker

MOST_ATTEMPTS = 50
MOST_RELATIVES = 8
_MOST_SAVED = 50
_STEADY = 3600.0
_REASONS_EVERY = 5.0
_FAMILY_EVERY = 5.0
_ACTIONS_EVERY = 5.0
_MOST_ACTIONS = 20
_WHOLE = ("payload", "result", "error")


class Value(NamedTuple):
    """A payload, a result or an error as a page shows it. ``size``: its characters; ``is_cut``: there is more."""

    text: str
    size: int
    is_cut: bool


class Attempt(NamedTuple):
    """One start of a task. ``cpu`` in seconds, ``memory`` in bytes, ``error`` cut."""

    number: int
    token: int
    worker: int | None
    started_at: int | None
    finished_at: int | None
    outcome: str
    error: str
    trace: str
    cpu: float | None
    memory: int | None


class Saved(NamedTuple):
    """A checkpoint, or the result of a step by its ``name``."""

    name: str
    is_checkpoint: bool
    size: int
    beginning: str


class Relatives(NamedTuple):
    """Some parents or children. ``more``: there are others."""

    tasks: list[tuple[int, Summary | None]]
    more: bool


class TaskPage(NamedTuple):
    """What the page of a task shows."""

    id: int
    queue: str
    state: str
    function: str | None
    what: str
    is_command: bool
    priority: int
    key: str | None
    attempt: int
    max_attempts: int | None
    token: int
    worker: int | None
    holder: Worker | None
    suspended: bool
    cancel_requested: bool
    blocked: bool
    created_at: int
    started_at: int | None
    finished_at: int | None
    due: int
    is_due_later: bool
    expires: int | None
    limits: Limits
    schedule: str | None
    progress: Progress | None
    part: float | None
    usage: Usage | None
    cpu: float | None
    usual: FunctionStats | None
    unusual: list[str]
    reasons: list[str]
    attempts: list[Attempt]
    more_attempts: bool
    saved: list[Saved]
    parents: Relatives
    children: Relatives
    payload: Value
    result: Value | None
    error: Value | None
    error_line: str
    now: int
    actions: Sequence[Action] = ()

    @property
    def may_end(self) -> bool:
        """Whether it can be cancelled."""
        return self.state not in FINAL and not self.cancel_requested

    @property
    def may_retry(self) -> bool:
        """Whether it can be retried."""
        return self.state == FAILED or self.state in FINAL

    @property
    def waits(self) -> bool:
        """Whether it waits for a worker, its time or its parents."""
        return self.state in (PENDING, FAILED)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL


def read(sources: Sources, queue: TaskQueue, id: int, whole: str | None = None) -> TaskPage:
    """Read a task. ``whole``: what is not cut, "payload", "result" or "error". Raises TaskNotFound."""
    store, looks = queue.store, sources.looks
    record = look_up(store, id)
    now = clock.now()
    runs = record.state == RUNNING
    usage = read_usage(record.usage)
    attempts: list[AttemptRecord] = []
    if record.attempt:
        newest = partial(store.newest_attempts, id, MOST_ATTEMPTS + 1, None, outputs=False)
        attempts = looks.part(("attempts", id, record.token, record.state), newest, _STEADY)
    waits = record.state in (PENDING, FAILED)
    reasons = looks.part(("why", id), lambda: why(store, record), _REASONS_EVERY) if waits else []
    saved_every = 2.0 if runs else _STEADY
    saved = (
        []
        if not record.attempt
        else looks.part(
            ("saved", id, record.token, record.state), lambda: store.saved_briefly(id, _MOST_SAVED), saved_every
        )
    )
    no_family = Relatives([], False), Relatives([], False)
    family = looks.part(("family", id), lambda: _family(queue, record), _FAMILY_EVERY) if record.flow else no_family
    progress = progress_format.read(record.progress)
    if progress is not None and progress.message is not None:
        progress = progress._replace(message=first(str(progress.message), 500))
    held = record.worker is not None and record.state in (RESERVED, RUNNING)
    holder = next((each for each in sources.workers() if each.id == record.worker), None) if held else None
    options = task_options.decode(record.options)
    return TaskPage(
        id,
        record.queue,
        record.state,
        record.function,
        sources.what(record),
        bool(record.command),
        -record.rank,
        record.key,
        record.attempt,
        record.max_attempts,
        record.token,
        record.worker,
        holder,
        bool(record.suspended),
        bool(record.cancel_requested) and record.state == RUNNING,
        bool(record.blocked),
        record.created_at,
        record.started_at,
        record.finished_at,
        record.due,
        record.due > now,
        record.expires,
        options.limits,
        None if options.tick is None else options.tick.schedule,
        progress,
        part_done(progress),
        usage,
        sources.cpu(id, record.token, usage) if runs else None,
        sources.usual(record.queue, record.function) if record.state not in FINAL else None,
        [each.text for each in sources.unusual() if each.id == id and each.trouble in ("overdue", "stalled")],
        [reason.text for reason in reasons],
        [_attempt(each) for each in attempts[-MOST_ATTEMPTS:]],
        len(attempts) > MOST_ATTEMPTS,
        [_saved(each) for each in saved],
        *family,
        value(record.payload, whole=whole == "payload"),
        None if record.result in (None, "null") else value(record.result, whole=whole == "result"),
        _error(record.error, whole=whole == "error") if record.error else None,
        error_line(record.error),
        now - now % 2_000_000 if runs else 0,
        looks.part(("actions", id), lambda: queue.audit(task=id, limit=_MOST_ACTIONS), _ACTIONS_EVERY),
    )


def chart(page: TaskPage) -> Markup:
    """Return the attempts of a task on a timeline."""
    now = clock.now()
    started = [each for each in page.attempts if each.started_at is not None]
    start = min([page.created_at, *(each.started_at or now for each in started)])
    if page.more_attempts and started:
        start = started[0].started_at or start
    end = max(
        [page.finished_at or 0, now if page.state not in FINAL else 0, *(each.finished_at or 0 for each in started)]
    )
    end = max(end, start + 1_000_000)
    bars = []
    for each in started:
        stop = each.finished_at or now
        took = span(max(0, stop - (each.started_at or stop)) / 1e6)
        kind = "suspended" if each.outcome == "running" and page.suspended else each.outcome
        title = f"Attempt {each.number}: {kind}, {took}"
        bars.append(Bar(each.started_at or stop, stop, kind, str(each.number), title))
    return timeline(f"Timeline of task {page.id}", bars, start, end)


def value(text: str | None, *, whole: bool = False) -> Value:
    """Return a value as a page shows it, cut unless ``whole``."""
    text = text or ""
    is_cut = len(text) > LONGEST and not whole
    return Value(pretty(text[:LONGEST]) if is_cut else pretty(text), len(text), is_cut)


def _error(text: str, *, whole: bool) -> Value:
    """Return an error, of which the end says most."""
    is_cut = len(text) > LONGEST and not whole
    return Value(shown(text[-LONGEST:] if is_cut else text), len(text), is_cut)


def _attempt(record: AttemptRecord) -> Attempt:
    return Attempt(
        record.number,
        record.token,
        record.worker,
        record.started_at,
        record.finished_at,
        record.outcome or "running",
        error_line(record.error),
        (record.error or "")[-LONGEST:],
        None if record.cpu is None else record.cpu / 1e6,
        record.memory,
    )


def _saved(record: SavedRecord) -> Saved:
    is_checkpoint = record.name == CHECKPOINT
    return Saved(record.name.removeprefix(STEP), is_checkpoint, record.size, first(record.beginning))


def _family(queue: TaskQueue, record: TaskRecord) -> tuple[Relatives, Relatives]:
    store, most = queue.store, MOST_RELATIVES + 1
    parents = [edge.parent for edge in store.parents(record.id, most)] if record.flow & HAS_PARENTS else []
    children = [edge.child for edge in store.children(record.id, 0, most)] if record.flow & HAS_CHILDREN else []
    known = store.summaries([*parents, *children]) if parents or children else {}
    return _relatives(parents, known), _relatives(children, known)


def _relatives(ids: list[int], known: dict[int, Summary]) -> Relatives:
    return Relatives([(id, known.get(id)) for id in ids[:MOST_RELATIVES]], len(ids) > MOST_RELATIVES)

"""What programs may read. Names are those of ``show --json`` and of the public records.

What counts is shared by all who ask at the same time, and read at most a fifth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.responses import Response

from ..._formats import words
from ..._formats.filters import SORTS, parse
from ..._formats.output import output_after
from ..._system import clock
from ...errors import StoreUnavailable, TaskNotFound
from ...finding import find_tasks
from ...history import history as read_history
from ...monitoring.probe import problems
from ...overdue import unusual
from ...overview import LATEST, QueueInfo, summarize
from ...schedules import as_schedule
from ...states import UNFINISHED
from ...task import attempts_of, blocked_among, look_up
from ..auth import Refused
from ..call import Call
from ..data import others
from ..data.overview import read as read_overview
from ..params import BadQuery
from . import shapes

T = TypeVar("T")

_YEAR = 366 * 86400.0
MOST_TASKS = 200
"""The most tasks of one answer."""


def me(call: Call) -> Response:
    """Return who makes the request: a name, a role, and a token for forms."""
    call.query.done()
    return call.json({"name": call.user.name, "role": call.user.role, "csrf": call.csrf})


def overview(call: Call) -> Response:
    """Return what needs someone, counts, and what runs, failed and waits."""
    call.query.done()
    sources = call.dashboard.sources
    page = read_overview(sources)
    queues = [] if page.queues is None else _queues(call)
    return call.json(
        {
            "at": datetime.now(UTC),
            "needs": [shapes.need(each) for each in page.needs],
            "totals": page.totals,
            "queues": [queue._asdict() for queue in queues],
            "running": [shapes.running(each, call.dashboard.hidden) for each in page.running],
            "more_running": page.more_running,
            "failures": [shapes.failure(each) for each in page.failures],
            "workers": [shapes.worker(each) for each in sources.workers()],
            "schedules": [as_schedule(record)._asdict() for record in page.schedules],
        }
    )


def queues(call: Call) -> Response:
    """Return all queues, each with what ``stats`` counts."""
    call.query.done()
    return call.json({"queues": [queue._asdict() for queue in _queues(call)]})


def functions(call: Call) -> Response:
    """Return statistics of the task functions, of all queues or of one, over their latest attempts."""
    queue = call.query.text("queue")
    call.query.done()
    names = call.queue.store.queues() if queue is None else [queue]

    def read() -> list[dict[str, Any]]:
        most = max(100, LATEST // max(1, len(names)))
        found = [(name, summarize(call.queue.store.ended(name, most))) for name in names]
        return [{"queue": name, **each._asdict()} for name, stats in found for each in stats]

    return call.json({"functions": _shared(call, ("api functions", tuple(names)), read)})


def workers(call: Call) -> Response:
    """Return the live workers, and those lost within the last day."""
    call.query.done()
    found = _shared(call, "api workers", call.queue.workers)
    return call.json({"workers": [worker._asdict() for worker in found]})


def schedules(call: Call) -> Response:
    """Return the schedules of all queues, or of one."""
    queue = call.query.text("queue")
    call.query.done()
    return call.json({"schedules": [as_schedule(record)._asdict() for record in call.queue.store.schedules(queue)]})


def history(call: Call) -> Response:
    """Return what attempts did and how queues were, as a point for each step of time."""
    queue, function = call.query.text("queue"), call.query.text("function")
    since, step = call.query.text("since", "24h"), call.query.text("step", "10m")
    call.query.done()
    try:
        points = read_history(call.queue.store, queue, function, since, step)
    except ValueError as error:
        raise BadQuery(str(error)) from None
    return call.json({"history": [point._asdict() for point in points]})


def overdue(call: Call) -> Response:
    """Return running tasks that may need someone: overdue, stalled, suspended, or being cancelled."""
    call.query.done()
    found = _shared(call, "api overdue", lambda: unusual(call.queue.store))
    return call.json({"overdue": [task._asdict() for task in found]})


def quotas(call: Call) -> Response:
    """Return the quotas: none yet."""
    call.query.done()
    return call.json({"quotas": []})


def doctor(call: Call) -> Response:
    """Return what ``doctor --json`` prints, checked at most once a minute."""
    call.query.done()
    found = others.findings(call.dashboard.sources, call.queue)
    if found is None:
        raise StoreUnavailable("the database is being checked; ask again")
    findings = [dict(zip(("name", "value", "advice", "broken"), each, strict=True)) for each in found]
    return call.json({"broken": any(each["broken"] for each in findings), "findings": findings})


def _queues(call: Call) -> list[QueueInfo]:
    return _shared(call, "api queues", call.queue.queues)


def _shared(call: Call, key: Hashable, read: Callable[[], T]) -> T:
    """Return what may take long to read: just read, unless that would take more than a fifth of the time."""
    look = call.dashboard.looks.look(key, read, 0.0)
    if look.is_old:
        raise StoreUnavailable("the database does not answer")
    return look.value


# -- tasks -----------------------------------------------------------------------------------------


def tasks(call: Call) -> Response:
    """Return tasks that match filters, and how far the search has come."""
    query, store = call.query, call.queue.store
    sort = query.choice("sort", SORTS, "newest")
    limit = query.number("limit", 100, least=1, most=MOST_TASKS)
    cursor = query.text("cursor")
    call.refuse_hidden(name for name, _ in query.others())
    try:
        filters = parse(words.from_pairs(query.others()), clock.now())
        found = find_tasks(store, filters, sort=sort, limit=limit, cursor=cursor)
    except ValueError as error:
        raise BadQuery(str(error)) from None
    waiting = blocked_among(store, [task.id for task in found.tasks if task.state in UNFINISHED])
    listed = [shapes.listed(task, waiting.get(task.id), call.dashboard.hidden) for task in found.tasks]
    return call.json({**found._asdict(), "tasks": listed})


def task(call: Call) -> Response:
    """Return everything about a task, as ``show --json`` prints it."""
    call.query.done()
    store = call.queue.store
    return call.json(shapes.whole(store, look_up(store, call.id), call.dashboard.hidden))


def output(call: Call) -> Response:
    """Return the output of an attempt after a position in bytes."""
    token, after = call.query.number("attempt"), call.query.number("after", 0)
    call.query.done()
    store = call.queue.store
    look_up(store, call.id)
    found = attempts_of(store, call.id, token or 0)
    attempt = next((each for each in reversed(found) if token in (None, each.token)), None)
    if attempt is None and token is not None:
        raise TaskNotFound(f"task {call.id} has no attempt with the token {token}")
    ended = attempt is None or attempt.outcome is not None
    text = "" if attempt is None or "output" in call.dashboard.hidden else attempt.output or ""
    return call.json({**output_after(text, after, ended=ended)._asdict(), "ended": ended})


# -- for monitoring --------------------------------------------------------------------------------


def health_queues(call: Call) -> Response:
    """Return whether tasks wait too long or workers are missing, with a line for each problem: 200 or 503."""
    most = call.query.seconds("max_wait", 900.0, most=_YEAR)
    fewest = call.query.number("min_workers", 1, most=1_000_000)
    queue = call.query.text("queue")
    call.query.done()
    found = _shared(call, ("health", most, fewest, queue), lambda: problems(call.queue.store, most, fewest, queue))
    return call.json({"healthy": not found, "problems": found}, 503 if found else 200)


def metrics(call: Call) -> Response:
    """Return metrics for Prometheus, as text or OpenMetrics, counted in the background."""
    call.query.done()
    try:
        cache = call.dashboard.metrics
    except ModuleNotFoundError:
        raise Refused(501, "install metrics with: pip install 'dbtaskqueue[metrics]'") from None
    content, kind = cache.render(call.request.headers.get("accept"))
    return Response(content, headers={"content-type": kind})

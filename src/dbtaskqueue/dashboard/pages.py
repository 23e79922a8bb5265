"""The pages: what a query string asks for, what the database says about it, and the template that shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from starlette.responses import Response

from .._formats import words
from .._formats.filters import SORTS
from .._formats.output import output_after
from ..checks import check_queue
from ..states import TaskState
from .call import Call
from .data import others, trends
from .data import overview as overview_data
from .data import task as task_data
from .data import tasks as tasks_data
from .data.overview import Overview
from .data.task import TaskPage
from .looks import EVERY, Look
from .params import BadQuery
from .rendering import THEMES

T = TypeVar("T")
_YEAR = 365 * 86400


def live(
    call: Call,
    template: str,
    key: Hashable,
    read: Callable[[], T],
    every: float = EVERY,
    more: Callable[[T, bool], dict[str, Any]] | None = None,
) -> Response:
    """Return a page, or with ``?part=1`` its main part, or 304 if the browser has that already.

    ``key`` and ``read``: the subject of the page, see Looks. The template gets what ``read`` returns as ``page``, and
    what ``more`` makes of it; that is told whether only the main part is wanted.
    """
    is_part = call.query.choice("part", ("1",)) is not None
    call.query.done()
    look = call.dashboard.looks.look(key, read, every)
    etag = _etag(call, look)
    headers = {"etag": f'"{etag}"'}
    if is_part and call.request.headers.get("if-none-match") == f'"{etag}"':
        return Response(status_code=304, headers=headers)
    values = {"page": look.value, "look": look, "etag": etag, "layout": "part.html" if is_part else "base.html"}
    return call.page(template, 200, headers, **values, **(more(look.value, is_part) if more else {}))


def _etag(call: Call, look: Look[Any]) -> str:
    """Return what names a version of a page: that of the look, who looks, and what was asked."""
    pairs = [pair for pair in call.query.pairs if pair[0] != "part"]
    seen = f"{look.version} {look.is_old} {call.user} {call.path} {pairs} {call.seed}"
    return hashlib.sha256(seen.encode("utf-8", "replace")).hexdigest()[:20]


# -- the overview and tasks ------------------------------------------------------------------------


def overview(call: Call) -> Response:
    """Show what needs someone, and what happens."""
    sources = call.dashboard.sources

    def more(page: Overview, is_part: bool) -> dict[str, Any]:
        return {"trend": trends.ended(page.trend, "1h", 72) if page.trend else None}

    return live(call, "overview.html", "overview", lambda: overview_data.read(sources), more=more)


def tasks(call: Call) -> Response:
    """Show the tasks that match filters."""
    query, queue, sources = call.query, call.queue, call.dashboard.sources
    box = query.text("q")
    sort = query.choice("sort", SORTS, "newest")
    limit = query.number("limit", tasks_data.LIMITS[0], least=1, most=tasks_data.LIMITS[-1])
    cursor = query.text("cursor")
    pairs = [pair for pair in query.others() if pair[1]]
    call.refuse_hidden(name for name, _ in pairs)
    try:
        if box is not None:
            return _from_box(call, box, pairs)
        for name, _ in query.others():  # also those without a value, which a form sends for each empty field
            query.many(name)
        search = tasks_data.search_of(pairs, sort, limit, cursor)
        key = ("tasks", tuple(search.pairs), sort, limit, cursor)
        return live(
            call,
            "tasks.html",
            key,
            lambda: tasks_data.read(sources, queue, search),
            more=lambda page, is_part: _about_tasks(call, search),
        )
    except BadQuery:
        raise
    except ValueError as error:
        raise BadQuery(str(error)) from None


def _from_box(call: Call, box: str, pairs: list[tuple[str, str]]) -> Response:
    """Turn what was typed into a URL: the page of a task for its id, else filters."""
    box = box.strip()
    if box.isascii() and box.isdigit() and len(box) < 19 and call.queue.store.standings([int(box)]):
        return call.redirect(f"/tasks/{int(box)}")
    where = words.from_text(box)
    for name, value in pairs:
        where.setdefault(name, []).append(value)
    return call.redirect("/tasks", **where)


def _about_tasks(call: Call, search: tasks_data.Search) -> dict[str, Any]:
    return {
        "search": search,
        "words": search.words,
        "sorts": SORTS,
        "states": list(TaskState),
        "tabs": tasks_data.TABS,
        "queues": call.dashboard.sources.names(),
        "more_of": _url_of(call, search),
    }


def _url_of(call: Call, search: tasks_data.Search) -> Callable[..., str]:
    """Return a function that makes the URL of the same list with other filters, or of another page of it."""

    def url(pairs: list[tuple[str, str]] | None = None, cursor: str | None = None) -> str:
        where: dict[str, object] = {}
        for name, value in search.pairs if pairs is None else pairs:
            where.setdefault(name, []).append(value)  # type: ignore[attr-defined]
        if search.sort != "newest":
            where["sort"] = search.sort
        if search.limit != tasks_data.LIMITS[0]:
            where["limit"] = search.limit
        return call.url("/tasks", **where, cursor=cursor)

    return url


def task(call: Call) -> Response:
    """Show everything about one task."""
    id = call.id
    whole = call.query.choice("whole", ("payload", "result", "error"))
    token = call.query.number("attempt")
    sources, queue = call.dashboard.sources, call.queue

    def more(page: TaskPage, is_part: bool) -> dict[str, Any]:
        last = page.attempts[-1] if page.attempts else None
        attempt = next((each for each in page.attempts if each.token == token), last)
        output = None
        if attempt is not None and not is_part and "output" not in call.dashboard.hidden:
            text = queue.store.output(id, attempt.token) or ""
            output = output_after(text, 0, ended=attempt.outcome != "running")
        return {"shown_attempt": attempt, "output": output, "chart": task_data.chart(page) if page.attempts else ""}

    return live(call, "task.html", ("task", id, whole), lambda: task_data.read(sources, queue, id, whole), more=more)


# -- queues, functions, schedules, workers ---------------------------------------------------------


def queues(call: Call) -> Response:
    """Show all queues."""
    return live(call, "queues.html", "queues", call.dashboard.sources.queues)


def queue(call: Call) -> Response:
    """Show one queue."""
    name, sources, own = call.query.name(), call.dashboard.sources, call.queue
    try:
        check_queue(name)
    except ValueError as error:
        raise BadQuery(str(error)) from None
    since = _range(call)

    def more(page: others.QueuePage, is_part: bool) -> dict[str, Any]:
        found = page.trend or []
        charts = [make(found, since) for make in (trends.ended, trends.depth, trends.waits)]
        return {"since": since, "ranges": trends.RANGES, "trends": charts}

    read = partial(others.queue_page, sources, own, name, since)
    return live(call, "queue.html", ("queue", name, since), read, more=more)


def _range(call: Call) -> str:
    """Return the range of the charts."""
    return call.query.choice("since", trends.RANGES, "24h")


def functions(call: Call) -> Response:
    """Show all task functions."""
    sources = call.dashboard.sources
    return live(call, "functions.html", "functions", lambda: others.functions(sources))


def function(call: Call) -> Response:
    """Show one task function."""
    name, sources, own = call.query.name(), call.dashboard.sources, call.queue
    since = _range(call)

    def more(page: others.FunctionPage, is_part: bool) -> dict[str, Any]:
        found = page.trend or []
        return {
            "since": since,
            "ranges": trends.RANGES,
            "trends": [trends.ended(found, since), trends.runs(found, since)],
        }

    read = partial(others.function_page, sources, own, name, since)
    return live(call, "function.html", ("function", name, since), read, more=more)


def schedules(call: Call) -> Response:
    """Show all schedules."""
    return live(call, "schedules.html", "all schedules", call.dashboard.sources.schedules)


def schedule(call: Call) -> Response:
    """Show one schedule."""
    own, name, queue = call.queue, call.query.name(), call.query.name("queue")
    return live(call, "schedule.html", ("schedule", queue, name), lambda: others.schedule_page(own, queue, name))


def workers(call: Call) -> Response:
    """Show the live workers, and those lost within the last day."""
    return live(call, "workers.html", "all workers", call.dashboard.sources.workers)


def worker(call: Call) -> Response:
    """Show one worker."""
    sources, id = call.dashboard.sources, call.id
    return live(call, "worker.html", ("worker", id), lambda: others.worker_page(sources, id))


def overdue(call: Call) -> Response:
    """Show tasks that take too long, each with the next thing to do."""
    sources = call.dashboard.sources
    return live(call, "overdue.html", "overdue", lambda: others.late(sources))


def quotas(call: Call) -> Response:
    """Show quotas."""
    return live(call, "quotas.html", "quotas", list)


# -- the rest --------------------------------------------------------------------------------------


def doctor(call: Call) -> Response:
    """Show what ``dbtaskqueue doctor`` finds."""
    sources, own = call.dashboard.sources, call.queue
    return live(call, "doctor.html", "doctor page", lambda: others.findings(sources, own))


def settings(call: Call) -> Response:
    """Show what a browser can choose for itself; with ``theme`` or ``keys``, keep that in a cookie."""
    theme, keys = call.query.choice("theme", THEMES), call.query.choice("keys", ("on", "off"))
    call.query.done()
    if theme is None and keys is None:
        return call.page("settings.html")
    response = call.redirect("/settings")
    for name, value in (("dbtaskqueue_theme", theme), ("dbtaskqueue_keys", keys)):
        if value is not None:
            call.set_cookie(response, name, value, _YEAR)
    return response

"""The pages: what a query string asks for, what the database says about it, and the template that shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from starlette.responses import Response

from .._formats.output import output_after
from .call import Call
from .data import overview as overview_data
from .data import task as task_data
from .data.task import TaskPage
from .looks import EVERY, Look

T = TypeVar("T")


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
    seen = f"{look.version} {look.is_old} {call.user} {call.here} {call.request.headers.get('cookie', '')}"
    return hashlib.sha256(seen.encode()).hexdigest()[:20]


def overview(call: Call) -> Response:
    """Show what needs somebody, and what happens."""
    sources = call.dashboard.sources
    return live(call, "overview.html", "overview", lambda: overview_data.read(sources))


def task(call: Call) -> Response:
    """Show everything about one task."""
    id = call.id
    whole = call.query.choice("whole", ("payload", "result", "error"))
    token = call.query.number("attempt")
    sources, queue = call.dashboard.sources, call.queue

    def more(page: TaskPage, is_part: bool) -> dict[str, Any]:
        attempt = next((each for each in page.attempts if each.token == token), page.attempts[-1] if page.attempts else None)
        output = None
        if attempt is not None and not is_part and "output" not in call.dashboard.hidden:
            text = queue.store.output(id, attempt.token) or ""
            output = output_after(text, 0, ended=attempt.outcome != "running")
        return {"shown_attempt": attempt, "output": output, "chart": task_data.chart(page) if page.attempts else ""}

    return live(call, "task.html", ("task", id, whole), lambda: task_data.read(sources, queue, id, whole), more=more)


def _placeholder(call: Call) -> Response:
    return call.page("placeholder.html")


tasks = queues = queue = functions = function = schedules = schedule = quotas = overdue = _placeholder
workers = worker = operations = operation = audit = doctor = settings = enqueue = confirm = _placeholder

"""The pages: what a query string asks for, what the database says about it, and the template that shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from starlette.responses import Response

from .call import Call
from .data import overview as overview_data
from .looks import EVERY, Look

T = TypeVar("T")


def live(call: Call, template: str, key: Hashable, read: Callable[[], T], every: float = EVERY, **more: Any) -> Response:
    """Return a page, or with ``?part=1`` its main part, or 304 if the browser has that already.

    ``key`` and ``read``: the subject of the page, see Looks. The template gets what ``read`` returns as ``page``.
    """
    is_part = call.query.choice("part", ("1",)) is not None
    call.query.done()
    look = call.dashboard.looks.look(key, read, every)
    etag = _etag(call, look)
    headers = {"etag": f'"{etag}"'}
    if is_part and call.request.headers.get("if-none-match") == f'"{etag}"':
        return Response(status_code=304, headers=headers)
    values = {"page": look.value, "look": look, "etag": etag, "layout": "part.html" if is_part else "base.html"}
    return call.page(template, 200, headers, **values, **more)


def _etag(call: Call, look: Look[Any]) -> str:
    seen = f"{look.version} {look.is_old} {call.user} {call.here} {call.request.headers.get('cookie', '')}"
    return hashlib.sha256(seen.encode()).hexdigest()[:20]


def overview(call: Call) -> Response:
    """Show what needs somebody, and what happens."""
    sources = call.dashboard.sources
    return live(call, "overview.html", "overview", lambda: overview_data.read(sources))


def _placeholder(call: Call) -> Response:
    return call.page("placeholder.html")


tasks = task = queues = queue = functions = function = schedules = schedule = quotas = overdue = _placeholder
workers = worker = operations = operation = audit = doctor = settings = enqueue = confirm = _placeholder

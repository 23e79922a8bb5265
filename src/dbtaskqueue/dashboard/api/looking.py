"""What programs may read. Names are those of ``show --json`` and of the public records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from ..._formats.output import output_after
from ...errors import TaskNotFound
from ...monitoring.tasks import details
from ...schedules import as_schedule
from ...task import attempts_of, look_up
from ..auth import Refused
from ..call import Call


def me(call: Call) -> Response:
    """Who makes the request: a name, a role, and a token for forms."""
    call.query.done()
    return call.json({"name": call.user.name, "role": call.user.role, "csrf": call.csrf})


def queues(call: Call) -> Response:
    """All queues, each with what ``stats`` counts."""
    call.query.done()
    return call.json({"queues": [queue._asdict() for queue in call.queue.queues()]})


def workers(call: Call) -> Response:
    """The live workers, and those lost within the last day."""
    call.query.done()
    return call.json({"workers": [worker._asdict() for worker in call.queue.workers()]})


def schedules(call: Call) -> Response:
    """The schedules of all queues, or of one."""
    queue = call.query.text("queue")
    call.query.done()
    return call.json({"schedules": [as_schedule(record)._asdict() for record in call.queue.store.schedules(queue)]})


def task(call: Call) -> Response:
    """Everything about a task, as ``show --json`` prints it."""
    call.query.done()
    store = call.queue.store
    return call.json(without_hidden(call, details(store, look_up(store, call.id))))


def output(call: Call) -> Response:
    """The output of an attempt after a position in bytes."""
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


def without_hidden(call: Call, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task without what this dashboard never shows."""
    hidden = call.dashboard.hidden
    plain: dict[str, Any] = {name: None if name in hidden else value for name, value in found.items()}
    if "output" in hidden and "attempts" in plain:
        plain["attempts"] = [{**attempt, "output": None} for attempt in plain["attempts"]]
    return plain


def _not_yet(call: Call) -> Response:
    raise Refused(501, "not built yet")


overview = functions = tasks = quotas = history = overdue = _not_yet
audit = doctor = operations = operation = health_queues = metrics = _not_yet

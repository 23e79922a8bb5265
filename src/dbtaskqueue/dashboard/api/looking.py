"""What programs may read."""

from __future__ import annotations

from starlette.responses import Response

from ..auth import Refused
from ..call import Call


def me(call: Call) -> Response:
    """Return who makes the request, and a token for forms."""
    call.query.done()
    return call.json({"name": call.user.name, "role": call.user.role, "csrf": call.csrf})


def _not_yet(call: Call) -> Response:
    raise Refused(501, "not built yet")


overview = queues = functions = workers = tasks = task = output = schedules = quotas = history = overdue = _not_yet
audit = doctor = operations = operation = health_queues = metrics = _not_yet

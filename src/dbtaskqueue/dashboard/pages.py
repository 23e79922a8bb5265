"""The pages."""

from __future__ import annotations

from starlette.responses import Response

from .call import Call


def _placeholder(call: Call) -> Response:
    return call.page("placeholder.html")


overview = tasks = task = queues = queue = functions = function = schedules = schedule = quotas = overdue = _placeholder
workers = worker = operations = operation = audit = doctor = settings = enqueue = confirm = _placeholder

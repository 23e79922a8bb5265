"""The pages and the API about what operators have done: the audit log, and operations."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from .call import Call
from .data import trail
from .pages import live

_MOST = 1000
_BIGGEST = 2**62


def _before(call: Call) -> int | None:
    return call.query.number("before", least=1, most=_BIGGEST)


def _wanted(call: Call) -> dict[str, Any]:
    """Return the values that rows of the audit log must have. A form sends empty ones for those that are not."""
    found: dict[str, Any] = {name: call.query.text(name) for name in ("who", "verb", "queue", "task")}
    if found["task"]:
        found["task"] = call.query.number("task", least=1, most=_BIGGEST)
    return {name: value for name, value in found.items() if value}


# -- the API ---------------------------------------------------------------------------------------


def api_audit(call: Call) -> Response:
    """The audit log, newest first: the next ``limit`` rows with ids below ``before``."""
    wanted, before = _wanted(call), _before(call)
    limit = call.query.number("limit", trail.PAGE, least=1, most=_MOST)
    call.query.done()
    page = trail.actions(call.queue, wanted, before, limit)
    return call.json({"audit": [row._asdict() for row in page.rows], "next": page.next})


def api_operations(call: Call) -> Response:
    """The operations, newest first: the next ``limit`` with ids below ``before``."""
    before, limit = _before(call), call.query.number("limit", trail.PAGE, least=1, most=_MOST)
    call.query.done()
    page = trail.operations(call.queue.store, before, limit)
    return call.json({"operations": [row._asdict() for row in page.rows], "next": page.next})


def api_operation(call: Call) -> Response:
    """An operation."""
    call.query.done()
    return call.json(trail.value(call.queue.store, call.id))


# -- pages -----------------------------------------------------------------------------------------


def audit(call: Call) -> Response:
    """Show the audit log."""
    queue, wanted, before = call.queue, _wanted(call), _before(call)
    key = ("audit", tuple(wanted.items()), before)
    return live(
        call,
        "audit.html",
        key,
        lambda: trail.actions(queue, wanted, before),
        more=lambda page, is_part: {"wanted": wanted, "before": before},
    )


def operations(call: Call) -> Response:
    """Show the operations."""
    store, before = call.queue.store, _before(call)
    return live(
        call,
        "operations.html",
        ("operations", before),
        lambda: trail.operations(store, before),
        more=lambda page, is_part: {"before": before},
    )


def operation(call: Call) -> Response:
    """Show an operation."""
    store, id = call.queue.store, call.id
    return live(call, "operation.html", ("operation", id), lambda: trail.operation(store, id))

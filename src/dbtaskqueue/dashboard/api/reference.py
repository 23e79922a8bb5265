"""The description of the API for programs: ``openapi.json``, made of the table of routes."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ... import __version__
from ..._formats.filters import NAMES, SORTS
from ..auth import ROLES
from ..call import Call

if TYPE_CHECKING:
    from ..routes import Way

_PREFIX = "/api/v1"
_TEXT, _NUMBER = {"type": "string"}, {"type": "integer", "minimum": 0}
_FIND: dict[str, dict[str, Any]] = {
    **{name: _TEXT for name in NAMES if name.isidentifier()},
    "sort": {"type": "string", "enum": list(SORTS)},
    "limit": {"type": "integer", "minimum": 1, "maximum": 200},
    "cursor": _TEXT,
}
_QUERIES: dict[str, dict[str, dict[str, Any]]] = {
    "GET /tasks": _FIND,
    "GET /tasks/{id}/output": {"attempt": _NUMBER, "after": _NUMBER},
    "GET /functions": {"queue": _TEXT},
    "GET /schedules": {"queue": _TEXT},
    "GET /history": {"queue": _TEXT, "function": _TEXT, "since": _TEXT, "step": _TEXT},
    **{f"POST /queue/{verb}": {"name": _TEXT} for verb in ("pause", "resume", "purge", "prune", "retention")},
    **{f"POST /schedule/{verb}": {"queue": _TEXT, "name": _TEXT} for verb in ("run", "pause", "resume")},
    "POST /quota": {"name": _TEXT},
}
_ANY: dict[str, Any] = {}
_SECONDS = {"type": ["number", "string"]}
"""A number of seconds, or a text such as 30d."""
_BODIES: dict[str, dict[str, dict[str, Any]]] = {
    "POST /tasks": {
        "queue": _TEXT,
        "payload": _ANY,
        "function": _TEXT,
        "args": {"type": "array"},
        "kwargs": {"type": "object"},
        "priority": {"type": "integer"},
        "start_in": _SECONDS,
        "max_attempts": {"type": ["integer", "null"], "minimum": 1},
        "key": {"type": ["string", "null"]},
    },
    "POST /tasks/{id}/cancel": {"running": {"type": "boolean"}},
    "POST /tasks/{id}/reschedule": {"start_in": _SECONDS, "priority": {"type": "integer"}, "queue": _TEXT},
    "POST /operations": {
        "verb": {"enum": ["cancel", "retry", "reschedule", "delete"]},
        "where": {"type": "object"},
        "spread": _SECONDS,
        "start_in": _SECONDS,
        "priority": {"type": "integer"},
        "queue": _TEXT,
    },
    "POST /queue/prune": {"older_than": _SECONDS, "states": {"type": "array", "items": _TEXT}},
    "POST /queue/retention": {
        **{state: {"type": ["number", "string", "null"]} for state in ("done", "cancelled", "abandoned")},
        "most": {"type": ["integer", "null"]},
    },
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
}
_REFUSED = {"400": "query", "401": "no one has signed in", "403": "role, or a form of another site", "429": "throttled"}
_REFUSED |= {"503": "the database is unavailable"}
_WRITES = {"409": "the state does not allow it", "413": "too large", "415": "kind of body", "422": "body"}


def openapi(call: Call) -> Response:
    """Return the description."""
    from ..routes import table

    call.query.done()
    found = _described(tuple(way for way in table() if way.is_api))
    return call.json({**found, "servers": [{"url": call.url(_PREFIX)}]})


@cache
def _described(ways: tuple[Way, ...]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for way in ways:
        paths.setdefault(way.path.removeprefix(_PREFIX), {})[way.method.lower()] = _operation(way)
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "dbtaskqueue_session"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "dbtaskqueue", "version": __version__, "description": _ABOUT},
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": paths,
        "components": {"securitySchemes": schemes, "schemas": {"Problem": _PROBLEM}},
    }


_ABOUT = (
    "A problem is answered with RFC 9457 problem details. With a cookie in place of a bearer token, a POST needs the"
    f" header X-CSRF-Token with `csrf` of `me`, and our Origin. Roles, each with the rights of those before it:"
    f" {', '.join(ROLES)}."
)


def _operation(way: Way) -> dict[str, Any]:
    path = way.path.removeprefix(_PREFIX)
    name = f"{way.method} {path}"
    refused = _REFUSED | ({"404": "there is no such thing"} if "{" in path else {})
    refused |= _WRITES if way.method == "POST" else {}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", name).strip("_").lower(),
        "summary": (way.handler.__doc__ or name).strip().splitlines()[0],
        "description": f"Needs the role {way.role}.",
        "parameters": _parameters(path, _QUERIES.get(name, {})),
        "responses": {
            "2XX": {"description": "done", "content": {"application/json": {}}},
            **{code: {"description": why, "content": problem} for code, why in sorted(refused.items())},
        },
    }
    if way.method == "POST":
        schema = {"type": "object", "properties": _BODIES.get(name, {})}
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _parameters(path: str, query: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": name, "in": "query", "schema": schema} for name, schema in query.items()]
    if "{id}" in path:
        found.insert(0, {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}})
    return found

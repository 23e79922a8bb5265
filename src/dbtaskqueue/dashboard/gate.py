"""The one gate that every request passes, before anything else sees it.

It checks the Host header, finds the route, asks who makes the request and whether this role may do that, checks that a
form was ours, reads the body within bounds, and gives every answer its headers, also those that refuse.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from .._formats.payload import MAX_BYTES
from ..queue import TaskQueue
from .auth import NOBODY, Identity, Refused, User, may
from .bodies import read_form
from .call import Call, as_json
from .csrf import check_origin, check_token, new_seed
from .errors import Refusal, refusal_of
from .hosts import Hosts
from .params import Form, Query
from .routes import OPEN, Way, table
from .timing import Timing

if TYPE_CHECKING:
    from .app import Dashboard

_log = logging.getLogger("dbtaskqueue.dashboard")
_LONGEST_PATH = 512
_CSRF_COOKIE = "dbtaskqueue_csrf"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-store",
}
"""Headers of every answer. A handler may choose another ``cache-control``."""


class Gate:
    """The ASGI application behind ``Dashboard``: the gate, and the routes behind it."""

    def __init__(self, dashboard: Dashboard, allowed_hosts: Collection[str]) -> None:
        self._dashboard = dashboard
        self._hosts = Hosts(allowed_hosts)
        self._routes = [(way, Route(way.path.replace("{id}", "{id:int}"), _unused)) for way in table()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(Request(scope, receive), send)

    async def _answer(self, request: Request, send: Send) -> None:
        timing = Timing()
        call = Call(self._dashboard, request, NOBODY, "", Query(""))
        try:
            response = await self._pass(request, call, timing)
        except Exception as error:
            response = await run_in_threadpool(timing.of, partial(self._refuse, call), error)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["server-timing"] = timing.header
        await response(request.scope, request.receive, send)

    def _refuse(self, call: Call, error: Exception) -> Response:
        """Return the answer for an error: problem details for programs, a page for people."""
        refusal = refusal_of(error, writes=call.request.method not in ("GET", "HEAD"))
        if refusal.status == 500:
            _log.error("%s %r failed", call.request.method, call.path, exc_info=error)
        headers = {name: value for name, value in refusal.headers.items() if _is_safe(value)}
        title = refusal.title
        if call.path.startswith("/api/"):
            problem = {"type": refusal.name, "title": title, "status": refusal.status, "detail": refusal.reason}
            return Response(as_json(problem), refusal.status, headers, "application/problem+json")
        if call.path.startswith(("/static/", "/health/", "/metrics")):
            return PlainTextResponse(f"{refusal.reason}\n", refusal.status, headers)
        try:
            return self._error_page(call, refusal, headers)
        except Exception:
            _log.exception("the page of an error failed")
            return PlainTextResponse(f"{title}\n", refusal.status, headers)

    def _error_page(self, call: Call, refusal: Refusal, headers: Mapping[str, str]) -> Response:
        if refusal.status == 401:
            response = self._dashboard.way_in_page(call, 401, refusal.reason, wanted=call.here)
            response.headers.update(headers)
            return response
        polls = "none" if refusal.status == 503 else ""  # the page comes back by itself with the database
        more = {"title": refusal.title, "detail": refusal.reason, "etag": polls}
        return call.page("error.html", refusal.status, headers, **more)

    async def _pass(self, request: Request, call: Call, timing: Timing) -> Response:
        self._hosts.check(request)
        if not call.path:  # the path of a mount, without a slash
            return call.redirect("/")
        if len(call.path) > _LONGEST_PATH:
            raise Refused(404, "there is no such page")
        way, parameters, allowed = self._find(request.scope)
        request.scope["path_params"] = parameters
        call.query = Query(request.scope["query_string"].decode("latin-1"))
        if way is not None and way.role is OPEN:
            return await self._run(way, call, timing, None)
        identity = await self._dashboard.way_in.identify(request)
        if identity is None:
            raise Refused(401, "sign in first", www_authenticate="Bearer")
        if self._dashboard.read_only:
            identity = identity._replace(user=identity.user._replace(role="look"))
        call.know(identity.user, identity.seed or request.cookies.get(_CSRF_COOKIE) or "")
        self._dashboard.wake_operations()
        if way is None:
            raise _no_way(request.method, allowed)
        if identity.cookie is not None and way.method == "GET":
            return _exchanged(call, identity)
        if not may(identity.user, way.role):  # type: ignore[arg-type]
            raise Refused(403, self._why_not(way, identity.user))
        return await self._run(way, call, timing, identity)

    def _why_not(self, way: Way, user: User) -> str:
        if self._dashboard.read_only:
            return "this dashboard is read-only"
        return f"this needs the role {way.role}; {user.name} has the role {user.role}"

    def _find(self, scope: Scope) -> tuple[Way | None, Mapping[str, Any], list[str]]:
        """Return the route of a request and the parts of its path, or else the methods that the path has."""
        allowed = []
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        for way, route in self._routes:
            match, child = route.matches(scope)
            if match is not Match.NONE:
                if way.method == method:
                    return way, child["path_params"], []
                allowed.append(way.method)
        return None, {}, sorted(set(allowed))

    async def _run(self, way: Way, call: Call, timing: Timing, identity: Identity | None) -> Response:
        is_bearer = call.request.headers.get("authorization", "").lower().startswith("bearer ")
        if way.method != "GET":
            if not is_bearer:
                check_origin(call.request, self._hosts, is_required=identity is not None)
            call.form = Form(await read_form(call.request, is_api=way.is_api, most=_most_bytes(call.queue)))
            if identity is not None and not is_bearer:
                check_token(call.request, call.form, call.seed)
        new = identity is not None and not call.seed and not is_bearer
        if new:
            call.know(call.user, new_seed())
        if way.is_quick:
            response = way.handler(call)
        else:
            response = await run_in_threadpool(timing.of, way.handler, call)
        if new:
            call.set_cookie(response, _CSRF_COOKIE, call.seed)
        return response


def _most_bytes(queue: TaskQueue) -> int:
    """Return the most bytes of a body: twice those of a payload. A database that is away is not opened for it."""
    return 2 * (queue.store.max_payload if queue.is_open else MAX_BYTES)


def _exchanged(call: Call, identity: Identity) -> Response:
    """Return to the same page without the token, which from here on is a cookie."""
    response = call.redirect(call.path, **call.query.without("token"))
    name, value, seconds = identity.cookie  # type: ignore[misc]
    call.set_cookie(response, name, value, seconds)
    return response


def _no_way(method: str, allowed: list[str]) -> Refused:
    if allowed:
        return Refused(405, f"{method[:20]} is not possible here", allow=", ".join(allowed))
    return Refused(404, "there is no such page")


def _is_safe(value: str) -> bool:
    return value.isprintable() and value.isascii()


async def _unused(request: Request) -> Response:
    raise NotImplementedError  # the gate calls the handlers


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

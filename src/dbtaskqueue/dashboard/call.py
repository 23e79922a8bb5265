"""One request as a handler sees it, and the answers that it can give."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from ..queue import TaskQueue
from .auth import NOBODY, Role, User, may
from .csrf import masked
from .messages import forget
from .params import BadQuery, Form, Query

if TYPE_CHECKING:
    from .app import Dashboard


class Call:
    """A request that has passed the gate.

    ``query``: what the query string says. ``form``: what the body says, of a form or as JSON; empty for a GET.
    """

    def __init__(self, dashboard: Dashboard, request: Request, user: User, seed: str, query: Query) -> None:
        self.dashboard = dashboard
        self.request = request
        self.user = user
        self.query = query
        self.form = Form({})
        self.seed = seed

    def know(self, user: User, seed: str) -> None:
        """Note who makes the request, and the secret of its browser."""
        self.user, self.seed = user, seed

    @property
    def is_known(self) -> bool:
        """Whether the request says who makes it."""
        return self.user is not NOBODY

    @property
    def via(self) -> str:
        """How an action comes here, for the audit log: "api" or "dashboard"."""
        return "api" if self.path.startswith("/api/") else "dashboard"

    @property
    def queue(self) -> TaskQueue:
        """The queue that the dashboard was made with, for its database."""
        return self.dashboard.queue

    @property
    def path(self) -> str:
        """The path of the request, without the prefix under which the dashboard is mounted."""
        path, prefix = str(self.request.scope["path"]), self.prefix
        return path[len(prefix) :] if prefix and path.startswith(prefix) else path

    @property
    def prefix(self) -> str:
        """The path under which the dashboard is mounted, without a slash at the end; empty if it is not mounted."""
        return str(self.request.scope.get("root_path", "")).rstrip("/")

    @property
    def id(self) -> int:
        """The number in the path, as 17 of ``/tasks/17``."""
        return int(self.request.path_params["id"])

    @property
    def csrf(self) -> str:
        """A token that a form of this user must send back, masked differently each time: see ``csrf.py``."""
        return masked(self.seed)

    def may(self, role: Role) -> bool:
        """Return whether this user may do what needs the role."""
        return may(self.user, role)

    def url(self, path: str, **query: object) -> str:
        """Return the URL of a page: ``url("/queue", name="mail")``. None is left out, lists are repeated."""
        pairs = [(name, value) for name, value in query.items() if value is not None]
        text = urlencode(pairs, doseq=True, quote_via=quote)
        return f"{quote(self.prefix)}{path}{'?' if text else ''}{text}"

    @property
    def here(self) -> str:
        """The path and the query string of this page, for a way back to it."""
        text = urlencode(self.query.without("token", "part"), doseq=True, quote_via=quote)
        return f"{self.path}{'?' if text else ''}{text}"

    def refuse_hidden(self, filters: Iterable[str]) -> None:
        """Refuse filters that would tell what is hidden, by whether tasks match. Raises BadQuery."""
        for name in filters:
            if "payload" in self.dashboard.hidden and name.partition(".")[0] in ("payload", "text"):
                raise BadQuery(f"{name}: payloads are hidden here, so no filter can ask for them")

    # -- answers -----------------------------------------------------------------------------------

    def page(
        self, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """Return a page: a template with these values, and those that all templates have."""
        html = self.dashboard.render(self, template, **values)
        response = Response(html, status, dict(headers or {}), "text/html; charset=utf-8")
        if status == 200 and values.get("layout", "base.html") == "base.html":
            forget(self, response)
        return response

    def json(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """Return a value as JSON, with datetimes in ISO 8601."""
        return Response(as_json(value), status, dict(headers or {}), "application/json")

    def set_cookie(self, response: Response, name: str, value: str, seconds: int | None = None) -> None:
        """Let the browser keep a value, for our pages only, and out of reach of scripts."""
        secure = self.request.url.scheme == "https"
        path = self.prefix or "/"
        response.set_cookie(name, value, seconds, path=path, secure=secure, httponly=True, samesite="lax")

    def redirect(self, path: str, **query: object) -> Response:
        """Send the browser to one of our own pages, by GET."""
        return Response(status_code=303, headers={"location": self.url(path, **query)})


def as_json(value: object) -> bytes:
    """Return a value as JSON, in ASCII: no character of it can end a script or a line."""
    return json.dumps(value, default=datetime.isoformat, separators=(",", ":")).encode()

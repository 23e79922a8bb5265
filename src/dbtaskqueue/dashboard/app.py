"""``Dashboard``: the ASGI application."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..operations import OperationRunner
from ..queue import TaskQueue
from .auth import Auth, HostLogin, WayIn
from .call import Call
from .data.sources import Sources
from .gate import Gate
from .looks import Looks
from .rendering import Static, Templates
from .wsgi import Wsgi

if TYPE_CHECKING:
    from ..metrics import MetricsCache

HIDEABLE = ("payload", "result", "output")
_COMPRESSED_FROM = 1024
_CHECKED_EVERY = 10.0
"""Seconds between two checks for operations that no one carries out."""


class Dashboard:
    """The dashboard of a database, as an ASGI application to be mounted in another one.

    ``queue``: any queue of the database. ``auth``: a callable, also a coroutine function, from a Starlette ``Request``
    to a ``User``, or to None if no one has signed in. It has no default: a dashboard is never open by accident.

    ``read_only``: no user can change anything; the database's account needs only SELECT. ``allowed_hosts``: the names
    under which browsers may reach the dashboard, besides those of this machine. ``"*"`` allows all, for a program that
    checks the Host header itself. ``hide``: what is never shown, of "payload", "result" and "output".
    ``allow_commands``: administrators may enqueue command lines, which run on the workers.

    Raises TypeError and ValueError.
    """

    def __init__(
        self,
        queue: TaskQueue,
        *,
        auth: Auth | WayIn,
        read_only: bool = False,
        allowed_hosts: Collection[str] = (),
        hide: Iterable[str] = (),
        allow_commands: bool = False,
    ) -> None:
        if not isinstance(queue, TaskQueue):
            raise TypeError(f"queue must be a TaskQueue, not {type(queue).__name__}")
        if isinstance(allowed_hosts, str):
            raise TypeError(f"allowed_hosts must be a collection of names, not {allowed_hosts!r}")
        self.queue = queue
        self.read_only = read_only
        self.hidden = frozenset(hide)
        if unknown := self.hidden - set(HIDEABLE):
            raise ValueError(f"hide: {sorted(unknown)[0]!r} is not one of {', '.join(HIDEABLE)}")
        self.allow_commands = allow_commands
        self.way_in: WayIn = auth if hasattr(auth, "identify") else HostLogin(auth)  # type: ignore[assignment]
        self.static = Static()
        self._templates = Templates(self.static)
        self._lock = threading.Lock()
        self._runner: OperationRunner | None = None
        self._checked_at = -math.inf
        self.looks = Looks()
        self.sources = Sources(queue, self.looks, self.hidden)
        self._app: ASGIApp = GZipMiddleware(Gate(self, allowed_hosts), minimum_size=_COMPRESSED_FROM, compresslevel=5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI."""
        await self._app(scope, receive, send)

    @cached_property
    def wsgi(self) -> Wsgi:
        """The same application as WSGI, for Flask and Django. Needs ``dbtaskqueue[wsgi]``."""
        return Wsgi(self)

    @cached_property
    def metrics(self) -> MetricsCache:
        """The metrics, counted while someone asks. Raises ModuleNotFoundError without ``dbtaskqueue[metrics]``."""
        from ..metrics import MetricsCache

        return MetricsCache(lambda: self.sources.slow)

    def close(self) -> None:
        """Stop the threads of the dashboard, and close what it has opened for itself. The queue stays open."""
        with self._lock:
            runner, self._runner = self._runner, None
            self.read_only = True  # whatever still arrives starts nothing
        if runner is not None:
            runner.close()
        if "metrics" in vars(self):
            self.metrics.close()
        self.sources.close()

    def wake_operations(self, *, at_once: bool = False) -> None:
        """Carry out open operations, also those that another dashboard has left when it was killed.

        Called for each request, it checks every few seconds; so nothing is asked when no one looks.
        """
        now = time.monotonic()
        if self.read_only or not self.queue.is_open or (now < self._checked_at + _CHECKED_EVERY and not at_once):
            return
        self._checked_at = now
        with self._lock:
            if self._runner is None:
                self._runner = OperationRunner(self.queue.store)
            self._runner.wake()

    def render(self, call: Call, template: str, **values: Any) -> str:
        """Return the HTML of a template."""
        return self._templates.render(call, template, **values)

    def way_in_page(self, call: Call, status: int, detail: str = "", name: str = "", wanted: str = "/") -> Response:
        """Return the page that asks who is there."""
        has_login = self.way_in.has_login
        return call.page("login.html", status, next=wanted, detail=detail, name=name, has_login=has_login)

"""The dashboard as WSGI."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import Dashboard


class Wsgi:
    """A WSGI application that calls the dashboard in an event loop.

    Its thread starts with the first request of each process: a server may fork after it has loaded the application.
    """

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._app: Any = None
        self._pid = 0
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer a request, as WSGI."""
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._start()
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def _start(self) -> None:
        from a2wsgi import ASGIMiddleware

        self._app = ASGIMiddleware(self._dashboard)  # type: ignore[arg-type]
        self._pid = os.getpid()

"""The dashboard as WSGI."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import Dashboard


def as_wsgi(dashboard: Dashboard) -> Callable[..., Any]:
    """Return a WSGI application. Its event loop starts with the first request: a server may fork before."""
    from a2wsgi import ASGIMiddleware

    return ASGIMiddleware(dashboard)  # type: ignore[arg-type]

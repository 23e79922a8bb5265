"""The dashboard: pages and a JSON API for people who operate queues.

``Dashboard`` is an ASGI application, to be mounted in another one; ``dbtaskqueue dashboard`` runs it by itself. Only
this package imports Starlette, Jinja2 and uvicorn: they are installed with ``dbtaskqueue[dashboard]``.
"""

from .app import Dashboard as Dashboard
from .auth import User as User

__all__ = ["Dashboard", "User"]

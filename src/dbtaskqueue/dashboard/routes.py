"""The table of all routes: method, path, the role that it needs, and its handler.

The gate looks a request up here before anything else sees it. A route that writes and has no role is an error when the
dashboard is made. ``OPEN`` marks what everybody may read: nothing behind it tells more than that the dashboard runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from starlette.responses import Response

from . import acting, asking, bulk, enqueuing, pages, trail
from .api import looking, reference
from .auth import Role
from .call import Call
from .opening import health_live, health_ready, login, login_page, logout, static

Handler: TypeAlias = Callable[[Call], Response]

OPEN: Literal["open"] = "open"
_API = "/api/v1"


class Way(NamedTuple):
    """A route. ``role`` None is refused unless it only reads, and then means "look". ``{id}`` in a path is a number."""

    method: str
    path: str
    role: Role | Literal["open"] | None
    handler: Handler
    is_quick: bool = False
    """Whether the handler neither waits nor reads the database, so that it needs no thread."""

    @property
    def is_api(self) -> bool:
        """Whether programs use it, which get JSON and its errors."""
        return self.path.startswith("/api/")


class Action(NamedTuple):
    """Something to do: by the API, by a form, and, without JavaScript, after a page that asks."""

    path: str
    role: Role
    handler: Handler


ACTIONS = [
    Action("/tasks/{id}/cancel", "operate", acting.cancel),
    Action("/tasks/{id}/retry", "operate", acting.retry),
    Action("/tasks/{id}/suspend", "operate", acting.suspend),
    Action("/tasks/{id}/continue", "operate", acting.continue_),
    Action("/tasks/{id}/reschedule", "operate", acting.reschedule),
    Action("/tasks/{id}/delete", "admin", acting.delete),
    Action("/operations", "operate", bulk.start_operation),  # and the role of its verb
    Action("/operations/{id}/stop", "operate", bulk.stop_operation),
    Action("/queue/pause", "operate", acting.pause_queue),
    Action("/queue/resume", "operate", acting.resume_queue),
    Action("/queue/purge", "admin", acting.purge_queue),
    Action("/queue/prune", "admin", acting.prune_queue),
    Action("/queue/retention", "admin", acting.set_retention),
    Action("/schedule/run", "operate", acting.run_schedule),
    Action("/schedule/pause", "operate", acting.pause_schedule),
    Action("/schedule/resume", "operate", acting.resume_schedule),
]

API = [
    Way("GET", "/me", "look", looking.me),
    Way("GET", "/overview", "look", looking.overview),
    Way("GET", "/queues", "look", looking.queues),
    Way("GET", "/functions", "look", looking.functions),
    Way("GET", "/workers", "look", looking.workers),
    Way("GET", "/tasks", "look", looking.tasks),
    Way("GET", "/tasks/{id}", "look", looking.task),
    Way("GET", "/tasks/{id}/output", "look", looking.output),
    Way("GET", "/schedules", "look", looking.schedules),
    Way("GET", "/quotas", "look", looking.quotas),
    Way("GET", "/history", "look", looking.history),
    Way("GET", "/overdue", "look", looking.overdue),
    Way("GET", "/audit", "look", trail.api_audit),
    Way("GET", "/doctor", "look", looking.doctor),
    Way("GET", "/operations", "look", trail.api_operations),
    Way("GET", "/operations/{id}", "look", trail.api_operation),
    Way("GET", "/openapi.json", "look", reference.openapi),
    Way("POST", "/tasks", "admin", enqueuing.enqueue),
]

PAGES = [
    Way("GET", "/", "look", pages.overview),
    Way("GET", "/tasks", "look", pages.tasks),
    Way("GET", "/tasks/{id}", "look", pages.task),
    Way("GET", "/queues", "look", pages.queues),
    Way("GET", "/queue", "look", pages.queue),
    Way("GET", "/functions", "look", pages.functions),
    Way("GET", "/function", "look", pages.function),
    Way("GET", "/schedules", "look", pages.schedules),
    Way("GET", "/schedule", "look", pages.schedule),
    Way("GET", "/quotas", "look", pages.quotas),
    Way("GET", "/overdue", "look", pages.overdue),
    Way("GET", "/workers", "look", pages.workers),
    Way("GET", "/worker/{id}", "look", pages.worker),
    Way("GET", "/operations", "look", trail.operations),
    Way("GET", "/operations/{id}", "look", trail.operation),
    Way("GET", "/audit", "look", trail.audit),
    Way("GET", "/doctor", "look", pages.doctor),
    Way("GET", "/settings", "look", pages.settings),
    Way("GET", "/enqueue", "admin", enqueuing.enqueue_page),
    Way("POST", "/enqueue", "admin", enqueuing.enqueue),
]

OTHERS = [
    Way("GET", "/static/{hash}/{file}", OPEN, static, is_quick=True),
    Way("GET", "/login", OPEN, login_page),
    Way("POST", "/login", OPEN, login),
    Way("POST", "/logout", "look", logout),
    Way("GET", "/health/live", OPEN, health_live, is_quick=True),
    Way("GET", "/health/ready", OPEN, health_ready),
    Way("GET", "/health/queues", "look", looking.health_queues),
    Way("GET", "/metrics", "look", looking.metrics),
]


def _of_actions() -> Iterator[Way]:
    for path, role, handler in ACTIONS:
        yield Way("POST", _API + path, role, handler)
        yield Way("POST", path, role, handler)
        if (path, "GET") not in {(way.path, way.method) for way in PAGES}:
            yield Way("GET", path, role, asking.confirm)


def table() -> list[Way]:
    """Return all routes. Raises TypeError for one that writes and has no role."""
    found = [*OTHERS, *PAGES, *(way._replace(path=_API + way.path) for way in API), *_of_actions()]
    return checked(found)


def checked(ways: Sequence[Way]) -> list[Way]:
    """Return the routes. Raises TypeError for one that writes and has no role."""
    for way in ways:
        if way.role is None and way.method != "GET":
            raise TypeError(f"{way.method} {way.path} writes: give it a role")
    return [way if way.role is not None else way._replace(role="look") for way in ways]

"""Who makes a request: users, roles, and the ways in.

A way in reads a request and says who it is. ``HostLogin`` asks the program in which the dashboard is mounted. The ways
of ``dbtaskqueue dashboard`` are in ``ways.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

Role: TypeAlias = Literal["look", "operate", "admin"]
ROLES: tuple[Role, ...] = ("look", "operate", "admin")
"""From the one that may do least to the one that may do most: each may do what those before it may."""


class User(NamedTuple):
    """Who uses the dashboard.

    ``role``: "look" may look; "operate" may also cancel, retry, reschedule, suspend, pause and run; "admin" may do
    everything: enqueue, delete, purge, prune, and change quotas and retention.
    """

    name: str
    role: Role = "look"


NOBODY = User("", "look")
"""The user of a request that has not been identified. Nothing of the database is shown to it."""


def may(user: User, role: Role) -> bool:
    """Return whether a user may do what needs this role."""
    return ROLES.index(user.role) >= ROLES.index(role)


def check_role(role: str) -> Role:
    """Return a role. Raises ValueError, which lists the roles."""
    for known in ROLES:
        if known == role:
            return known
    raise ValueError(f"{role!r} is not a role; the roles are {', '.join(ROLES)}")


class Refused(Exception):
    """A request is refused: with this status, for this reason. ``headers`` are those of the answer."""

    def __init__(self, status: int, reason: str, *, name: str | None = None, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.name = name
        self.headers = {key.replace("_", "-"): value for key, value in headers.items()}


Cookie: TypeAlias = tuple[str, str, int]
"""The name, the value and the seconds of a cookie."""


class Identity(NamedTuple):
    """Who makes a request, and how this is known.

    ``seed``: a secret that this browser keeps, from which its CSRF tokens are derived; None if it has none yet.
    ``cookie``: what identifies the browser from now on, in place of a token in the URL.
    """

    user: User
    seed: str | None = None
    cookie: Cookie | None = None


Auth: TypeAlias = Callable[[Request], User | Awaitable[User | None] | None]


class WayIn(Protocol):
    """How the gate learns who makes a request."""

    async def identify(self, request: Request) -> Identity | None:
        """Return who makes a request, or None if it does not say. Raises Refused."""

    def sign_in(self, request: Request, name: str, password: str) -> Cookie:
        """Return the cookie of a new session. Raises Refused."""

    def sign_out(self) -> Cookie:
        """Return the cookie that ends a session."""

    has_login: bool
    """Whether there are users with passwords, who sign in at ``/login``."""


class HostLogin:
    """The login of the program in which the dashboard is mounted, as a callable from a request to a user."""

    has_login = False

    def __init__(self, auth: Auth) -> None:
        if not callable(auth):
            raise TypeError(f"auth must be a callable from a request to a User or None, not {type(auth).__name__}")
        self._auth = auth

    async def identify(self, request: Request) -> Identity | None:
        """See WayIn."""
        if inspect.iscoroutinefunction(self._auth):
            found = await self._auth(request)
        else:
            found = await run_in_threadpool(self._auth, request)
            if inspect.isawaitable(found):
                found = await found
        if found is None:
            return None
        if not isinstance(found, User):
            raise TypeError(f"auth must return a User or None, not {type(found).__name__}")
        check_role(found.role)
        return Identity(found)

    def sign_in(self, request: Request, name: str, password: str) -> Cookie:
        """See WayIn."""
        raise Refused(404, "sign in at the program around this dashboard")

    def sign_out(self) -> Cookie:
        """See WayIn."""
        raise Refused(404, "sign out at the program around this dashboard")

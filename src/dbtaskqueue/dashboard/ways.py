"""The ways into ``dbtaskqueue dashboard``: the token of the ready line."""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request

from .auth import Identity, User

_SECONDS = 12 * 3600


class Doors:
    """The ways in of ``dbtaskqueue dashboard``."""

    has_login = False

    def __init__(self, token: str) -> None:
        self._token = token
        self._user = User("start", "admin")

    async def identify(self, request: Request) -> Identity | None:
        """See WayIn."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(given.encode(), self._token.encode()):
            return Identity(self._user)
        cookie = hashlib.sha256(self._token.encode()).hexdigest()
        if hmac.compare_digest(request.query_params.get("token", "").encode(), self._token.encode()):
            return Identity(self._user, cookie, ("dbtaskqueue_session", cookie, _SECONDS))
        if hmac.compare_digest(request.cookies.get("dbtaskqueue_session", "").encode(), cookie.encode()):
            return Identity(self._user, cookie)
        return None

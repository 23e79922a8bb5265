"""The ways into ``dbtaskqueue dashboard``: the token that it prints, a file of tokens, passwords, a proxy's header."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from starlette.requests import Request

from .auth import Cookie, Identity, Refused, User
from .passwords import is_password
from .people import People, Person
from .sessions import SECONDS, Session, Sessions
from .throttle import WITHIN, Throttle

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MOST_PASSWORD = 1000
_MOST_NAME = 200


class ProxyHeader(NamedTuple):
    """A header in which a proxy says who has signed in there.

    ``networks``: the proxy's addresses. ``trusts_socket``: a Unix socket is trusted, too, since its mode decides who
    reaches it.
    """

    name: str
    networks: Sequence[Network]
    trusts_socket: bool = False


class Doors:
    """The ways in of ``dbtaskqueue dashboard``.

    ``token``: that of the ready line; its user is an administrator. ``cookie``: the name of the cookie of sessions.
    """

    def __init__(
        self,
        token: str,
        *,
        cookie: str = "dbtaskqueue_session",
        tokens: People | None = None,
        users: People | None = None,
        header: ProxyHeader | None = None,
        throttle: Throttle | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        self.has_login = users is not None
        self._start = Person("admin", "start", _digest(token))
        self._cookie = cookie
        self._tokens = tokens
        self._users = users
        self._header = header
        self._throttle = throttle or Throttle()
        self._sessions = sessions or Sessions()

    async def identify(self, request: Request) -> Identity | None:
        """See WayIn."""
        return self._by_header(request) or self._by_bearer(request) or self._by_browser(request)

    def sign_in(self, request: Request, name: str, password: str) -> Cookie:
        """See WayIn."""
        if self._users is None:
            raise Refused(404, "this dashboard has no passwords")
        if self._throttle.is_full(_address(request)):
            raise self._too_many()
        person = self._users.named(name)
        fits = len(password) <= _MOST_PASSWORD and is_password(password, person and person.secret)
        if person is None or not fits:
            raise self._wrong(request, "the name or the password is wrong")
        return self._session("user", person)

    def sign_out(self) -> Cookie:
        """See WayIn."""
        return self._cookie, "", 0

    # -- ways --------------------------------------------------------------------------------------

    def _by_header(self, request: Request) -> Identity | None:
        given = [] if self._header is None else request.headers.getlist(self._header.name)
        if self._header is None or not given:
            return None
        if not self._is_proxy(request, self._header):
            raise Refused(403, f"the header {self._header.name} is not accepted from this address")
        name = given[0].strip()
        if len(given) > 1 or not name or len(name) > _MOST_NAME or not name.isprintable():
            raise Refused(403, f"the header {self._header.name} must have one name")
        person = self._users and self._users.named(name)
        return Identity(person.user if person else User(name, "look"))

    def _is_proxy(self, request: Request, header: ProxyHeader) -> bool:
        address = _address(request)
        if not address:
            return header.trusts_socket
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in header.networks)

    def _by_bearer(self, request: Request) -> Identity | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return None
        person = self._holder(token.strip())
        if person is None:
            raise self._wrong(request, "the token is wrong")
        return Identity(person.user)

    def _by_browser(self, request: Request) -> Identity | None:
        """Return who has followed a link with a token, or has a session."""
        token = request.query_params.get("token")
        holder = None if token is None else self._holder(token)
        if holder is not None:
            cookie = self._session("start" if holder is self._start else "token", holder)
            return Identity(holder.user, cookie[1], cookie)
        value = request.cookies.get(self._cookie, "")
        person = self._person(value)
        if person is not None:
            return Identity(person.user, value, None if token is None else (self._cookie, value, SECONDS))
        if token is not None:
            raise self._wrong(request, "the token of the link is wrong: the dashboard makes a new one when it starts")
        return None

    def _holder(self, token: str) -> Person | None:
        digest = _digest(token)
        if hmac.compare_digest(digest, self._start.secret):
            return self._start
        return None if self._tokens is None else self._tokens.with_secret(digest)

    def _person(self, cookie: str) -> Person | None:
        """Return who has the session of a cookie, as the files say now."""
        session = self._sessions.read(cookie)
        if session is None:
            return None
        people = {"user": self._users, "token": self._tokens}.get(session.kind)
        found = self._start if session.kind == "start" else people and people.named(session.name)
        return found if found and found.fingerprint == session.fingerprint else None

    def _session(self, kind: str, person: Person) -> Cookie:
        value = self._sessions.sign(Session(kind, person.name, person.fingerprint))
        return self._cookie, value, SECONDS

    def _wrong(self, request: Request, reason: str) -> Refused:
        """Count a wrong secret, and return the refusal."""
        if self._throttle.is_full(_address(request)):
            return self._too_many()
        self._throttle.note(_address(request))
        return Refused(401, reason, www_authenticate="Bearer")

    def _too_many(self) -> Refused:
        return Refused(429, "too many wrong secrets; wait a minute", retry_after=f"{WITHIN:.0f}")


def _address(request: Request) -> str:
    """Return the address of the client; "" on a Unix socket."""
    return "" if request.client is None else request.client.host


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

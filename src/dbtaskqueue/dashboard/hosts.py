"""Under which names browsers may reach the dashboard. A name that is not ours is DNS rebinding, or a missing option."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request

from .._formats.hosts import host_name, is_loopback
from .auth import Refused


class Hosts:
    """The allowed host names, beside those of this machine; ``*`` for all."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = frozenset(name.lower().rstrip(".") for name in allowed)

    def check(self, request: Request) -> None:
        """Refuse a request for another host."""
        found = request.headers.getlist("host")
        if len(found) != 1:
            raise Refused(400 if found else 421, "a request must name one Host")
        if not self._is_ours(found[0]):
            name = host_name(found[0])[:100]
            raise Refused(421, f"the host {name!r} is not allowed here; allow it with --allowed-host or allowed_hosts=")

    def _is_ours(self, host: str) -> bool:
        return (
            "*" in self.allowed or is_loopback(host_name(host)) or bool({host.lower(), host_name(host)} & self.allowed)
        )

"""The server of ``dbtaskqueue metrics --listen``: one path, by the HTTP server of the standard library.

Requests are bounded: at most 50 at a time, each for at most 20 s. Anyone who can connect may send anything.
"""

from __future__ import annotations

from http import HTTPStatus

from .._formats.hosts import host_name, is_loopback
from ..errors import ConfigurationError
from ..monitoring.serving import BoundedHandler, BoundedServer
from .access import Tokens
from .cache import MetricsCache


class MetricsServer(BoundedServer):
    """Serves ``/metrics`` on an address.

    Without ``tokens``, only this machine may ask. Raises ConfigurationError if others can connect, and OSError.
    """

    def __init__(self, cache: MetricsCache, host: str, port: int, tokens: Tokens | None = None) -> None:
        self.cache = cache
        self.tokens = tokens
        super().__init__(host, port, _Handler)

    def check_address(self, host: str, address: str) -> None:
        """Refuse an address that other machines reach, unless there are tokens."""
        if self.tokens is None and not is_loopback(address):
            raise ConfigurationError(
                f"{host} is open to other machines: name the tokens of those who may read metrics, with --token-file"
            )

    @property
    def url(self) -> str:
        """The URL of the metrics."""
        return f"{self.origin}/metrics"


class _Handler(BoundedHandler):
    server: MetricsServer

    def do_GET(self) -> None:  # noqa: N802 (the name of the base class)
        if self.path.partition("?")[0] != "/metrics":
            self.answer(HTTPStatus.NOT_FOUND, b"the metrics are at /metrics\n")
        elif self.server.tokens is None and not is_loopback(host_name(self.headers.get("Host", ""))):
            self.answer(HTTPStatus.MISDIRECTED_REQUEST, b"only the names of this machine are allowed here\n")
        elif self.server.tokens and not self.server.tokens.accept(self.headers.get("Authorization", "")):
            self.answer(HTTPStatus.UNAUTHORIZED, b"a token is needed\n")
        else:
            self.answer(HTTPStatus.OK, *self.server.cache.render(self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815 (the name of the base class)

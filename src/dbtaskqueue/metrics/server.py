"""The server of ``dbtaskqueue metrics --listen``: one path, by the HTTP server of the standard library.

Requests are bounded: at most 50 at a time, each for at most 20 s. Anyone who can connect may send anything.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from .._formats.hosts import host_name, is_loopback
from ..errors import ConfigurationError
from .access import Tokens
from .cache import MetricsCache

_MOST_REQUESTS = 50
_DEADLINE = 20.0


class MetricsServer(ThreadingTCPServer):
    """Serves ``/metrics`` on an address.

    Without ``tokens``, only this machine may ask. Raises ConfigurationError if others can connect, and OSError.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, cache: MetricsCache, host: str, port: int, tokens: Tokens | None = None) -> None:
        self.cache = cache
        self.tokens = tokens
        self._places = threading.BoundedSemaphore(_MOST_REQUESTS)
        try:
            self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except (socket.gaierror, UnicodeError):
            raise ConfigurationError(f"there is no address {host!r}") from None
        if tokens is None and not is_loopback(str(address[0])):
            raise ConfigurationError(
                f"{host} is open to other machines: name the tokens of those who may read metrics, with --token-file"
            )
        super().__init__((str(address[0]), int(address[1])), _Handler)

    @property
    def url(self) -> str:
        """The URL of the metrics."""
        host, port = self.server_address[:2]
        name = str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/metrics"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection if there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer within the deadline. A timeout of the socket alone would begin again with each byte."""
        ending = threading.Timer(_DEADLINE, _end, [request])
        ending.daemon = True
        ending.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            ending.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that go away: there is no one to notify."""


def _end(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    server_version, sys_version = "dbtaskqueue", ""
    timeout = _DEADLINE
    disable_nagle_algorithm = True  # else the body waits for the ACK of the headers, 40 ms

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._refuse(HTTPStatus.NOT_FOUND, "the metrics are at /metrics")
        elif self.server.tokens is None and not is_loopback(host_name(self.headers.get("Host", ""))):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "only the names of this machine are allowed here")
        elif self.server.tokens and not self.server.tokens.accept(self.headers.get("Authorization", "")):
            self._refuse(HTTPStatus.UNAUTHORIZED, "a token is needed")
        else:
            self._answer(HTTPStatus.OK, *self.server.cache.render(self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815 (the name of the base class)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._answer(status, f"{reason}\n".encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: they come every few seconds."""

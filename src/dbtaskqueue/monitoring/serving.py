"""A small HTTP server of the standard library, for metrics and probes.

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

from ..errors import ConfigurationError

_MOST_REQUESTS = 50
_DEADLINE = 20.0


class BoundedServer(ThreadingTCPServer):
    """Serves an address. Raises ConfigurationError if there is none of that name, and OSError."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, handler: type[BoundedHandler]) -> None:
        self._places = threading.BoundedSemaphore(_MOST_REQUESTS)
        try:
            self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except (socket.gaierror, UnicodeError):
            raise ConfigurationError(f"there is no address {host!r}") from None
        self.check_address(host, str(address[0]))
        super().__init__((str(address[0]), int(address[1])), handler)

    def check_address(self, host: str, address: str) -> None:
        """Raise ConfigurationError if this server must not be reached there. For subclasses."""

    @property
    def origin(self) -> str:
        """The URL of the server, without a path."""
        host, port = self.server_address[:2]
        name = str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection if there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started now
            self._places.release()
            raise

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


class BoundedHandler(BaseHTTPRequestHandler):
    """Answers requests with whole bodies. Logs nothing, since requests come every few seconds."""

    server_version, sys_version = "dbtaskqueue", ""
    timeout = _DEADLINE
    disable_nagle_algorithm = True  # else the body waits for the ACK of the headers, 40 ms

    def answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        """Send a whole answer, compressed if the client accepts that."""
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
        """Log no requests."""

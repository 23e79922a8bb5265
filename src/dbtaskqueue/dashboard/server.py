"""The server of ``dbtaskqueue dashboard``: uvicorn, with a deadline for receiving a request and a limit that is fair.

uvicorn has no such deadline: a client that sends a byte a minute would hold its connection forever. And its limit
refuses the newest connection, so that such clients would lock out everybody else. Here the oldest of them has to go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import Dashboard
from .gate import HEADERS

RECEIVE_WITHIN = 20.0
"""Seconds for a request to arrive, from its first byte, or from the start of the connection."""
MOST_CONNECTIONS = 200
_LONGEST_HEAD = 16 * 1024
_GRACE = 2
"""Seconds for requests to end after SIGTERM."""
_END_WITHIN = 4.0
"""Seconds after SIGTERM when the process ends in any case, though a thread may still wait for a database."""


class Protocol(H11Protocol):
    """A connection of uvicorn with a deadline for each request."""

    _expiry: asyncio.TimerHandle | None = None
    since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room, and start to wait for a request."""
        self.since = time.monotonic()
        if len(self.connections) >= MOST_CONNECTIONS:
            _make_room([each for each in self.connections if isinstance(each, Protocol)], transport)
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self._expiry is None and not self.is_busy:
            self._expect()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self.conn.their_state is not h11.SEND_BODY:
            self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._stop_expecting()
        super().connection_lost(exc)

    @property
    def is_busy(self) -> bool:
        """Whether a complete request is being answered."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with the headers of every answer."""
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close"), *HEADERS.items()]
        body = msg.encode("ascii", "replace")
        head = [(name.encode(), value.encode()) for name, value in [*headers, ("content-length", str(len(body)))]]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer may have started
            self.transport.write(self.conn.send(h11.Response(status_code=400, headers=head)) or b"")
            self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
        self.transport.close()

    def _expect(self) -> None:
        self._stop_expecting()
        self._expiry = self.loop.call_later(RECEIVE_WITHIN, self.abort)

    def _stop_expecting(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None


def _make_room(connections: list[Protocol], newest: asyncio.Transport) -> None:
    """Close the oldest connection that does not wait for an answer, or else the newest."""
    slow = [each for each in connections if not each.is_busy and not each.transport.is_closing()]
    if slow:
        min(slow, key=lambda each: each.since).abort()
    else:
        newest.abort()


class Server(uvicorn.Server):
    """uvicorn, which leaves signals to us and calls back when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would end the process by the signal, not with exit code 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._ready()


def serve(dashboard: Dashboard, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called when requests are answered."""
    options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False}
    options |= {"proxy_headers": False, "server_header": False, "h11_max_incomplete_event_size": _LONGEST_HEAD}
    config = uvicorn.Config(dashboard, http=Protocol, timeout_graceful_shutdown=_GRACE, **options)
    dashboard.wake_operations()
    asyncio.run(_serve(Server(config, ready), listener))


async def _serve(server: Server, listener: socket.socket) -> None:
    def stop() -> None:
        server.should_exit = True
        watchdog = threading.Timer(_END_WITHIN, os._exit, [0])
        watchdog.daemon = True
        watchdog.start()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve([listener])

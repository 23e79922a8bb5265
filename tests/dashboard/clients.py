"""Clients of a dashboard: in this process, and of ``dbtaskqueue dashboard`` as a process of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from helpers import python_path
from starlette.requests import Request

from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard import Dashboard, User
from dbtaskqueue.dashboard.ways import Doors

HOST = "http://127.0.0.1"
TOKEN = "the-token-of-the-ready-line"
READY = re.compile(r"dashboard: (http://\S+?)/\?token=(\S+)(?: .*)?\n")


_runner = asyncio.Runner()
atexit.register(_runner.close)


class InProcess(httpx.BaseTransport):
    """Calls an ASGI application in this process, as a client with this address."""

    def __init__(self, app: Any, address: str | None = "127.0.0.1") -> None:
        client: Any = (address, 50000) if address else None  # as on a Unix socket
        self._transport = httpx.ASGITransport(app, client=client)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, with the bytes that a server would send."""
        request.read()
        return _runner.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._transport.handle_async_request(request)
        body = b"".join([part async for part in answer.aiter_raw()])
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(body))


def user_of(request: Request) -> User | None:
    """Log in as a host program might: by a header ``user: NAME ROLE``."""
    name, _, role = request.headers.get("user", "").partition(" ")
    return User(name, role) if name else None  # type: ignore[arg-type]


def client_of(dashboard: Dashboard, **headers: str) -> httpx.Client:
    """Return a client that calls a dashboard in this process, and follows no redirect."""
    return httpx.Client(transport=InProcess(dashboard), base_url=HOST, headers=headers)


def mounted(queue: TaskQueue, role: str | None = "admin", **options: Any) -> httpx.Client:
    """Return a client of a dashboard whose host program has this user logged in, or nobody."""
    headers = {} if role is None else {"user": f"someone {role}"}
    return client_of(Dashboard(queue, auth=user_of, **options), **headers)


def with_doors(queue: TaskQueue, *, signed_in: bool = True, doors: Doors | None = None, **options: Any) -> httpx.Client:
    """Return a client of a dashboard as the command line serves it, as its administrator."""
    headers = {"authorization": f"Bearer {TOKEN}"} if signed_in else {}
    return client_of(Dashboard(queue, auth=doors or Doors(TOKEN), **options), **headers)


def form_headers(client: httpx.Client) -> dict[str, str]:
    """Return what a page of ours sends with a form: its origin, and the token of ``me``."""
    return {"origin": HOST, "x-csrf-token": client.get("/api/v1/me").json()["csrf"]}


class Served:
    """A process ``dbtaskqueue dashboard`` that answers at ``base``."""

    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process = process
        self.line = line
        found = READY.fullmatch(line)
        assert found, line
        self.base, self.token = found[1], found[2]
        self.port = urlsplit(self.base).port or 0

    def client(self, **options: Any) -> httpx.Client:
        """Return a client with the token as a bearer."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.base, **{"headers": headers, "timeout": 30, **options})

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection, for requests that no client would send."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


def command(*words: object) -> list[str]:
    """Return a command line of dbtaskqueue."""
    return [sys.executable, "-m", "dbtaskqueue", *map(str, words)]


@contextlib.contextmanager
def serve(url: str, *words: object, log: Path | None = None) -> Iterator[Served]:
    """Run ``dbtaskqueue dashboard`` on a free port until the end of the block."""
    with open(log or os.devnull, "w") as stderr:
        process = subprocess.Popen(
            command("--url", url, "dashboard", "--port", 0, *words),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path()},
        )
    try:
        assert process.stdout is not None
        yield Served(process, process.stdout.readline())
    finally:
        process.kill()
        process.communicate()

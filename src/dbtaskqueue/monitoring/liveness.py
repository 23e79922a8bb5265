"""Probes of one worker, for Kubernetes and other supervisors: a file that it touches, and two URLs.

They report whether the worker's own loops run (see ``Worker.health``). They read no database, so a probe costs nothing
and does not fail because the database is slow. The checks of the queues are in ``probe.py``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from .._system.log import event
from ..worker import Worker
from .serving import BoundedHandler, BoundedServer

_INTERVAL = 5.0
"""Seconds between two touches of the file."""


@contextlib.contextmanager
def probing(worker: Worker, file: str | None, address: tuple[str, int] | None) -> Iterator[None]:
    """Touch the file and serve the address during the block; each may be None.

    Raises ConfigurationError if there is no such address, and OSError if the file cannot be touched or the address
    cannot be used.
    """
    with contextlib.ExitStack() as stack:
        if file is not None:
            stack.enter_context(_touching(worker, Path(file)))
        if address is not None:
            stack.enter_context(_serving(worker, *address))
        yield


@contextlib.contextmanager
def _touching(worker: Worker, path: Path) -> Iterator[None]:
    path.touch()  # raises here, where a mistake in the path can still be reported
    ends = threading.Event()
    thread = threading.Thread(target=_touch, args=(worker, path, ends), name="dbtaskqueue-alive-file", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _touch(worker: Worker, path: Path, ends: threading.Event) -> None:
    has_failed = False
    while not ends.wait(_INTERVAL):
        if not worker.health().alive:
            continue
        try:
            path.touch()
            has_failed = False
        except OSError as error:
            if not has_failed:
                event(logging.WARNING, "the alive file cannot be touched", file=path, error=error)
            has_failed = True


@contextlib.contextmanager
def _serving(worker: Worker, host: str, port: int) -> Iterator[None]:
    with _ProbeServer(worker, host, port) as server:
        thread = threading.Thread(target=server.serve_forever, name="dbtaskqueue-probes", daemon=True)
        thread.start()
        event(logging.INFO, "probes are answered", url=f"{server.origin}/health/live")
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _ProbeServer(BoundedServer):
    """Serves ``/health/live`` and ``/health/ready`` of a worker. They show only its status, so anyone may ask."""

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        self.worker = worker
        super().__init__(host, port, _Handler)


class _Handler(BoundedHandler):
    server: _ProbeServer

    def do_GET(self) -> None:  # noqa: N802 (the name of the base class)
        health = self.server.worker.health()
        answers = {"/health/live": health.alive, "/health/ready": health.ready}
        is_well = answers.get(self.path.partition("?")[0])
        if is_well is None:
            self.answer(HTTPStatus.NOT_FOUND, b"the probes are at /health/live and /health/ready\n")
        else:
            status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
            self.answer(status, f"{health.status}\n".encode())

    do_HEAD = do_GET  # noqa: N815 (the name of the base class)

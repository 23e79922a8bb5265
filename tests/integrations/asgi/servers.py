"""A uvicorn with the application ``shop``, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
from helpers import ended, python_path, until
from servers.ports import free_port


class Served:
    """An application that answers at ``base``."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.log = log

    def client(self, user: str = "ann") -> httpx.Client:
        """Return a client who is this user."""
        return httpx.Client(base_url=self.base, headers={"user": user}, timeout=60)

    def answers(self) -> bool:
        """Return whether the application has started."""
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.base}/openapi.json", timeout=30).status_code == 200
        return False

    def stop(self) -> int:
        """End the process with SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(url: str, directory: Path, *words: str, **variables: str) -> Iterator[Served]:
    """Run the application until the end of the block."""
    port, log = free_port(), directory / "uvicorn.log"
    environment = {**os.environ, "PYTHONPATH": python_path(), "DBTASKQUEUE_URL": url, **variables}
    command = [sys.executable, "-m", "uvicorn", "integrations.asgi.shop:app", "--port", str(port), *words]
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=out, text=True)
    with ended(process):
        served = Served(process, port, log)
        until(served.answers, within=60, what="the start of the application")
        yield served

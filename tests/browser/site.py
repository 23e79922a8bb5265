"""A database with its dashboard and its workers, each a real process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from browser import orders
from helpers import python_path, until

from dbtaskqueue import Task, TaskQueue

READY = re.compile(r"^dashboard: (\S+)$", re.MULTILINE)
STOPS_WITHIN = 60.0


class Puppet:
    """A task that obeys: see orders.py."""

    def __init__(self, task: Task, file: Path) -> None:
        self.task = task
        self.id = task.id
        self._file = file
        self._count = 0

    def order(self, name: str, *values: object) -> Puppet:
        """Tell the task what to do next."""
        with self._file.open("a") as file:
            file.write(json.dumps([name, *values]) + "\n")
        self._count += 1
        return self

    def obeyed(self) -> Puppet:
        """Wait until the task has taken all of its orders."""
        done = self._file.with_suffix(".done")
        until(lambda: done.exists() and int(done.read_text() or 0) >= self._count, what=f"orders of {self.id}")
        return self

    def becomes(self, state: str) -> Puppet:
        """Wait until the task is in a state."""
        until(lambda: self.task.refresh().state == state, what=f"task {self.id} {state}")
        return self


class Site:
    """A database, its dashboard and its workers. What still runs at the end is killed."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.queue = TaskQueue(url)
        self.queue.functions = orders.queue.functions
        self.dashboard: subprocess.Popen[bytes] | None = None
        self.link = ""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count(1)
        self._environment = {**os.environ, "PYTHONPATH": python_path(), "DBTASKQUEUE_URL": url, "TZ": "UTC"}

    # -- processes ---------------------------------------------------------------------------------

    def start(self, *options: str) -> Site:
        """Start the dashboard and wait until it answers."""
        if "--socket" not in options and "--port" not in options:
            options = ("--port", "0", *options)
        self.dashboard = self._run("dashboard", *options)
        file = Path(self.dashboard.stdout_file)  # type: ignore[attr-defined]
        found = until(lambda: READY.search(file.read_text()) or self._ended(), what="the ready line")
        self.link = found[1]
        return self

    def _ended(self) -> None:
        assert self.dashboard is not None
        assert self.dashboard.poll() is None, self.errors()

    @property
    def address(self) -> str:
        """The beginning of all URLs of the dashboard, without a slash at the end."""
        parts = urlsplit(self.link)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def port(self) -> int:
        """The dashboard's port."""
        return urlsplit(self.link).port or 0

    @property
    def token(self) -> str:
        """The administrator's token."""
        return self.link.partition("?token=")[2]

    def stop(self) -> None:
        """Stop the dashboard as an init system does."""
        assert self.dashboard is not None
        self.dashboard.terminate()
        assert self.dashboard.wait(STOPS_WITHIN) == 0, self.errors()

    def kill(self) -> None:
        """Kill the dashboard."""
        assert self.dashboard is not None
        self.dashboard.kill()
        self.dashboard.wait()

    def worker(self, *options: str, queues: str = "*") -> subprocess.Popen[bytes]:
        """Start a worker that runs the functions of orders.py, by default in child processes."""
        options = ("--queue", queues, "--drain-timeout", "1s", "--cancel-grace", "1s", *options)
        worker = self._run("worker", "browser.orders:queue", "--concurrency", "4", "--log-level", "error", *options)
        before = len(self.queue.workers())
        until(lambda: len(self.queue.workers()) > before or worker.poll() is not None, what="the worker")
        return worker

    def _run(self, *words: str) -> subprocess.Popen[bytes]:
        name = self.directory / f"{words[0]}-{next(self._numbers)}"
        with open(f"{name}.out", "wb") as out, open(f"{name}.err", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "dbtaskqueue", *words],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        process.stdout_file = f"{name}.out"  # type: ignore[attr-defined]
        self._processes.append(process)
        return process

    def errors(self) -> str:
        """What the dashboards have written to stderr."""
        return "".join(file.read_text() for file in sorted(self.directory.glob("dashboard-*.err")))

    def close(self) -> None:
        """Kill all that runs. Fail if a dashboard has failed on a request."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.queue.close()
        assert "Traceback" not in self.errors(), self.errors()

    # -- tasks -------------------------------------------------------------------------------------

    def lane(self, name: str) -> TaskQueue:
        """Return another queue of the database."""
        lane = self.queue.lane(name)
        lane.functions = orders.queue.functions
        return lane

    def puppet(self, queue: str = "default", function: Any = orders.encode, **options: Any) -> Puppet:
        """Enqueue a task that obeys the test."""
        file = self.directory / f"orders-{next(self._numbers)}.jsonl"
        file.touch()
        call = function.bind(str(file))
        return Puppet(self.lane(queue).enqueue(call, **options), file)

    def running(self, queue: str = "default", function: Any = orders.encode, **options: Any) -> Puppet:
        """Enqueue a task that obeys the test, and wait until it runs."""
        return self.puppet(queue, function, **options).becomes("running")

    # -- the API -----------------------------------------------------------------------------------

    def api(self, path: str, body: object = None, token: str | None = None) -> Any:
        """Ask the API as the administrator: GET, or POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {token or self.token}", "content-type": "application/json"}
        request = urllib.request.Request(f"{self.address}/api/v1/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

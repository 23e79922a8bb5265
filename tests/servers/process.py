"""The process of a server: start, stop, kill and restart it. It never outlives the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.accounts import account, new_directory
from servers.ports import free_port

START = 60.0
"""Seconds for a start, which may include crash recovery."""

STOP = 30.0
"""Seconds for a clean shutdown, after which the server is killed."""

WATCHDOG = Path(__file__).with_name("watchdog.py")


class ServerDidNotStart(AssertionError):
    """The server ended during its start or does not answer. The message has the end of its log."""


class ServerProcess:
    """What all kinds of server have in common: a directory, a port and a process.

    As a context manager, it starts the server, and at the end stops it and removes its files.
    """

    name = "server"
    ending = signal.SIGKILL
    """The signal that ends the server immediately after the tests' process has died."""

    def __init__(self) -> None:
        self.directory = new_directory(self.name)
        self.port = free_port()
        self.log_file = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        """Return the command line; the program must stay in the foreground."""
        raise NotImplementedError

    def create(self) -> None:
        """Make the data directory. Called before the first start."""

    def answers(self) -> bool:
        """Whether the server accepts connections."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The pid of the server's main process; of the last one, if it has ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def log(self) -> str:
        """Return the server's log."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self, within: float = START) -> None:
        """Start the server with its existing data, and wait until it answers."""
        self.launch()
        self.await_answer(within)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        assert not self.is_running, f"{self.name} runs already"
        if self._process is None:
            self._watch()
            self.create()
        user, group, groups = account()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                user=user,
                group=group,
                extra_groups=groups,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watch(self.pid)

    def await_answer(self, within: float = START) -> None:
        """Wait until the launched server answers."""
        deadline = time.monotonic() + within
        while not self.answers():
            if not self.is_running:
                raise ServerDidNotStart(f"{self.name} ended during its start:\n{self.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise ServerDidNotStart(f"{self.name} does not answer after {within} s:\n{self.log()[-4000:]}")
            time.sleep(0.02)

    def end(self, number: signal.Signals, within: float = STOP) -> None:
        """Send a signal and wait until the server has ended; kill it after the time limit."""
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(number)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {within} s:\n{self.log()[-4000:]}") from None

    def kill(self) -> None:
        """Send SIGKILL to the server and its children at the same time; return when all have ended."""
        if self._process is None:
            return
        family = [self._process.pid]
        if self.is_running:
            self._process.send_signal(signal.SIGSTOP)  # or it could fork while its children are listed
            family += descendants(self._process.pid)
            for pid in family:
                _send(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + STOP
        while any(lives(pid) for pid in family):
            assert time.monotonic() < deadline, f"processes of {self.name} did not end: {family}"
            time.sleep(0.005)

    def close(self) -> None:
        """End the server permanently and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._unwatch(self._watchdog)

    def _watch(self, server: int = 0) -> None:
        """Start a watchdog, which removes the directory and ends any server if the tests' process dies."""
        before = self._watchdog
        arguments = (os.getpid(), server, int(self.ending), self.directory)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", WATCHDOG, *map(str, arguments)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._unwatch(before)

    @staticmethod
    def _unwatch(watchdog: subprocess.Popen[bytes] | None) -> None:
        if watchdog is not None:
            watchdog.kill()
            watchdog.wait()


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of a process."""
    parents: dict[int, list[int]] = {}
    for child, (_, parent) in _processes().items():
        parents.setdefault(parent, []).append(child)
    found = parents.get(pid, [])
    for child in found:
        found.extend(parents.get(child, []))
    return found


def _processes() -> dict[int, tuple[str, int]]:
    """Return the state and the parent of each process."""
    return {int(path.name): status for path in Path("/proc").glob("[0-9]*") if (status := _status(int(path.name)))}


def _status(pid: int) -> tuple[str, int] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]  # the program's name before it may contain any character
    return state, int(parent)


def lives(pid: int) -> bool:
    """Whether a process runs. A zombie does not; it may never be reaped."""
    status = _status(pid)
    return status is not None and status[0] not in "ZX"


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return

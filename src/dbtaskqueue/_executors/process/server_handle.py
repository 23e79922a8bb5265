"""The fork server as its worker sees it. It is started as a new Python process, so that it inherits nothing."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ..._system.log import event
from ..._system.processes import system
from ..._system.systemd import VARIABLES
from ...errors import TaskQueueError
from ..lookup import Origin, import_path
from ..task_run import Settings
from . import fork_server
from .channel import Channel, Message
from .child_handle import ChildFds
from .outcome import how_it_ended
from .resources import Shortage, is_shortage

_MARK = "DBTASKQUEUE_FORK_SERVER"
_END = 10.0
"""Seconds in which a fork server must end after its worker has closed the channel."""
_RESTARTS = 0.1, 5.0
"""Seconds before a fork server is started again: after the first failure, and at most."""
_GIVE_UP = 30.0
"""Seconds without a fork server after which the worker stops."""


class ServerHandle:
    """A fork server: its process and channel, and the mark that all of its descendants have in their environment."""

    def __init__(self, settings: Settings, origin: Origin, open_files: int) -> None:
        self.mark = f"{_MARK}={secrets.token_hex(16)}"
        self.is_ready = False
        self.broken: str | None = None
        name, _, value = self.mark.partition("=")
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                fork_server.command(),
                stdin=theirs.fileno(),  # subprocess makes it the stdin, even if other standard streams are closed
                stdout=_inherited(sys.__stdout__),
                stderr=_inherited(sys.__stderr__),
                env={**_without(VARIABLES), name: value},
                start_new_session=True,  # a Ctrl-C in the terminal is for the worker, which lets tasks finish
            )
        self.channel = Channel(ours)
        orders = {
            "parent": os.getpid(),
            "argv": sys.argv,
            "path": import_path(),
            "origin": origin._asdict(),
            "open_files": open_files,
            "url": settings.url,
            "max_payload": settings.runner.max_payload,
            "log_level": _level_of_root_logger(),
        }
        with contextlib.suppress(OSError):  # it has just died; its end is noticed separately
            self.ask(orders)

    def ask(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send it a request, and return when all of it is sent."""
        self.channel.send(message, fds)
        self.channel.flush_all()

    def end(self) -> int:
        """Make it end everything that it has forked, wait for it, and return its exit code."""
        self.channel.close()
        try:
            return self._process.wait(timeout=_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
            system.kill_marked(self.mark)
            return code


class Reports(Protocol):
    """What a fork server reports about children."""

    def on_forked(self, message: Message) -> None:
        """Called when a child was forked."""

    def on_fork_failed(self, message: Message) -> None:
        """Called when a child could not be forked."""

    def on_reaped(self, message: Message) -> None:
        """Called when a child was reaped, with everything that it had started."""

    def on_server_ended(self, code: int) -> None:
        """Called when the server has ended with this exit code, and all children with it."""


class Server:
    """Keeps a fork server running: starts it, and starts it again if it ends. For the executor's thread.

    ``give_up`` is called with the reason when no server could fork for 30 seconds.
    """

    def __init__(
        self,
        start: Callable[[], ServerHandle],
        selector: selectors.BaseSelector,
        shortage: Shortage,
        give_up: Callable[[BaseException], object],
    ) -> None:
        self.is_decided = threading.Event()
        """Set when it is known whether the first server could import the code."""
        self.broken: str | None = None
        """Why the first server could not be used."""
        self.next_try = 0.0
        self._start = start
        self._selector = selector
        self._shortage = shortage
        self._give_up = give_up
        self._handle: ServerHandle | None = None
        self._reports: Reports | None = None
        self._failures = 0
        self._failing_since: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._handle is not None

    @property
    def is_ready(self) -> bool:
        """Whether it has imported the code and can fork."""
        return self._handle is not None and self._handle.is_ready

    def start_if_due(self, reports: Reports) -> None:
        """Start a server if there is none, unless the last one failed just now."""
        if self._handle is not None or time.monotonic() < self.next_try:
            return
        self._reports = reports
        try:
            self._handle = self._start()
        except OSError as error:
            reason = f"the fork server could not be started: {error}"
            if is_shortage(error) and self.is_decided.is_set():
                self._shortage.note_failure(error.errno, reason, 0)
                self.next_try = self._shortage.next_try
            else:
                self._fail(reason)
            return
        self._selector.register(self._handle.channel, selectors.EVENT_READ, self._hear)

    def decide(self, broken: str | None = None) -> None:
        """Set whether the first server can be used. ``broken``: the reason why it cannot."""
        self.broken = broken
        self.is_decided.set()

    def ask(self, message: Message) -> None:
        """Send a request if there is a server. If it has just ended, that is noticed separately."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.ask(message)

    def fork(self, number: int, fds: ChildFds) -> None:
        """Request a child with these file descriptors. Raises OSError."""
        assert self._handle is not None
        self._handle.ask({"do": "fork", "child": number, "fds": fds._fields}, fds)

    def note_broken(self) -> None:
        """Note that a request could not be sent. The server can fork no more, and its end is noticed soon."""
        if self._handle is not None:
            self._handle.is_ready = False

    def close(self) -> None:
        """End the server and everything that it has forked."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.end()

    def _hear(self, mask: int) -> None:
        assert self._handle is not None
        try:
            messages = self._handle.channel.receive()
        except (EOFError, OSError):
            self._on_end(self._handle)
            return
        for message in messages:
            self._on_message(self._handle, message)

    def _on_message(self, handle: ServerHandle, message: Message) -> None:
        assert self._reports is not None
        if "gone" in message:
            self._reports.on_reaped(message)
        elif "forked" in message:
            self._failures, self._failing_since, self.next_try = 0, None, 0.0
            self._reports.on_forked(message)
        elif "fork_failed" in message:
            self._reports.on_fork_failed(message)
        elif "ready" in message:
            handle.is_ready = True
            self._failing_since = None
            self.decide()
            if threads := ",".join(message["ready"]):
                event(logging.WARNING, "importing the code has started threads; children have none", threads=threads)
        elif "broken" in message:
            handle.broken = message["broken"]

    def _on_end(self, handle: ServerHandle) -> None:
        """Handle its end. Its children have died with it; find and kill the processes that they have left."""
        assert self._reports is not None
        self._handle = None
        self._selector.unregister(handle.channel)
        code = handle.end()
        system.kill_marked(handle.mark)
        self._reports.on_server_ended(code)
        self._fail(handle.broken or f"the fork server {how_it_ended(code)}")

    def _fail(self, reason: str) -> None:
        now = time.monotonic()
        if not self.is_decided.is_set():
            self.next_try = math.inf
            self.decide(reason)
            return
        if self._failing_since is None:
            self._failing_since = now
        first, last = _RESTARTS
        self.next_try = now + min(last, first * 2**self._failures)
        self._failures += 1
        event(logging.ERROR, "no child process can be started, retrying", error=reason)
        if now - self._failing_since > _GIVE_UP:
            self._failing_since = now
            self._give_up(TaskQueueError(reason))


def _inherited(stream: object) -> int | None:
    """Return the stream for a child process to inherit: this process's own, or /dev/null if it has none."""
    return subprocess.DEVNULL if stream is None else None


def _level_of_root_logger() -> int | None:
    """Return the root logger's level, which children use, too; None if logging is not set up."""
    root: Any = logging.getLogger()
    return int(root.level) if root.handlers else None


def _without(names: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}

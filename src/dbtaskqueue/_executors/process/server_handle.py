"""The fork server as its worker sees it: started as a new Python process, so that it inherits nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ..._system.processes import system
from ..._system.systemd import VARIABLES
from ..lookup import Origin, import_path
from ..task_run import Settings
from . import fork_server
from .channel import Channel, Message

_MARK = "DBTASKQUEUE_FORK_SERVER"


class ServerHandle:
    """The fork server as this process has it: its process, its channel, and the mark of all that comes from it."""

    def __init__(self, settings: Settings, origin: Origin, open_files: int) -> None:
        self.mark = f"{_MARK}={secrets.token_hex(16)}"
        self.is_ready = False
        self.broken: str | None = None
        name, _, value = self.mark.partition("=")
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                fork_server.command(),
                stdin=theirs.fileno(),  # subprocess moves it to where it belongs, whatever else is closed
                stdout=_inherited(sys.__stdout__),
                stderr=_inherited(sys.__stderr__),
                env={**_without(VARIABLES), name: value},
                start_new_session=True,  # a Ctrl-C in the terminal is for the worker, which may take its time
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
            "log_level": _level_of_the_root(),
        }
        with contextlib.suppress(OSError):  # it has just died: that comes up by itself
            self.ask(orders)

    def ask(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send it a request; all of it is sent when this returns."""
        self.channel.send(message, fds)
        self.channel.flush_all()

    def end(self) -> int:
        """Let it end everything that it has forked, and wait for it; its exit code."""
        self.channel.close()
        try:
            return self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
            system.kill_marked(self.mark)
            return code


def _inherited(stream: object) -> int | None:
    """The stream that a child process inherits: this process's own, or /dev/null if it has none."""
    return subprocess.DEVNULL if stream is None else None


def _level_of_the_root() -> int | None:
    """What a child's logging shows: as this process's does; None where nobody has set it up."""
    root: Any = logging.getLogger()
    return int(root.level) if root.handlers else None


def _without(names: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}

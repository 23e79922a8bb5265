"""``worker --reload``, for development: a parent watches files, and replaces its child, the worker, when they change.

The child is the same command line. It drains for a second, unless ``--drain-timeout`` is given, and returns what still
runs to the queue without spending an attempt. If the code cannot be imported, the child reports that and ends, and the
parent waits for the next change. A burst of changes is one restart: the next child starts when no file has changed for
a moment.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType

import click

from .._system.log import event
from .._system.processes import system
from ..checks import listed

DRAIN_TIMEOUT = 1.0
"""Seconds that running tasks get to finish before a restart, unless ``--drain-timeout`` is given."""
_INSTALL = "--reload needs watchfiles; install it with: pip install 'dbtaskqueue[reload]'"
_MARK = "DBTASKQUEUE_RELOADER"
"""The variable that tells the child the pid of its parent."""
_QUIET = 400
"""Milliseconds without a change until the next child starts."""
_END = 60.0
"""Seconds after its drain timeout and its cancel grace after which a child that does not end is killed."""
_USAGE = 2


def is_child() -> bool:
    """Return whether a reloader has started this process. Then it ends with its parent.

    The mark is removed from the environment, so that processes of tasks do not inherit it.
    """
    if os.environ.pop(_MARK, "") != str(os.getppid()):
        return False
    system.die_with_parent(signal.SIGTERM)
    return True


def reload(watch: Callable[[], Iterable[set[str]]], drains: float) -> int:
    """Run the command line of this process as a child, again after changes. Return its exit code.

    ``watch`` returns an iterator that waits for a moment, and yields the files that have changed meanwhile, or an empty
    set. ``drains``: seconds that the child's tasks get to end after SIGTERM.
    """
    if os.environ.get("NOTIFY_SOCKET"):
        raise click.UsageError("--reload is for development; leave it out of a systemd service")
    return _Reloader(drains + _END).run(watch())


def python_files(directories: Sequence[str]) -> Iterator[set[str]]:
    """Watch the Python files in these directories, and those below."""
    for directory in directories:
        if not os.path.isdir(directory):
            raise click.UsageError(f"--reload-dir: there is no directory {directory!r}")
    try:
        from watchfiles import PythonFilter, watch
    except ModuleNotFoundError:
        raise click.ClickException(_INSTALL) from None
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the parent says itself what has changed
    changes = watch(
        *directories, watch_filter=PythonFilter(), rust_timeout=_QUIET, yield_on_timeout=True, raise_interrupt=False
    )
    return ({path for _, path in found} for found in changes)


class _Reloader:
    """The parent. In a terminal, Ctrl-C reaches the child without it.

    ``patience``: seconds after which a child that does not end after SIGTERM is killed.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._shares_terminal = _is_in_foreground()
        self._must_end = False
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts = 0

    def run(self, changes: Iterable[set[str]]) -> int:
        """Replace the child until it ends by itself or a signal arrives. Return its exit code.

        ``changes``: the files that have changed, or none if no file has for a moment.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        self._start()
        is_outdated, kill_at = False, 0.0
        for files in changes:
            if files and not self._must_end:
                if not is_outdated:
                    names = sorted(os.path.relpath(file) for file in files)
                    event(logging.INFO, "files have changed, the worker restarts", files=listed(names))
                    self._send(signal.SIGTERM)
                    is_outdated, kill_at = True, time.monotonic() + self._patience
                continue
            code = None if self._child is None else self._child.poll()
            if self._child is not None and code is None:
                if is_outdated and time.monotonic() > kill_at:
                    self._send(signal.SIGKILL)
                continue
            if self._must_end:
                return code if code is not None and code >= 0 else 0
            if is_outdated:
                is_outdated = False
                self._restarts += 1
                self._start()
            elif code == 0 or (code == _USAGE and not self._restarts):
                return code  # it has reached a limit, or no change of a file can help
            elif code is not None:
                self._child = None
                event(logging.WARNING, "the worker has ended and starts again when a file changes", code=code)
        return 0

    def _start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, _MARK: str(os.getpid())},
            process_group=None if self._shares_terminal else 0,
        )
        if self._must_end:  # the signal came while the child did not exist
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._must_end = True
        if not (number == signal.SIGINT and self._shares_terminal):
            self._send(number)


def _is_in_foreground() -> bool:
    """Return whether the terminal sends Ctrl-C to this process and its children."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False

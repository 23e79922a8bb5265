"""Two ways to send heartbeats: from a thread, and from a process that task code cannot block."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .._executors.lookup import import_path
from .._store.contract import Store
from .._system.log import event
from . import heartbeat_process

BEATS_PER_LEASE = 3.0
_SHORT_LEASE = 10.0
_HELP = 10.0
"""Seconds for which a thread sends heartbeats until a new process does, if the lease is short. On a busy machine,
starting an interpreter and loading a server's driver takes longer than such a lease."""


class ThreadHeartbeat:
    """A duty: send heartbeats from the maintenance thread. This is enough if other workers can check the pid."""

    def __init__(self, store: Store, worker: int, lease: float, lost: Callable[[], None]) -> None:
        self.interval = lease / BEATS_PER_LEASE
        self._store = store
        self._worker = worker
        self._lost = lost

    def __call__(self) -> None:
        if not self._store.beat(self._worker):
            self._lost()

    def stop(self) -> None:
        """Do nothing: the loop no longer calls this duty."""


class HeartbeatProcess:
    """A duty: keep the heartbeat process running, and notice when it reports that the worker was marked lost."""

    def __init__(self, store: Store, worker: int, lease: float, lost: Callable[[], None]) -> None:
        self.interval = min(1.0, lease / BEATS_PER_LEASE)
        self._store = store
        self._worker = worker
        self._help = _HELP if lease < _SHORT_LEASE else 0.0
        path, options = store.beater
        self._orders = {
            "beater": path,
            "options": options,
            "path": import_path(),
            "worker": worker,
            "interval": lease / BEATS_PER_LEASE,
            "parent": os.getpid(),
        }
        self._lost = lost
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The process id of the heartbeat process."""
        return self._process.pid

    def __call__(self) -> None:
        code = self._process.poll()
        if code == heartbeat_process.LOST:
            self._hang_up()
            self._lost()
            return
        if code is not None:
            self._hang_up()
            event(logging.WARNING, "the heartbeat process ended and is started again", exit_code=code)
            self._process = self._spawn()
        if time.monotonic() < self._help_until and not self._store.beat(self._worker):
            self._lost()

    def stop(self) -> None:
        """End the process and wait for it."""
        self._hang_up()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """In a forked child: the process belongs to the parent, so only close its pipe."""
        self._hang_up()
        self._process.returncode = 0

    def _spawn(self) -> subprocess.Popen[bytes]:
        if not sys.executable:
            raise FileNotFoundError("this interpreter does not know its own executable")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(heartbeat_process.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is for the worker, which lets tasks finish
            close_fds=True,
        )
        self._help_until = time.monotonic() + self._help
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(self._orders).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            event(logging.WARNING, "the heartbeat process did not get its settings", error=error)
        return process

    def _hang_up(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

"""A callback for a fork server that may have only as many children as the file $FEW_PROCESSES says, if it exists."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import child_tasks

from dbtaskqueue._system.processes import system

_fork = os.fork


def fork() -> int:
    """In place of ``os.fork``."""
    file = Path(os.environ["FEW_PROCESSES"])
    if file.exists() and len(system.children()) >= int(file.read_text()):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()


def act(payload: Any) -> Any:
    """The callback."""
    return child_tasks.act(payload)


if "fork_server" in " ".join(sys.orig_argv):
    os.fork = fork

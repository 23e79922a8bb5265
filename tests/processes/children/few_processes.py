"""A callback whose fork server may have at most the number of children in the file $FEW_PROCESSES, if it exists."""

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
    """Replace ``os.fork``: fail like it if there are too many children."""
    file = Path(os.environ["FEW_PROCESSES"])
    if file.exists() and len(system.children()) >= int(file.read_text()):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()


def act(payload: Any) -> Any:
    """Call the callback of ``child_tasks``."""
    return child_tasks.act(payload)


if "fork_server" in " ".join(sys.orig_argv):
    os.fork = fork

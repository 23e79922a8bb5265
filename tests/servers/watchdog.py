"""Ends a server when the tests' process is gone, however that ended; run beside each server.

    python -I -S watchdog.py PARENT SERVER SIGNAL DIRECTORY

It watches its own parent's number: that changes in the moment in which the parent dies. (A pipe would stay
open in each child that the tests forked, and PR_SET_PDEATHSIG fires when the thread ends that started us.)
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time


def _kill(server: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(server, number)
    except ProcessLookupError:
        return


def _end(server: int, number: int) -> None:
    _kill(server, number)
    if not select.select([server], [], [], 10)[0]:
        _kill(server, signal.SIGKILL)


def _remove(directory: str) -> None:
    """Remove the directory; a tool that fills it just now notices it soon."""
    deadline = time.monotonic() + 10
    while os.path.exists(directory) and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.25)


def main(parent: int, server: int, ending: int, directory: str) -> None:
    """Wait until the parent is gone, then end the server (0: not there yet) and remove its directory."""
    # A number may be given to another process later, a pidfd means this one for ever.
    handle = os.pidfd_open(server) if server else None
    while os.getppid() == parent:
        time.sleep(0.25)
    if handle is not None:
        _end(handle, ending)
    _remove(directory)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

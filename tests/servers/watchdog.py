"""A program beside each server that ends the server once the tests' process has ended, for whatever reason.

    python -I -S watchdog.py PARENT SERVER SIGNAL DIRECTORY

It polls the pid of its own parent, which changes when the parent dies. (A pipe would stay open in each child that the
tests have forked, and PR_SET_PDEATHSIG takes effect when the thread that started this program ends.)
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
    """Remove the directory; a tool that still writes to it will soon fail."""
    deadline = time.monotonic() + 10
    while os.path.exists(directory) and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.25)


def main(parent: int, server: int, ending: int, directory: str) -> None:
    """Wait until the parent has ended, then end the server (pid 0: not started yet) and remove its directory."""
    # A pid may be reused by another process later; a pidfd always refers to this one.
    handle = os.pidfd_open(server) if server else None
    while os.getppid() == parent:
        time.sleep(0.25)
    if handle is not None:
        _end(handle, ending)
    _remove(directory)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

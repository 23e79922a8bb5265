"""Ends a server when the tests' process is gone, however that ended; run beside each server.

    python -I -S watchdog.py PARENT SERVER SIGNAL FOLDER

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


def watch(parent: int, server: int, ending: int, folder: str) -> None:
    """Wait until the parent is gone, then end the server and remove its folder."""
    while os.getppid() == parent:
        time.sleep(0.25)
    _kill(server, ending)
    if not select.select([server], [], [], 10)[0]:
        _kill(server, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # A number may be given to another process later, a pidfd means this one for ever.
    watch(int(sys.argv[1]), os.pidfd_open(int(sys.argv[2])), int(sys.argv[3]), sys.argv[4])

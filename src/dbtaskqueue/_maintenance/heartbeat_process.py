"""The heartbeat process: it sends heartbeats for a worker while the worker's process exists.

Nothing that a task does can block it, neither a held interpreter lock nor a blocked main thread. To stay small, it
imports only one file of the package, the one with the engine's statement. It reads its settings as one line of JSON
from stdin, so that no password is ever on a command line. It exits with LOST when the worker was marked lost.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

LOST = 3
_CHECK = 1.0


def load_beat(orders: dict[str, Any]) -> Callable[[int], bool]:
    """Return the engine's function that sends one heartbeat, on a connection of its own."""
    sys.path += orders["path"]  # where a server's driver is; SQLite needs none
    spec = importlib.util.spec_from_file_location("beater", orders["beater"])
    assert spec is not None
    assert spec.loader is not None
    beater = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(beater)
    beat: Callable[[int], bool] = beater.open_beat(orders["options"])
    return beat


def main() -> int:
    """Send heartbeats until the parent has ended (return 0) or the worker was marked lost (return LOST)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return 0
        line += chunk
    orders = json.loads(line)
    beat = None
    next_beat = time.monotonic() + orders["interval"]  # the worker's row is new, and counts as its first heartbeat
    # the end of the pipe shows immediately that the worker has ended; if a child inherited it, the pid shows that
    while os.getppid() == orders["parent"]:
        if time.monotonic() >= next_beat:
            beat = beat or load_beat(orders)  # only now: loading a server's driver takes longest
            try:
                if not beat(orders["worker"]):
                    return LOST
                next_beat = time.monotonic() + orders["interval"]
            except Exception:  # the database is unavailable: try again soon
                next_beat = time.monotonic() + min(_CHECK, orders["interval"])
        pause = min(_CHECK, max(0.0, next_beat - time.monotonic()))
        if select.select([0], [], [], pause)[0] and not os.read(0, 1):
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The one statement that a heartbeat process sends to SQLite. Imports no package, since that process imports none.

A heartbeat need not survive a power failure, so it is not synchronised to the disk. It waits for the write lock as the
store does, by trying often: SQLite's own busy handler may take a second to get the lock.
"""

import sqlite3
import time
from collections.abc import Callable
from urllib.parse import quote

_BEAT = "UPDATE dbtaskqueue_worker SET beat = beat + 1 WHERE id = ? AND lost_at IS NULL"
_LOCK_TIMEOUT = 5.0
_PAUSE = 0.001


def open_beat(options: dict[str, str]) -> Callable[[int], bool]:
    """Return a function that stores a heartbeat; False if the worker's row is marked lost or does not exist."""
    connections: list[sqlite3.Connection] = []

    def beat(worker: int) -> bool:
        if not connections:
            uri = f"file:{quote(options['path'])}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous = OFF")
            connections.append(connection)
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                return connections[0].execute(_BEAT, (worker,)).rowcount == 1
            except sqlite3.Error as error:
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                    connections.pop().close()
                    raise
            time.sleep(_PAUSE)

    return beat

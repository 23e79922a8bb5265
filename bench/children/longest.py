"""Write one task after the other for some seconds; print the longest single write.

Arguments: "ours" or "bare" (SQLite's own busy handler, with a timeout of one minute), file, when to start
(``time.monotonic()``), seconds.
"""

import json
import sqlite3
import sys
import time

from bare_worker import INSERT, SCHEMA, connect

from dbtaskqueue import TaskQueue

kind, path, start, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])


def ours():
    """Return a function that calls ``enqueue``, at its default durability."""
    queue = TaskQueue(f"sqlite:///{path}")
    return lambda number: queue.enqueue({"url": f"http://example.com/{number}", "number": number})


def bare():
    """Return a function that runs one INSERT in a transaction of its own, with SQLite's own waiting."""
    connection = connect(path, "FULL")
    connection.execute("PRAGMA busy_timeout = 60000")
    try:
        connection.executescript(SCHEMA)
    except sqlite3.OperationalError:  # the other seven processes do the same
        time.sleep(0.1)
    return lambda number: connection.execute(INSERT, (time.time(), json.dumps({"number": number})))


submit = ours() if kind == "ours" else bare()
time.sleep(max(0.0, start - time.monotonic()))
longest, count, now = 0.0, 0, time.monotonic()
while now < start + seconds:
    submit(count)
    before, now = now, time.monotonic()
    longest, count = max(longest, now - before), count + 1
print(json.dumps({"longest": longest, "count": count}))

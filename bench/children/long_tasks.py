"""A worker with children, whose tasks time their own progress, checkpoints and steps. Arguments: URL, concurrency.

A payload names a function of this module and its arguments.
"""

import os
import sqlite3
import subprocess
import sys
import time
from statistics import median

from dbtaskqueue import Worker, current_task

VALUE = "x" * 1022  # 1 KiB as JSON
_WARM_UP = 5


def nothing():
    """Return the pid."""
    return os.getpid()


def keep():
    """Use progress, checkpoint and output, for long enough that the other child gets a task, too."""
    task = current_task()
    task.progress(1)
    task.checkpoint(VALUE)
    print("kept")
    time.sleep(0.2)
    return os.getpid()


def wait():
    """Start another process and wait until cancelled."""
    with subprocess.Popen(["sleep", "3600"]):
        current_task().progress(os.getpgrp())
        time.sleep(3600)


def progress(calls):
    """Return the seconds that this many calls of ``progress`` take."""
    task = current_task()
    started = time.perf_counter()
    for number in range(calls):
        task.progress(number, calls)
    return time.perf_counter() - started


def report(seconds):
    """Report progress continuously for this many seconds."""
    task = current_task()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for _ in range(100):
            number += 1
            task.progress(number)
        time.sleep(0.001)


def checkpoints(rounds, each, file):
    """Return the seconds of checkpoints, and of bare UPDATEs of the same value in another file, in alternation."""
    task, bare = current_task(), bare_sqlite(file)
    acts = {
        "ours": lambda number: task.checkpoint(f"{number:06}{VALUE[6:]}"),
        "bare": lambda number: bare(f"{number:06}{VALUE[6:]}"),
    }
    for act in acts.values():
        timed(act, range(_WARM_UP))
    taken = dict.fromkeys(acts, 0.0)
    for number in range(0, rounds * each, each):
        for name, act in acts.items():
            taken[name] += timed(act, range(number, number + each))
    return taken


def steps(count, file):
    """Return the median seconds of a step and of a bare commit, in alternation.

    ``file``: SQLite's, or a PostgreSQL URL.
    """
    task = current_task()
    bare = bare_postgresql(file) if file.startswith("postgresql:") else bare_sqlite(file)
    ours, bares = [], []
    for number in range(count):
        ours.append(timed(lambda number: task.step(f"step {number}", int, number), [number]))
        bares.append(timed(lambda number: bare(str(number)), [number]))
    return {"ours": median(ours[_WARM_UP:]), "bare": median(bares[_WARM_UP:])}


def timed(act, numbers):
    """Return the seconds that the function takes for all values."""
    started = time.perf_counter()
    for number in numbers:
        act(number)
    return time.perf_counter() - started


def bare_sqlite(file):
    """Return a function that runs a durable UPDATE of one row, on a connection with our settings."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT")
    connection.execute("INSERT INTO kept (value) VALUES (?)", (VALUE,))
    return lambda value: connection.execute("UPDATE kept SET value = ? WHERE id = 1", (value,))


def bare_postgresql(url):
    """Return the same for a PostgreSQL server."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)
    connection.execute("CREATE TABLE kept (id bigint PRIMARY KEY, value text NOT NULL)")
    connection.execute("INSERT INTO kept VALUES (1, '')")
    return lambda value: connection.execute("UPDATE kept SET value = %s WHERE id = 1", (value,), prepare=True)


def callback(payload):
    """Call the function that the payload names."""
    return globals()[payload.pop("do")](**payload)


if __name__ == "__main__":
    Worker(sys.argv[1], executor="process", concurrency=int(sys.argv[2])).run(callback)

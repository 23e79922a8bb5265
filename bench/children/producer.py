"""Producers: enqueue one by one from one or several threads, or the bare INSERT that it is held against.

Arguments: "ours" or "bare", file, synchronous, number of tasks, number of threads. Prints tasks a second.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from bare_worker import INSERT, SCHEMA, connect

from dbtaskqueue import TaskQueue

kind, path, synchronous, total, threads = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
WARM_UP = 100


def payload(number):
    """As in ``databases.py``."""
    return {"url": f"http://example.com/{number}", "number": number}


def ours():
    """``enqueue`` of one handle, shared by all threads."""
    queue = TaskQueue(f"sqlite:///{path}?synchronous={synchronous}")
    return lambda number: queue.enqueue(payload(number))


def bare():
    """One INSERT, which is a transaction of its own."""
    connection = connect(path, synchronous)
    connection.executescript(SCHEMA)
    return lambda number: connection.execute(INSERT, (time.time(), json.dumps(payload(number))))


submit = ours() if kind == "ours" else bare()


def share(count):
    """What one thread does."""
    for number in range(count):
        submit(number)


share(WARM_UP)
started = time.perf_counter()
if threads == 1:
    share(total)
else:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, [total // threads] * threads))
print(json.dumps(total // threads * threads / (time.perf_counter() - started)))

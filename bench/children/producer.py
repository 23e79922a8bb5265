"""Producers that enqueue one by one in one or several threads, or run the bare INSERT for comparison.

Arguments: "ours" or "bare", file, synchronous, number of tasks, number of threads. Prints tasks per second.
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
    """Enqueue through one handle, shared by all threads."""
    queue = TaskQueue(f"sqlite:///{path}?synchronous={synchronous}")
    return lambda number: queue.enqueue(payload(number))


def bare():
    """Run one INSERT per task, each in its own transaction."""
    connection = connect(path, synchronous)
    connection.executescript(SCHEMA)
    return lambda number: connection.execute(INSERT, (time.time(), json.dumps(payload(number))))


submit = ours() if kind == "ours" else bare()


def share(count):
    """Enqueue the tasks of one thread."""
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

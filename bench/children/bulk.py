"""Enqueue many tasks together: with ``enqueue_many``, or by COPY of the same rows into the same table with psycopg.

Arguments: "ours" or "copy", URL, number of rows, number of calls. Prints the rows per second of the median call.
"""

import json
import statistics
import sys
import time

import psycopg

from dbtaskqueue import TaskQueue

kind, url, rows, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
COLUMNS = "queue, state, rank, due, due_set_at, budget, created_at, options, payload"
payloads = [{"url": f"http://example.com/{number}", "number": number} for number in range(rows)]


def ours():
    """Call ``enqueue_many`` as a user does."""
    queue = TaskQueue(url)
    return lambda: queue.enqueue_many(payloads)


def copy():
    """Write the rows that the queue would write in PostgreSQL's fastest way, which returns no ids."""
    with TaskQueue(url) as queue:
        queue.enqueue(payloads[0])
    connection = psycopg.connect(url, autocommit=True)
    taken = connection.execute("SELECT rank, budget, options FROM dbtaskqueue.dbtaskqueue_task").fetchone()

    def run():
        now = int(time.time() * 1e6)
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY dbtaskqueue.dbtaskqueue_task ({COLUMNS}) FROM STDIN") as stream:
                for payload in payloads:
                    encoded = json.dumps(payload, separators=(",", ":"))
                    stream.write_row(("default", "pending", taken[0], now, now, taken[1], now, taken[2], encoded))
            assert cursor.rowcount == rows

    return run


act = ours() if kind == "ours" else copy()
act()
times = []
for _ in range(calls):
    started = time.perf_counter()
    act()
    times.append(time.perf_counter() - started)
print(json.dumps(rows / statistics.median(times)))

"""A worker through which very many tasks pass; each last one of a part enqueues the next part.

Arguments: URL, number of tasks, of how many a part is. Prints for each part the seconds of each claim of 100.
"""

import json
import sys
import time

from dbtaskqueue import TaskQueue, Worker

url, total, part = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
BATCH = 100
queue = TaskQueue(url)
times = []
exchange = queue.store.exchange
count = 0


def timed(*args, **options):
    """The store's exchange: it ends what was done and claims what comes next."""
    started = time.perf_counter()
    exchanged = exchange(*args, **options)
    if len(exchanged.claimed) == BATCH:
        times[-1].append(time.perf_counter() - started)
    return exchanged


def callback(payload):
    """Does nothing, but for the last one of a part."""
    global count
    count += 1
    if count % part == 0 and count < total:
        enqueue()
    return {"status": "OK", "number": payload["number"]}


def enqueue():
    """The next part."""
    times.append([])
    queue.enqueue_many({"url": f"http://example.com/{count + n}", "number": count + n} for n in range(part))


enqueue()
queue.store.exchange = timed
Worker(queue).run(callback, max_tasks=total, batch=BATCH)
print(json.dumps(times))

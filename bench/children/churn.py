"""A worker that runs a great many tasks in parts. The last task of each part enqueues the next part.

Arguments: URL, number of tasks, tasks per part. Prints for each part the seconds of each claim of 100 tasks.
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
    """Time the store's ``exchange``, which stores outcomes and claims the next tasks."""
    started = time.perf_counter()
    exchanged = exchange(*args, **options)
    if len(exchanged.claimed) == BATCH:
        times[-1].append(time.perf_counter() - started)
    return exchanged


def callback(payload):
    """Do nothing, except for the last task of a part."""
    global count
    count += 1
    if count % part == 0 and count < total:
        enqueue()
    return {"status": "OK", "number": payload["number"]}


def enqueue():
    """Enqueue the next part."""
    times.append([])
    queue.enqueue_many({"url": f"http://example.com/{count + n}", "number": count + n} for n in range(part))


enqueue()
queue.store.exchange = timed
Worker(queue).run(callback, max_tasks=total, batch=BATCH)
print(json.dumps(times))

"""Enqueue and run plain tasks on command, to compare two versions of dbtaskqueue. Argument: URL.

Each line of the standard input is "enqueue N", "enqueue_many N" or "work N". The answer has the seconds that it took,
by the clock and of CPU time.
"""

import json
import sys
import time

from dbtaskqueue import TaskQueue, Worker

url = sys.argv[1]
queue = TaskQueue(url)
number = 0


def payloads(count):
    """Return new payloads, as in ``databases.py``."""
    global number
    first, number = number, number + count
    return [{"url": f"http://example.com/{each}", "number": each} for each in range(first, number)]


def now():
    """Return the time and the CPU time of all threads of this process."""
    return time.perf_counter(), time.process_time()


def enqueue(count):
    """Enqueue one by one."""
    some = payloads(count)
    started = now()
    for payload in some:
        queue.enqueue(payload)
    return started


def enqueue_many(count):
    """Enqueue all in one call."""
    some = payloads(count)
    started = now()
    queue.enqueue_many(some)
    return started


def work(count):
    """Run tasks, enqueued before. The measurement starts with the first one."""
    started = []

    def callback(payload):
        if not started:
            started.extend(now())
        return {"status": "OK", "number": payload["number"]}

    left = queue.stats().pending
    if left < count:
        queue.enqueue_many(payloads(count - left))
    Worker(url).run(callback, max_tasks=count)
    return started


for line in sys.stdin:
    verb, count = line.split()
    started = {"enqueue": enqueue, "enqueue_many": enqueue_many, "work": work}[verb](int(count))
    seconds, cpu = (after - before for after, before in zip(now(), started, strict=True))
    print(json.dumps({"seconds": seconds, "cpu": cpu}), flush=True)

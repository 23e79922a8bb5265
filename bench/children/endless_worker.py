"""Run short tasks until it is ended; print each second how many a second it ran. Argument: URL."""

import json
import sys
import threading
import time

from dbtaskqueue import TaskQueue, Worker

ran = 0


def work(payload):
    """Count."""
    global ran
    ran += 1


def report():
    """Print a line each second."""
    last, then = 0, time.monotonic()
    while True:
        time.sleep(1)
        now, count = time.monotonic(), ran
        print(json.dumps({"at": now, "rate": (count - last) / (now - then)}), flush=True)
        last, then = count, now


def produce(queue):
    """Keep tasks waiting."""
    while True:
        if queue.stats().pending < 20_000:
            queue.enqueue_many(range(10_000))
        time.sleep(0.05)


if __name__ == "__main__":
    with TaskQueue(sys.argv[1], "busy") as queue:
        queue.enqueue_many(range(20_000))
        print(json.dumps({"ready": True}), flush=True)
        for target in (lambda: produce(queue), report):
            threading.Thread(target=target, daemon=True).start()
        Worker(queue).run(work)

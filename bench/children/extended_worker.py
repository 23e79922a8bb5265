"""A worker of a queue with an extension, timed from the start of its first task until all outcomes are stored.

Arguments: URL, number of tasks, and the extension: "none", "empty" (overrides nothing) or "full" (every method).
"""

import contextlib
import json
import sys
import time

from dbtaskqueue import Extension, TaskQueue, Worker


class Full(Extension):
    """Overrides every method, and does nothing in it."""

    def enqueue(self, new):
        return contextlib.nullcontext()

    def enqueuing(self, new):
        pass

    def attempt(self, task):
        return contextlib.nullcontext()

    def ended(self, task, outcome, error):
        pass

    def process(self):
        return contextlib.nullcontext()

    def worker(self, worker):
        return contextlib.nullcontext()


url, tasks, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
started: list[tuple[float, float]] = []


def now():
    """Return the wall time and the CPU time of this process."""
    return time.perf_counter(), time.process_time()


def rates(number, before):
    """Return tasks per second of wall time and of CPU time."""
    return [number / (after - start) for after, start in zip(now(), before, strict=True)]


def callback(payload):
    if not started:
        started.append(now())
    return {"status": "OK", "number": payload["number"]}


queue = TaskQueue(url, extensions={"none": [], "empty": [Extension()], "full": [Full()]}[kind])
Worker(queue).run(callback, max_tasks=tasks)
ran = rates(tasks, started[0])
before = now()
for number in range(tasks // 10):
    queue.enqueue({"number": number})
print(json.dumps({"run": ran, "enqueue": rates(tasks // 10, before)}))

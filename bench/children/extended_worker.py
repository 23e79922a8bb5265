"""Workers and producers with and without an extension, in turn, in one process, so that all see the same machine.

Arguments: a URL, number of rounds, tasks in a round. An extension is "none", "empty" (overrides nothing)
or "full" (every method). Prints the seconds of each in all rounds.
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


def run(queue, tasks):
    """Return the seconds from the start of the first task until all outcomes are stored."""
    started = []

    def callback(payload):
        if not started:
            started.append(time.perf_counter())
        return {"status": "OK", "number": payload["number"]}

    Worker(queue).run(callback, max_tasks=tasks)
    return time.perf_counter() - started[0]


def enqueue(queue, tasks):
    """Return the seconds that it takes to enqueue tasks one by one."""
    started = time.perf_counter()
    for number in range(tasks):
        queue.enqueue({"number": number})
    return time.perf_counter() - started


url, rounds, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kinds = {"none": [], "empty": [Extension()], "full": [Full()]}
queues = {kind: TaskQueue(url, kind, extensions=extensions) for kind, extensions in kinds.items()}
seconds = {kind: {"enqueue": 0.0, "run": 0.0} for kind in kinds}
for number in range(-1, rounds):
    for kind, queue in queues.items() if number % 2 else reversed(queues.items()):
        enqueued = enqueue(queue, tasks // 10)
        queue.enqueue_many([{"number": number} for number in range(tasks - tasks // 10)])
        ran = run(queue, tasks)
        if number >= 0:  # the first round is for getting warm
            seconds[kind]["enqueue"] += enqueued
            seconds[kind]["run"] += ran
print(json.dumps(seconds))

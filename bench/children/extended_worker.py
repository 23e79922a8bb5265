"""Workers and producers with and without an extension, in turn, in one process, so that all see the same machine.

Arguments: a URL, number of rounds, tasks in a round. An extension is "none", "empty" (overrides nothing)
or "full" (every method). Prints the seconds of each in all rounds: wall time and CPU time of this process.
"""

import contextlib
import itertools
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


def now():
    """Return the wall time and the CPU time of this process."""
    return time.perf_counter(), time.process_time()


def since(before):
    """Return the seconds since then, of both kinds."""
    return [after - start for after, start in zip(now(), before, strict=True)]


def run(queue, tasks):
    """Return the seconds from the start of the first task until all outcomes are stored."""
    started = []

    def callback(payload):
        if not started:
            started.append(now())
        return {"status": "OK", "number": payload["number"]}

    Worker(queue).run(callback, max_tasks=tasks)
    return since(started[0])


def enqueue(queue, tasks):
    """Return the seconds that it takes to enqueue tasks one by one."""
    started = now()
    for number in range(tasks):
        queue.enqueue({"number": number})
    return since(started)


url, rounds, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kinds = {"none": [], "empty": [Extension()], "full": [Full()]}
queues = {kind: TaskQueue(url, kind, extensions=extensions) for kind, extensions in kinds.items()}
seconds = {kind: {"enqueue": [0.0, 0.0], "run": [0.0, 0.0]} for kind in kinds}
orders = list(itertools.permutations(queues))  # so that each kind follows each other one equally often
for number in range(-1, rounds):
    for kind in orders[number % len(orders)]:
        queue = queues[kind]
        enqueued = enqueue(queue, tasks // 10)
        queue.enqueue_many([{"number": number} for number in range(tasks - tasks // 10)])
        ran = run(queue, tasks)
        if number >= 0:  # the first round is for getting warm
            for what, took in (("enqueue", enqueued), ("run", ran)):
                seconds[kind][what] = [total + part for total, part in zip(seconds[kind][what], took, strict=True)]
print(json.dumps(seconds))

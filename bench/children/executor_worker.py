"""A worker with concurrency 2, in threads or children, timed from the start of its first task until all are stored.

Arguments: URL, executor, number of tasks, a file in which each process records the start of its first task.
"""

import json
import sys
import time

from dbtaskqueue import Worker

url, executor, tasks, notes = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
started: list[float] = []


def noop(payload):
    """Do nothing, as in the other queues."""
    if not started:
        started.append(time.monotonic())
        with open(notes, "a") as file:
            file.write(f"{started[0]}\n")
    return {"status": "OK", "number": payload["number"]}


if __name__ == "__main__":
    Worker(url, executor=executor, concurrency=2).run(noop, max_tasks=tasks)
    ended = time.monotonic()
    with open(notes) as file:
        print(json.dumps(tasks / (ended - min(map(float, file)))))

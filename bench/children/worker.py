"""A worker with default options, timed from the start of its first task until all outcomes are stored.

Arguments: URL, number of tasks.
"""

import json
import sys
import time

from dbtaskqueue import Worker

url, tasks = sys.argv[1], int(sys.argv[2])
started: list[float] = []


def callback(payload):
    if not started:
        started.append(time.perf_counter())
    return {"status": "OK", "number": payload["number"]}


Worker(url).run(callback, max_tasks=tasks)
print(json.dumps(tasks / (time.perf_counter() - started[0])))

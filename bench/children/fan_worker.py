"""A worker that runs all due tasks in burst mode, and those that their ends unblock.

Prints when it started its first task, when it ran its last plain task, and when it ran the child: a task whose payload
is "child". Arguments: URL, when to start (``time.monotonic()``).
"""

import json
import sys
import time

from dbtaskqueue import Worker

found = {"tasks": 0, "started": None, "last": None, "child": None}


def callback(payload):
    """Record the time."""
    now = time.monotonic()
    found["tasks"] += 1
    found["started"] = found["started"] or now
    found["child" if payload == "child" else "last"] = now


worker = Worker(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.monotonic()))
worker.run(callback, burst=True)
print(json.dumps(found))

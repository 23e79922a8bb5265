"""A worker that runs all due tasks. It prints when the first one started, when all were stored, and their number.

Arguments: URL, when to start (``time.monotonic()``), and optionally the batch size, which is "auto" by default.
"""

import json
import sys
import time

from dbtaskqueue import Worker

started: list[float] = []
count = 0


def callback(payload):
    """Count the call."""
    global count
    if not started:
        started.append(time.monotonic())
    count += 1
    return {"status": "OK", "number": payload["number"]}


worker = Worker(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.monotonic()))
worker.run(callback, burst=True, batch=int(sys.argv[3]) if len(sys.argv) > 3 else "auto")
print(json.dumps({"tasks": count, "started": started[0] if started else None, "ended": time.monotonic()}))

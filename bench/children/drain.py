"""A worker that runs all that is due: when its first task started, when all were stored, how many they were.

Arguments: URL, when to start (``time.monotonic()``); how many to claim at once, if not as many as it finds best.
"""

import json
import sys
import time

from dbtaskqueue import Worker

started: list[float] = []
count = 0


def callback(payload):
    """Does nothing, and counts it."""
    global count
    if not started:
        started.append(time.monotonic())
    count += 1
    return {"status": "OK", "number": payload["number"]}


worker = Worker(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.monotonic()))
worker.run(callback, burst=True, batch=int(sys.argv[3]) if len(sys.argv) > 3 else "auto")
print(json.dumps({"tasks": count, "started": started[0] if started else None, "ended": time.monotonic()}))

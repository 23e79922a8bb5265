"""A worker that runs all that is due: when its first task began, when all were stored, how many they were.

Arguments: URL, when to begin (``time.monotonic()``); how many to claim at once, if not as many as it finds best.
"""

import json
import sys
import time

from dbtaskqueue import Worker

began: list[float] = []
count = 0


def callback(payload):
    """Does nothing, and counts it."""
    global count
    if not began:
        began.append(time.monotonic())
    count += 1
    return {"status": "OK", "number": payload["number"]}


worker = Worker(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.monotonic()))
worker.run(callback, burst=True, batch=int(sys.argv[3]) if len(sys.argv) > 3 else "auto")
print(json.dumps({"tasks": count, "began": began[0] if began else None, "ended": time.monotonic()}))

"""Enqueue one by one until the standard input ends; print the longest single call, in seconds. Argument: URL."""

import json
import select
import sys
import time

from dbtaskqueue import TaskQueue

with TaskQueue(sys.argv[1], "other") as queue:
    queue.enqueue(0)
    print("null", flush=True)
    longest, count = 0.0, 0
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        started = time.monotonic()
        queue.enqueue({"number": count})
        longest, count = max(longest, time.monotonic() - started), count + 1
    print(json.dumps({"longest": longest, "count": count}))

"""A producer that enqueues one by one for some time. Arguments: URL, when to start (``time.monotonic()``), seconds."""

import json
import sys
import time

from dbtaskqueue import TaskQueue

url, start, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
queue = TaskQueue(url)
time.sleep(max(0.0, start - time.monotonic()))
count, now = 0, time.monotonic()
started = now
while now < start + seconds:
    queue.enqueue({"url": f"http://example.com/{count}", "number": count})
    count, now = count + 1, time.monotonic()
print(json.dumps({"count": count, "seconds": now - started}))

"""A producer: enqueues one by one for some time. Arguments: URL, when to begin (``time.monotonic()``), seconds."""

import json
import sys
import time

from dbtaskqueue import TaskQueue

url, begin, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
queue = TaskQueue(url)
time.sleep(max(0.0, begin - time.monotonic()))
count, now = 0, time.monotonic()
began = now
while now < begin + seconds:
    queue.enqueue({"url": f"http://example.com/{count}", "number": count})
    count, now = count + 1, time.monotonic()
print(json.dumps({"count": count, "seconds": now - began}))

"""A producer that enqueues one by one. Arguments: URL, number of tasks. Prints tasks per second."""

import json
import sys
import time

from dbtaskqueue import TaskQueue

url, total = sys.argv[1], int(sys.argv[2])
WARM_UP = 100
with TaskQueue(url) as queue:
    for number in range(-WARM_UP, total):
        if number == 0:
            started = time.perf_counter()
        queue.enqueue({"url": f"http://example.com/{number}", "number": number})
    print(json.dumps(total / (time.perf_counter() - started)))

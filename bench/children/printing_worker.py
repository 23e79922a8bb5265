"""Run a task in a child process that prints the time every 0.3 s. Arguments: URL, number of lines.

Prints the task's id, then nothing. Lines are Unix times.
"""

import json
import sys
import time

from dbtaskqueue import TaskQueue, Worker


def work(payload):
    """Print times, then stay a while so that the last ones are seen."""
    for _ in range(payload["lines"]):
        print(f"{time.time():.3f}", flush=True)
        time.sleep(0.3)
    time.sleep(5)


if __name__ == "__main__":
    with TaskQueue(sys.argv[1]) as queue:
        task = queue.enqueue({"lines": int(sys.argv[2])})
        print(json.dumps({"task": task.id}), flush=True)
        Worker(queue, executor="process").run(work, burst=True)

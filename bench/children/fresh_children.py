"""A worker with a new child for each task. The result of a task is the wall-clock time at which its first line ran.

Argument: URL. It runs one task at a time, so that the start of each is stored with its claim.
"""

import sys
import time

from dbtaskqueue import Worker


def started(payload):
    """Return the time at which this line runs."""
    return time.time()


if __name__ == "__main__":
    Worker(sys.argv[1], executor="process", tasks_per_child=1).run(started, batch=1)

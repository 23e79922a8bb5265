"""A worker with a new child for each task, whose result tells when its first line ran, by the wall clock.

Argument: URL. One task at a time, so that each has its start stored as it was claimed.
"""

import sys
import time

from dbtaskqueue import Worker


def started(payload):
    """When this line runs."""
    return time.time()


if __name__ == "__main__":
    Worker(sys.argv[1], executor="process", tasks_per_child=1).run(started, batch=1)

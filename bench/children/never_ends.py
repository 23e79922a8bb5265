"""A worker whose tasks print when they start, and do not end by themselves. Argument: URL."""

import json
import os
import sys
import time

from dbtaskqueue import Worker, current_task


def callback(payload):
    """Print the process, the attempt and the time of its start, then wait."""
    print(json.dumps({"pid": os.getpid(), "attempt": current_task().attempt, "started": time.monotonic()}), flush=True)
    while not current_task().should_stop:
        time.sleep(0.05)


Worker(sys.argv[1], drain_timeout=0.1).run(callback)

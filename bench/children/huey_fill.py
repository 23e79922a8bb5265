"""Enqueue tasks for huey's consumer, in the environment of ``huey_tasks.py``. Prints tasks per second."""

import json
import time

from huey_tasks import expected, noop

WARM_UP = 100


def share(first, last):
    """Enqueue the tasks with these numbers."""
    for number in range(first, last):
        noop({"url": f"http://example.com/{number}", "number": number})


share(0, WARM_UP)
started = time.perf_counter()
share(WARM_UP, expected + WARM_UP)
print(json.dumps(expected / (time.perf_counter() - started)))

"""The module that huey's consumer imports for chords and pipelines; as a program, it enqueues one.

Argument of the program: "chord" (no-op tasks and one after them) or "pipeline" (tasks one after the other). The last
task prints how many tasks ran per second. Environment: that of ``huey_tasks.py``.
"""

import json
import os
import sys
import time

from huey.api import chord
from huey_tasks import Huey, expected

huey = Huey("bench", filename=os.environ["BENCH_FILE"])
started = []


@huey.task()
def noop(*_):
    """Do nothing, except that the first one records the time."""
    if not started:
        started.append(time.perf_counter())


@huey.task()
def last(*_):
    """Print the rate."""
    print(json.dumps(expected / (time.perf_counter() - started[0])), flush=True)


def enqueue(kind):
    """Enqueue a chord or a pipeline."""
    if kind == "chord":
        huey.enqueue(chord([noop.s() for _ in range(expected)], last.s()))
        return
    task = noop.s()
    for _ in range(expected - 1):
        task = task.then(noop)
    huey.enqueue(task.then(last))


if __name__ == "__main__":
    import huey_flow  # under the name by which the consumer knows the tasks

    huey_flow.enqueue(sys.argv[1])
    print("null")

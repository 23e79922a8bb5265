"""A worker gets SIGKILL while it runs a task: how soon does another one in the same place run the task?"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row
from .processes import next_line, start_child

_START_UP = 1.0


def measure(bench: Bench) -> Iterator[Row]:
    """Measure the seconds from the kill to the start of the second attempt."""
    bench.say("a worker is killed")
    yield Row(
        "rescue",
        "kill -9 of a worker → its task runs again in another one, same place",
        [_rescue(bench) for _ in range(bench.repeats)],
        "s",
        2,
        details="idle second worker, default lease",
    )


def _rescue(bench: Bench) -> float:
    with databases.fresh(bench) as path, TaskQueue(databases.url(path)) as queue:
        queue.enqueue({"number": 1})
        with start_child("never_ends.py", databases.url(path)) as victim:
            assert next_line(victim)["attempt"] == 1
            with start_child("never_ends.py", databases.url(path)) as rescuer:
                time.sleep(_START_UP + random.random())  # at a random time between two checks of the rescuer
                killed = time.monotonic()
                victim.kill()
                again = next_line(rescuer)
                assert (again["pid"], again["attempt"]) == (rescuer.pid, 2)
                return float(again["started"] - killed)

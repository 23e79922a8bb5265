"""The memory of a worker, and whether it grows with the number of tasks that it has run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row, ratios
from .processes import family, proportional_mib, resident_mib, start_child

FEW, MANY = 10_000, 200_000
_PATIENCE = 120.0


class Memory(NamedTuple):
    """The memory of a worker and all its helpers, in MiB."""

    resident: float
    proportional: float
    processes: int


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for growth and size."""
    few, many = bench.some(FEW), bench.some(MANY)
    bench.say(f"memory after {few:,} and after {many:,} tasks")
    pairs = [(_after(bench, few), _after(bench, many)) for _ in range(bench.repeats)]
    after_few, after_many = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    yield Row(
        "memory",
        f"memory of a worker after {many:,} tasks against after {few:,}",
        ratios([each.resident for each in after_many], [each.resident for each in after_few]),
        "×",
        1.1,
        details=f"{_median(after_many):.1f} MiB against {_median(after_few):.1f} MiB resident, helpers included",
    )
    pss = statistics.median(each.proportional for each in after_few)
    yield Row(
        "memory",
        "memory of a worker that ran no-op tasks, with its helpers",
        [each.resident for each in after_few],
        "MiB",
        40,
        details=f"resident, sum of {after_few[0].processes} processes; proportional (shared pages once): {pss:.1f} MiB",
    )


def _median(memories: list[Memory]) -> float:
    return statistics.median(each.resident for each in memories)


def _after(bench: Bench, tasks: int) -> Memory:
    with databases.fresh(bench, databases.ours(bench, tasks)) as path:
        url = databases.url(path, "NORMAL")
        with TaskQueue(url) as queue, start_child("idle_worker.py", url) as worker:
            last = queue.tasks(limit=1)[0]
            last.wait(_PATIENCE)
            time.sleep(0.5)
            members = family(worker.pid)
            return Memory(resident_mib(members), proportional_mib(members), len(members))

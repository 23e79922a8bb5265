"""The CPU time of an idle worker, including its helper processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row
from .processes import cpu_seconds, family, start_child

_SETTLING = 2.0
_SECONDS = 25.0
_PERCENT = 100


def measure(bench: Bench) -> Iterator[Row]:
    """Measure all repeats at the same time, each on its own file, which is possible because they are idle."""
    seconds = _SECONDS / 5 if bench.quick else _SECONDS
    bench.say(f"{bench.repeats} idle workers for {seconds:.0f} s")
    with contextlib.ExitStack() as stack:
        pids = [_start(bench, stack) for _ in range(bench.repeats)]
        time.sleep(_SETTLING)
        families = [family(pid) for pid in pids]
        before = [cpu_seconds(members) for members in families]
        time.sleep(seconds)
        taken = [cpu_seconds(members) - start for members, start in zip(families, before, strict=True)]
    yield Row(
        "idle",
        "idle worker with all its helpers",
        [_PERCENT * each / seconds for each in taken],
        "% of a core",
        0.5,
        details=f"over {seconds:.0f} s, {len(families[0])} processes each",
    )


def _start(bench: Bench, stack: contextlib.ExitStack) -> int:
    path = stack.enter_context(databases.fresh(bench))
    worker = stack.enter_context(start_child("idle_worker.py", databases.url(path)))
    with TaskQueue(databases.url(path)) as queue:
        queue.enqueue({"number": 1}).wait(10)  # until it has started, with its heartbeat process
    return worker.pid

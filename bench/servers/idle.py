"""The costs of an idle worker: CPU time, including its helpers, and statements."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from ..harness import Bench, Row
from ..processes import cpu_seconds, family, start_child
from .engines import Engine

_SETTLING = {"PostgreSQL": 10, "MariaDB": 90}
"""Seconds until a worker is idle after its last task. A worker that polls lengthens its interval step by step."""
_SECONDS = 30.0
_PERCENT = 100


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Measure all repeats at the same time, each on its own database, which is possible because they are idle."""
    seconds = bench.some(int(_SECONDS))
    bench.say(f"{engine.name}: {bench.repeats} idle workers for {seconds} s")
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(engine.fresh()) for _ in range(bench.repeats)]
        pids = [_start(url, stack) for url in urls]
        time.sleep(_SETTLING[engine.name])
        families = [family(pid) for pid in pids]
        before = [cpu_seconds(members) for members in families]
        started = time.monotonic()
        statements = engine.statements(urls, seconds)
        took = time.monotonic() - started
        taken = [cpu_seconds(members) - start for members, start in zip(families, before, strict=True)]
    group = f"{engine.name.lower()}.idle"
    yield Row(
        group,
        f"{engine.name}, idle worker with all its helpers: CPU",
        [_PERCENT * each / took for each in taken],
        "% of a core",
        0.5,
        details=f"over {seconds} s, {len(families[0])} processes each",
    )
    yield Row(
        group,
        f"{engine.name}, idle worker with all its helpers: statements",
        statements,
        "a second",
        2,
        details=f"BEGIN and COMMIT counted; over {seconds} s, starting {_SETTLING[engine.name]} s after its last task",
    )


def _start(url: str, stack: contextlib.ExitStack) -> int:
    worker = stack.enter_context(start_child("idle_worker.py", url))
    with TaskQueue(url) as queue:
        queue.enqueue({"number": 1}).wait(10)  # until it has started, with its heartbeat process
    return worker.pid

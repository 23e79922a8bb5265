"""The load on the server from many workers that run long tasks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from ..harness import Bench, Row
from ..processes import start_child
from .engines import Engine, Postgresql

WORKERS = 50
CONCURRENCY = 10
_SECONDS = 20.0
_SETTLING = 15.0
_PATIENCE = 180.0
_PERCENT = 100


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row, from a separate server that accepts more connections than by default."""
    workers, seconds = bench.some(WORKERS), bench.some(int(_SECONDS))
    bench.say(f"PostgreSQL: {workers} workers with {CONCURRENCY} tasks each that run for long")
    crowded = Postgresql(max_connections="300")
    with crowded.fresh() as url, contextlib.ExitStack() as stack:
        _start(url, workers, stack)
        time.sleep(_SETTLING)
        values = [_percent(crowded, seconds) for _ in range(bench.repeats)]
        connections = crowded.run("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'fresh%'")[0][0]
    crowded.server.close()
    yield Row(
        "postgresql.crowd",
        f"PostgreSQL, {workers} workers × {CONCURRENCY} tasks at once that run for long: CPU of the whole server",
        values,
        "% of a core",
        2,
        details=f"all processes of the server over {seconds} s each, {connections} connections, max_connections=300",
    )


def _start(url: str, workers: int, stack: contextlib.ExitStack) -> None:
    """Start the workers; return when each one runs all of its tasks."""
    with TaskQueue(url) as queue:
        queue.enqueue_many([None] * workers * CONCURRENCY)
        for _ in range(workers):
            stack.enter_context(start_child("sleeping_worker.py", url, CONCURRENCY))
        deadline = time.monotonic() + _PATIENCE
        while queue.stats().running < workers * CONCURRENCY:
            assert time.monotonic() < deadline, queue.stats()
            time.sleep(1)


def _percent(engine: Engine, seconds: float) -> float:
    before, started = engine.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return _PERCENT * (engine.cpu_seconds() - before) / (time.monotonic() - started)

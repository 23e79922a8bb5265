"""Metrics of a SQLite file with a million tasks: an exact count, as ``dbtaskqueue metrics`` makes it, and a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from dbtaskqueue import TaskQueue
from dbtaskqueue.metrics import MetricsCache
from dbtaskqueue.metrics.census import Counting
from dbtaskqueue.metrics.exposition import expose
from dbtaskqueue.metrics.families import Families

from . import backlog, databases
from .harness import Bench, Row

_TARGET_MS, _REQUEST_MS = 200.0, 5.0


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row for the exact count, and one for a request that is answered from the last count."""
    path = backlog.big_file(bench)
    what = f"with {backlog.FINISHED:,} finished and {backlog.FUTURE:,} waiting tasks"
    bench.say("an exact count, and requests")
    with TaskQueue(databases.url(path)) as queue:
        exact = [_milliseconds(lambda: expose(Families().of(Counting(queue.store)()))) for _ in range(bench.repeats)]
        yield Row("metrics", f"count exactly and render, {what}", exact, "ms", _TARGET_MS)
        cache = MetricsCache(queue.store)
        cache.render()
        requests = [_milliseconds(cache.render) for _ in range(bench.repeats)]
        cache.close()
    yield Row("metrics", f"answer a request, {what}", requests, "ms", _REQUEST_MS)


def _milliseconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1000

"""The size of the tables and the duration of a claim after a great many tasks."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ..harness import Bench, Row
from ..processes import next_line, start_child
from .engines import Engine, database_of

TASKS = 1_000_000
PART = 10_000
_SIZE, _TIME = 5.0, 1.5
_MIB = 2**20
_MILLI = 1e3


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Measure the size against that of the rewritten tables, and claims against the first ones.

    Only once: it takes long.
    """
    tasks = bench.some(TASKS)
    bench.say(f"{engine.name}: {tasks:,} tasks pass through")
    with engine.fresh() as url:
        with start_child("churn.py", url, tasks, PART) as worker:
            times = next_line(worker, patience=3600)
        size = engine.size(database_of(url))
        engine.rewrite(database_of(url))
        live = engine.size(database_of(url))
    group = f"{engine.name.lower()}.churn"
    passed = f"{engine.name}, after {tasks:,} tasks passed through"
    yield Row(
        group,
        f"{passed}: tables and indexes against the live rows' size",
        [size / live],
        "×",
        _SIZE,
        details=f"{size / _MIB:.0f} MiB against {live / _MIB:.0f} MiB after a rewrite; no finished task was deleted",
    )
    first, last = times[0], times[-1]
    yield Row(
        group,
        f"{passed}: a claim against those of the first {PART:,}",
        [statistics.median(last) / statistics.median(first)],
        "×",
        _TIME,
        details=f"{statistics.median(last) * _MILLI:.2f} ms against {statistics.median(first) * _MILLI:.2f} ms, medians"
        f" over {PART:,} tasks, claimed (and the last ones ended) 100 at a time",
    )

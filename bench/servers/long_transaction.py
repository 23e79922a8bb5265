"""A transaction with a snapshot stays open while tasks run, so their dead rows cannot be cleaned up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from .. import databases
from ..harness import Bench, Row
from ..processes import run_child
from .engines import Engine, fill

TASKS = 50_000
_OPEN = 60.0
"""Seconds for which the transaction is open."""
_CLAIMS = 300
"""The number of single claims, each followed by its start and finish."""
_AT_THE_END, _AFTERWARDS = 3.0, 1.5
_PATIENCE = 90.0
"""Seconds after the end of the transaction until claims must be as fast as before: autovacuum runs once a minute."""
_MILLI = 1e3


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Measure a claim at the end of that transaction, and after it, against one at its start."""
    tasks, seconds = bench.some(TASKS), bench.some(int(_OPEN))
    bench.say(f"{engine.name}: a transaction of {seconds} s while {tasks:,} tasks pass")
    rounds = [_round(engine, tasks, seconds) for _ in range(1 if bench.quick else 3)]
    start, end, after, _ = (statistics.median(column) for column in zip(*rounds, strict=True))
    group = f"{engine.name.lower()}.long_transaction"
    what = f"{engine.name}, a claim %s a transaction that stayed open for {seconds} s while {tasks:,} tasks passed"
    yield Row(
        group,
        f"{what % 'at the end of'}, against its start",
        [each[1] / each[0] for each in rounds],
        "×",
        _AT_THE_END,
        details=f"{end * _MILLI:.2f} ms against {start * _MILLI:.2f} ms, medians of {_CLAIMS} claims of one task",
    )
    waits = ", ".join(f"{each[3]:.0f}" for each in rounds)
    yield Row(
        group,
        f"{what % 'after'}, against its start",
        [each[2] / each[0] for each in rounds],
        "×",
        _AFTERWARDS,
        details=f"{after * _MILLI:.2f} ms; that was {waits} s after its end",
    )


def _round(engine: Engine, tasks: int, seconds: float) -> tuple[float, float, float, float]:
    with engine.fresh() as url, TaskQueue(url) as queue:
        fill(url, tasks)
        engine.checkpoint()
        _claims(queue)  # so that plans are made and pages are cached
        with engine.hold_snapshot(url):
            opened = time.monotonic()
            start = _claims(queue)
            run_child("worker.py", url, tasks - 3 * _CLAIMS)
            time.sleep(max(0.0, opened + seconds - time.monotonic()))
            end = _claims(queue)
        closed = time.monotonic()
        fill(url, tasks)
        while (after := _claims(queue)) > _AFTERWARDS * start and time.monotonic() < closed + _PATIENCE:
            time.sleep(1)
        return start, end, after, time.monotonic() - closed


def _claims(queue: TaskQueue) -> float:
    """Return the median seconds of a claim."""
    times = []
    for _ in range(_CLAIMS):
        started = time.perf_counter()
        [task] = queue.fetch()
        times.append(time.perf_counter() - started)
        task.start()
        task.finish(databases.payload(0))
    return statistics.median(times)

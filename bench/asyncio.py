"""Hundreds of waiting coroutines in one event loop."""

from __future__ import annotations

from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row
from .processes import run_child

TASKS, AT_ONCE, EACH = 1_000, 500, 1.0


def measure(bench: Bench) -> Iterator[Row]:
    """Measure from the start of the worker until the last outcome is stored; the sleeping alone takes two seconds."""
    bench.say(f"{TASKS:,} coroutines that sleep, {AT_ONCE} at once")
    yield Row(
        "asyncio",
        f"{TASKS:,} tasks of sleep({EACH:g}) with executor=asyncio, concurrency={AT_ONCE}",
        [_round(bench) for _ in range(bench.repeats)],
        "s",
        4.0,
        details=f"at least {TASKS / AT_ONCE * EACH:g} s by their number; a fresh file each",
    )


def _round(bench: Bench) -> float:
    with databases.fresh(bench) as path:
        with TaskQueue(databases.url(path)) as queue:
            queue.enqueue_many([{"seconds": EACH}] * TASKS)
        ran = run_child("sleepers.py", databases.url(path), AT_ONCE)
        with TaskQueue(databases.url(path)) as queue:
            assert queue.stats().done == TASKS
    return float(ran["seconds"])

"""One worker process against huey's consumer, and against a loop over sqlite3 written by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from . import databases
from .harness import Bench, Row, interleave, rate, ratios
from .processes import CHILDREN, next_line, run_child, started

TASKS = 50_000
"""Enough tasks that the shutdown, 20 ms after the last one, does not matter."""
_HUEYS = {"NORMAL": 5_000, "FULL": 2_000}
_OVER_HUEY = {"NORMAL": 2.5, "FULL": 4.0}
_OVER_BARE = {"NORMAL": 0.55, "FULL": 0.6}


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for NORMAL and for FULL."""
    for synchronous in ("NORMAL", "FULL"):
        bench.say(f"throughput of one worker, synchronous={synchronous}")
        yield from _rows(bench, synchronous)


def _rows(bench: Bench, synchronous: str) -> Iterator[Row]:
    measures = {
        "ours": lambda: ours(bench, synchronous),
        "bare": lambda: _bare(bench, synchronous),
    }
    if not bench.rivals.why_not:
        measures["huey"] = lambda: _huey(bench, synchronous)
    found = interleave(measures, bench.repeats)
    if "huey" in found:
        yield Row(
            "throughput",
            f"one worker against huey's consumer, synchronous={synchronous}",
            ratios(found["ours"], found["huey"]),
            "×",
            _OVER_HUEY[synchronous],
            at_least=True,
            details=f"{rate(found['ours'])} against {rate(found['huey'])}",
        )
    yield Row(
        "throughput",
        f"one worker against a bare sqlite3 loop, 20 in a transaction, {synchronous}",
        ratios(found["ours"], found["bare"]),
        "×",
        _OVER_BARE[synchronous],
        at_least=True,
        details=f"{rate(found['ours'])} against {rate(found['bare'])}",
    )


def ours(bench: Bench, synchronous: str) -> float:
    """Return the tasks per second of our worker."""
    tasks = bench.some(TASKS)
    with databases.fresh(bench, databases.ours(bench, tasks)) as path:
        return float(run_child("worker.py", databases.url(path, synchronous), tasks))


def _bare(bench: Bench, synchronous: str) -> float:
    with databases.fresh(bench, databases.bare(bench, bench.some(TASKS))) as path:
        return float(run_child("bare_worker.py", synchronous, path, 0))


def _huey(bench: Bench, synchronous: str) -> float:
    """Return the tasks per second of huey's consumer, which is stopped once it has printed them."""
    most = bench.some(max(_HUEYS.values()))
    with databases.fresh(bench, databases.hueys(bench, 2 * most)) as path:
        environment = databases.huey_environment(path, synchronous, bench.some(_HUEYS[synchronous]))
        # quiet: its two log lines for each task would cost a quarter of its speed; ours logs none
        consumer = Path(bench.rivals.python).with_name("huey_consumer")
        command = bench.rivals.python, consumer, "huey_tasks.huey", "-q"
        with (
            open(os.devnull, "w") as log,
            started(*command, env=environment, cwd=CHILDREN, stderr=log) as process,
        ):
            return float(next_line(process))

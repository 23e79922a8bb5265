"""Producers that enqueue one by one while workers wait: the cost of waking them, against workers that only poll."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from ..harness import Bench, Row, interleave, rate, ratios
from ..processes import next_line, start_child
from .engines import Engine

PRODUCERS = 8
WORKERS = 2
_SECONDS = 5.0
_START_UP = 4.0
_TARGET = 0.9


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row."""
    bench.say(f"{engine.name}: {PRODUCERS} producers, {WORKERS} workers that are woken, or that poll")
    kinds = "woken", "polling"
    found = interleave({kind: lambda kind=kind: _produced(bench, engine, kind) for kind in kinds}, bench.repeats)
    yield Row(
        "postgresql.wakeups",
        f"PostgreSQL, {PRODUCERS} producers one by one while {WORKERS} workers wait, against workers that only poll",
        ratios(found["woken"], found["polling"]),
        "×",
        _TARGET,
        at_least=True,
        details=f"{rate(found['woken'])} against {rate(found['polling'])}",
    )


def _produced(bench: Bench, engine: Engine, kind: str) -> float:
    """Return the tasks per second of all producers together."""
    seconds = _SECONDS / 2 if bench.quick else _SECONDS
    with engine.fresh() as url, contextlib.ExitStack() as stack:
        TaskQueue(url).close()
        for _ in range(WORKERS):
            stack.enter_context(start_child("waiting_worker.py", kind, url))
        start = time.monotonic() + _START_UP
        producers = [stack.enter_context(start_child("producers.py", url, start, seconds)) for _ in range(PRODUCERS)]
        answers = [next_line(producer) for producer in producers]
    return sum(answer["count"] / answer["seconds"] for answer in answers)

"""From the call of ``enqueue`` to the start of the task in another process, while the queue is idle."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ..harness import Bench, Row
from ..latency import GAP, SAMPLES, delays
from .engines import Engine

_TARGETS = {"PostgreSQL": 10.0, "MariaDB": 60.0}


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row with the median of each repeat, and with the longest time of all."""
    bench.say(f"{engine.name}: from enqueue to the start of the task")
    rounds = [_round(engine, bench.some(SAMPLES) // bench.repeats) for _ in range(bench.repeats)]
    samples = sorted(sample for each in rounds for sample in each)
    yield Row(
        f"{engine.name.lower()}.latency",
        f"{engine.name}, enqueue → start of the task in another process, idle queue: p50",
        [statistics.median(each) for each in rounds],
        "ms",
        _TARGETS[engine.name],
        details=f"of {len(samples)} tasks, {GAP[0] * 1e3:.0f} to {GAP[1] * 1e3:.0f} ms after each other;"
        f" p99 {samples[len(samples) * 99 // 100]:.1f} ms, longest {samples[-1]:.1f} ms",
    )


def _round(engine: Engine, samples: int) -> list[float]:
    with engine.fresh() as url:
        return delays(url, samples)

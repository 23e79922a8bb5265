"""From the call of ``enqueue`` to the start of the task in another process, while the queue is idle."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row
from .processes import start_child

SAMPLES = 400
"""The number of tasks in all repeats."""
GAP = 0.02, 0.1
"""Seconds between two tasks, long enough for the worker to store one and wait again."""
_TARGETS = {50: 5.0, 99: 30.0}
_MILLI = 1e3


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for the median and the 99th percentile."""
    bench.say("from enqueue to the start of the task")
    rounds = [_round(bench, bench.some(SAMPLES) // bench.repeats) for _ in range(bench.repeats)]
    samples = sorted(sample for each in rounds for sample in each)
    for percent, target in _TARGETS.items():
        yield Row(
            "latency",
            f"enqueue → start of the task in another process, idle queue: p{percent}",
            [samples[min(len(samples) - 1, len(samples) * percent // 100)]],
            "ms",
            target,
            details=f"of {len(samples)} tasks; shortest {samples[0]:.1f} ms, longest {samples[-1]:.1f} ms",
        )


def _round(bench: Bench, samples: int) -> list[float]:
    with databases.fresh(bench) as path:
        return delays(databases.url(path), samples)


def delays(url: str, samples: int, gap: tuple[float, float] = GAP) -> list[float]:
    """Return the milliseconds of each task. ``gap``: shortest and longest pause between two tasks, in seconds."""
    with TaskQueue(url) as queue:
        with start_child("starts.py", url):
            queue.enqueue().wait(10)  # until the worker runs
            sent = dict(_send(queue, gap) for _ in range(samples))
            queue.get(max(sent)).wait(10)
        done = queue.tasks(state="done", limit=samples + 1)
        return [(task.result["started"] - sent[task.id]) * _MILLI for task in done if task.id in sent]


def _send(queue: TaskQueue, gap: tuple[float, float]) -> tuple[int, float]:
    time.sleep(random.uniform(*gap))
    now = time.monotonic()
    return queue.enqueue({"number": 1}).id, now

"""``enqueue_many`` against COPY of the same rows into the same tables."""

from __future__ import annotations

from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from ..harness import Bench, Row, interleave, rate, ratios
from ..processes import run_child
from .engines import Engine

ROWS = 10_000
_CALLS = 10
_TARGET = 0.4


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row."""
    bench.say(f"{engine.name}: enqueue_many against COPY")

    def one(kind: str) -> float:
        with engine.fresh() as url:
            TaskQueue(url).close()
            engine.checkpoint()
            return float(run_child("bulk.py", kind, url, ROWS, bench.some(_CALLS)))

    found = interleave({"ours": lambda: one("ours"), "copy": lambda: one("copy")}, bench.repeats)
    yield Row(
        "postgresql.bulk",
        f"PostgreSQL, enqueue_many of {ROWS:,} against COPY of the same rows",
        ratios(found["ours"], found["copy"]),
        "×",
        _TARGET,
        at_least=True,
        details=f"{rate(found['ours'])} against {rate(found['copy'])}, JSON encoded in both",
    )

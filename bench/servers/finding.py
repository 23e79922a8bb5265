"""Lists and searches among 1,000,000 waiting tasks, on a server: see ``bench/finding.py``."""

from __future__ import annotations

from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from .. import finding
from ..harness import Bench, Row
from .engines import Engine, database_of


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row for each list and each filter."""
    with engine.fresh() as url, TaskQueue(url) as queue:
        bench.say(f"{engine.name}: making a database with {finding.PENDING:,} waiting tasks")
        held = finding.fill(queue)
        models = finding.models_of(queue)
        for model in models:
            engine.multiply(database_of(url), model, bench.some(finding.PENDING) // len(models), 1)
        engine.checkpoint()
        yield from finding.rows_of(f"{engine.name.lower()}.finding", engine.name, queue, bench)
        finding.release(held)

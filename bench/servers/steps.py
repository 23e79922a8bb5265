"""The cost of a step of a task in a child on a server, against one durable commit there."""

from __future__ import annotations

from collections.abc import Iterator

from ..harness import Bench, Row
from ..keeping import STEPS, result_of, step_row
from .engines import Engine


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row: the median step of each repeat, divided by its median commit."""
    bench.say(f"{engine.name}: steps in a child")
    found = []
    for _ in range(bench.repeats):
        with engine.fresh() as url:
            found.append(result_of(url, {"do": "steps", "count": STEPS, "file": url}))
    yield step_row(engine.name, found)

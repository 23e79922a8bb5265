"""The dashboard's pages over a million tasks of a server, and its statements."""

from __future__ import annotations

from collections.abc import Iterator

from .. import dashboard, million
from ..harness import Bench, Row
from .engines import Engine, database_of

_MORE = 40


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield a row for each page, and for the statements of viewers."""
    group = f"{engine.name.lower()}.dashboard"
    schema = "dbtaskqueue." if engine.name == "PostgreSQL" else ""
    with engine.fresh() as url:
        database = database_of(url)
        tasks = bench.some(million.TASKS)
        bench.say(f"{engine.name}: making a database with {tasks:,} tasks")
        million.fill(
            url,
            tasks,
            lambda model, copies, step: engine.multiply(database, model, copies, step),
            lambda statement: engine.run(statement, database=database),
            schema,
        )
        yield from dashboard.pages(bench, group, engine.name, url, more=_MORE)
        yield from dashboard.statements(
            bench, group, engine.name, url, lambda seconds: engine.statements([url], seconds)[0]
        )

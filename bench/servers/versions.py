"""Plain tasks on a server with this code against the version before it: see ``bench/versions.py``."""

from __future__ import annotations

from collections.abc import Iterator

from .. import versions
from ..harness import Bench, Row
from .engines import Engine


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield a row for the worker, for ``enqueue`` and for ``enqueue_many``."""
    name = engine.name.lower()
    tasks = versions.TASKS[name]
    yield from versions.rows(bench, f"{name}.versions", engine.name, engine.fresh, tasks, engine.cpu_seconds)

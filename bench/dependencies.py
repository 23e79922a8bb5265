"""Dependencies on a SQLite file: fan-in, chains, the cancel of a large tree, and claims beside many blocked tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from . import flows
from .harness import Bench, Row

_LINK_MS, _START_MS = 5.0, 50.0


def measure(bench: Bench) -> Iterator[Row]:
    """Yield all rows of a file, and those against rivals."""

    def fresh() -> AbstractContextManager[str]:
        return flows.file(bench)

    yield from flows.fan_in(bench, "dependencies", "SQLite, 1 worker", fresh, workers=1, start=_START_MS)
    yield from flows.rivals(bench)
    yield flows.chain(bench, "dependencies", "SQLite", fresh, _LINK_MS)
    yield flows.cancelling(bench, "dependencies", "SQLite", fresh)
    yield from flows.beside_blocked(bench, "dependencies", "SQLite", fresh)
    yield flows.steps_beside_blocked(bench, "dependencies")

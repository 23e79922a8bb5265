"""Dependencies on a server: fan-in, chains, the cancel of a large tree, and claims beside many blocked tasks."""

from __future__ import annotations

from collections.abc import Iterator

from .. import flows
from ..harness import Bench, Row
from .engines import Engine

_WORKERS = 4
_START_MS = 100.0
_LINK_MS = {"PostgreSQL": 10.0, "MariaDB": 30.0}


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield all rows of a server."""
    group, name = f"{engine.name.lower()}.dependencies", engine.name
    fan_in = f"{name}, {_WORKERS} workers"
    yield from flows.fan_in(bench, group, fan_in, engine.fresh, workers=_WORKERS, start=_START_MS)
    yield flows.chain(bench, group, name, engine.fresh, _LINK_MS[name])
    yield flows.cancelling(bench, group, name, engine.fresh)
    yield from flows.beside_blocked(bench, group, name, engine.fresh)

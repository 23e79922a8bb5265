"""The one statement that the heart of a worker sends to PostgreSQL. Stands alone: the heart imports no package."""

from collections.abc import Callable
from typing import Any

import psycopg


def open_beat(options: dict[str, Any]) -> Callable[[int], bool]:
    """A function that beats for a worker; it returns False when the worker's row is gone or lost."""
    connections: list[psycopg.Connection[Any]] = []

    def beat(worker: int) -> bool:
        if not connections:
            connections.append(psycopg.connect(**options["parameters"], autocommit=True, prepare_threshold=None))
        try:
            return connections[0].execute(options["statement"].encode(), {"worker": worker}).rowcount == 1
        except psycopg.Error:
            connections.pop().close()
            raise

    return beat

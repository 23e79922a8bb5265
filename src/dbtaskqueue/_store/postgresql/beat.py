"""The one statement that a heartbeat process sends to PostgreSQL, and a connection that does not wait forever.

Imports no package, since that process imports none.
"""

import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg


class Connection(psycopg.Connection[Any]):
    """A connection that abandons a statement without an answer.

    The kernel notices when the other machine vanishes, but not when only the server hangs.
    """

    silence = 10.0
    """Seconds without an answer after which the server is presumed dead."""

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait until a command has its answer, as psycopg does, but not forever."""
        return super().wait(_bounded(gen, self.silence), *arguments, **options)


def _bounded(command: Any, silence: float) -> Generator[Any, Any, Any]:
    """Run the command, and check several times a second whether the server has answered."""
    answered_at = time.monotonic()
    try:
        wanted = next(command)
        while True:
            ready = yield wanted
            if ready:
                answered_at = time.monotonic()
            elif time.monotonic() > answered_at + silence:
                raise psycopg.OperationalError(f"no answer within {silence:g} s")
            wanted = command.send(ready)
    except StopIteration as done:
        return done.value


def open_beat(options: dict[str, Any]) -> Callable[[int], bool]:
    """Return a function that stores a heartbeat; False if the worker's row is marked lost or does not exist."""
    connections: list[Connection] = []

    def beat(worker: int) -> bool:
        if not connections:
            connections.append(Connection.connect(**options["parameters"], autocommit=True, prepare_threshold=None))
        try:
            return connections[0].execute(options["statement"].encode(), {"worker": worker}).rowcount == 1
        except psycopg.Error:
            connections.pop().close()
            raise

    return beat

"""The one statement that the heart of a worker sends to PostgreSQL, and a connection that does not wait for ever.

Stands alone: the heart imports no package.
"""

import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg


class Connection(psycopg.Connection[Any]):
    """A connection that gives up a statement whose answer does not come.

    The kernel notices a machine that is gone, but not a server that hangs behind a kernel which acknowledges.
    """

    silence = 10.0
    """Seconds without any word from the server after which it is taken for gone."""

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """See psycopg: wait for what a command's generator waits for."""
        return super().wait(_bounded(gen, self.silence), *arguments, **options)


def _bounded(command: Any, silence: float) -> Generator[Any, Any, Any]:
    """The command, asked several times a second whether the server has said anything."""
    heard = time.monotonic()
    try:
        wanted = next(command)
        while True:
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() > heard + silence:
                raise psycopg.OperationalError(f"no answer within {silence:g} s")
            wanted = command.send(ready)
    except StopIteration as done:
        return done.value


def open_beat(options: dict[str, Any]) -> Callable[[int], bool]:
    """A function that beats for a worker; it returns False when the worker's row is gone or lost."""
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

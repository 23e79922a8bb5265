"""A server crashes 20 times while 4 producers and 4 workers handle 20,000 tasks: nothing acknowledged is lost.

The servers have durable settings and really crash: PostgreSQL by an immediate shutdown, MariaDB by SIGKILL. The
oracle is the files that the processes write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from processes.oracle import Crowd, Process
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer

TASKS = 20_000
CRASHES = 20
PROCESSES = 4


def crash_loop(
    server: PostgresServer | MariaDBServer, crash: Callable[[], None], directory: Path, started: list[Process]
) -> None:
    crowd = Crowd(server.url(), directory, started, tasks=TASKS, processes=PROCESSES)
    for number in range(1, CRASHES + 1):
        crowd.await_accepted(number / (CRASHES + 1))
        crash()
        server.start()
    crowd.finish(outages=CRASHES)


def test_nothing_is_lost_and_nothing_finishes_twice_on_postgresql(tmp_path: Path, started: list[Process]) -> None:
    with PostgresServer() as server:
        crash_loop(server, lambda: server.stop("immediate"), tmp_path, started)


def test_nothing_is_lost_and_nothing_finishes_twice_on_mariadb(tmp_path: Path, started: list[Process]) -> None:
    with MariaDBServer() as server:
        crash_loop(server, server.kill, tmp_path, started)

"""Many parents and one child, while workers are killed or the server is restarted.

``--flow-seconds=60`` and more is the full size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import until
from processes.flow.referee import EAGER, Crew, Watch, Waves, check_tables
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer

from dbtaskqueue import TaskQueue

KILL_EACH = 1.0
"""Seconds between two kills."""
RESTARTS = 2


def test_a_child_starts_after_its_last_parent_although_workers_are_killed(
    url: str, tmp_path: Path, seconds: float
) -> None:
    with TaskQueue(url, retry=EAGER) as queue, Crew(url, tmp_path) as crew, Watch(url):
        waves = Waves(queue)
        deadline = time.monotonic() + seconds
        next_kill = time.monotonic() + KILL_EACH
        while time.monotonic() < deadline:
            waves.keep_going()
            if time.monotonic() >= next_kill:
                crew.kill()
                next_kill += KILL_EACH
            time.sleep(0.01)
        waves.finish(crew.log)
        check_tables(url)
        assert crew.kills >= int(seconds) - 1


CRASHES: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "mariadb": (MariaDBServer, lambda server: server.kill()),
    "postgresql": (PostgresServer, lambda server: server.stop("immediate")),
}


@pytest.mark.engine("mariadb", "postgresql")
def test_every_child_is_decided_although_the_server_crashes_while_parents_end(
    engine: str, tmp_path: Path, seconds: float
) -> None:
    make, crash = CRASHES[engine]
    with make() as server:
        url = server.url()
        with TaskQueue(url, retry=EAGER) as queue, Crew(url, tmp_path, outages=True) as crew, Watch(url, outages=True):
            waves = Waves(queue)
            for number in range(1, max(RESTARTS, int(seconds) // 5) + 1):
                until(lambda wanted=4 * number: is_past(waves, wanted), within=120, what="some waves")
                crash(server)
                server.start()
            waves.finish(crew.log)
            check_tables(url)


def is_past(waves: Waves, wanted: int) -> bool:
    waves.keep_going()
    return len(waves.waves) >= wanted

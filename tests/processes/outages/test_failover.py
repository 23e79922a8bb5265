"""A server that dies for good under producers and workers, and another that takes its place."""

from __future__ import annotations

from pathlib import Path

from processes.oracle import Crowd, Process
from servers.galera import GaleraCluster
from servers.ports import LOOPBACK
from servers.postgresql import PostgresServer
from servers.standby import Standby

TASKS = 3000
PROCESSES = 2


def test_a_synchronous_standby_that_is_promoted_has_all_that_was_acknowledged(
    tmp_path: Path, started: list[Process]
) -> None:
    with PostgresServer() as primary, Standby(primary, synchronous=True) as standby:
        crowd = Crowd(standby.both_url(), tmp_path, started, tasks=TASKS, processes=PROCESSES)
        crowd.await_accepted(0.5)
        primary.kill()
        standby.promote()
        crowd.finish(outages=1)


def test_a_galera_cluster_that_loses_the_node_that_is_written_on(tmp_path: Path, started: list[Process]) -> None:
    with GaleraCluster() as cluster:
        first = cluster.nodes[0]
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in cluster.nodes)
        url = first.url().replace(f"{LOOPBACK}:{first.port}", hosts)
        crowd = Crowd(url, tmp_path, started, tasks=TASKS, processes=PROCESSES)
        crowd.await_accepted(0.5)
        cluster.kill(first)
        crowd.finish(outages=1)

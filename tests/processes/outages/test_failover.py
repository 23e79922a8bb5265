"""A server dies for good while producers and workers use it, and another one takes its place."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers import PATIENCE, until
from processes.oracle import Crowd, Process
from servers.galera import GaleraCluster
from servers.ports import LOOPBACK
from servers.postgresql import PostgresServer
from servers.standby import Standby

from dbtaskqueue import TaskQueue

TASKS = 3000
PROCESSES = 2
LOSERS = 20


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


def test_writers_on_two_galera_nodes_get_the_ids_of_stored_tasks() -> None:
    """This happens for a moment when writers move to another node. Here both nodes assign the same ids repeatedly."""
    with GaleraCluster(settings={"wsrep-auto-increment-control": "OFF"}) as cluster:
        nodes = cluster.nodes[:2]

        def lost() -> int:
            return sum(int(node.status("local_cert_failures") or 0) for node in nodes)

        def write(queue: TaskQueue) -> dict[int, int]:
            payloads: dict[int, int] = {}
            for number in itertools.count():
                if done.is_set():
                    return payloads
                some = range(20 * number, 20 * number + 20)
                payloads |= zip((task.id for task in queue.enqueue_many(some)), some, strict=True)
            raise AssertionError("unreachable")

        done = threading.Event()
        with TaskQueue(nodes[0].url()) as first, TaskQueue(nodes[1].url()) as second, ThreadPoolExecutor() as pool:
            writers = [pool.submit(write, queue) for queue in (first, second)]
            try:
                until(lambda: lost() >= LOSERS or any(w.done() for w in writers), what="statements that lost")
            finally:
                done.set()
            told = [writer.result(timeout=PATIENCE) for writer in writers]
            # a node applies the other's commits a moment later
            until(lambda: first.stats().pending == sum(map(len, told)), what="every task on the first node")
            for id, payload in itertools.chain.from_iterable(each.items() for each in told):
                assert (task := first.get(id))
                assert task.payload == payload

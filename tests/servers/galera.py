"""Three MariaDB servers on the loopback address that replicate one another through Galera."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pymysql
import pytest

from servers.accounts import hand_over
from servers.mariadb import MariaDBServer
from servers.ports import LOOPBACK, free_port
from servers.process import START, ServerDidNotStart
from servers.requirements import missing, required

LIBRARIES = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")


def provider() -> Path:
    """Return the path of Galera's library. Skip if it, or a tool with which it copies a node's data, is missing."""
    found = [Path(name) for name in LIBRARIES if Path(name).exists()]
    if not found:
        missing("galera", "libgalera_smm.so not found; apt-get install galera-4")
    for tool in ("rsync", "wsrep_sst_rsync"):
        if not shutil.which(tool):
            missing("galera", f"{tool} not found; apt-get install rsync mariadb-server")
    return found[0]


RACE = "Failed to read thread schedparams"
"""The log line of a node that failed at its start because it queried one of its threads too early (1 start in 60)."""


class GaleraNode(MariaDBServer):
    """A server of a cluster. It counts as ready when it is synchronized with the others."""

    name = "galera"

    def __init__(self, number: int, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.provider = provider()
        super().__init__(durable=durable, settings=settings)
        self.number = number
        self.group_port, self.increment_port, self.copy_port = free_port(), free_port(), free_port()
        self.found = False
        """Whether its next start creates the cluster instead of joining it."""
        self.members: Sequence[GaleraNode] = ()

    def create(self) -> None:
        if self.found:
            super().create()
            return
        self.data.mkdir()  # the others get a copy of the first node's data
        hand_over(self.data)

    def command(self) -> Sequence[str | Path]:
        at = f"{LOOPBACK}:{self.group_port}"
        options = {
            "wsrep-on": "ON",
            "wsrep-provider": str(self.provider),
            "wsrep-provider-options": f"base_host={LOOPBACK};base_port={self.group_port};"
            f"gmcast.listen_addr=tcp://{at};ist.recv_addr={LOOPBACK}:{self.increment_port};gcache.size=16M",
            "wsrep-cluster-name": "test",
            "wsrep-cluster-address": "gcomm://" + ",".join(f"{LOOPBACK}:{node.group_port}" for node in self.members),
            "wsrep-node-name": f"node{self.number}",
            "wsrep-node-address": at,
            "wsrep-sst-method": "rsync",
            "wsrep-sst-receive-address": f"{LOOPBACK}:{self.copy_port}",
            "binlog-format": "ROW",
            "innodb-autoinc-lock-mode": "2",
        }
        founding = ["--wsrep-new-cluster"] if self.found else []
        self.found = False
        return [*super().command(), *(f"--{name}={value}" for name, value in options.items()), *founding]

    def start(self, within: float = START) -> None:
        """Start the node; try once more if it lost a race with itself."""
        founds = self.found
        try:
            super().start(within)
        except ServerDidNotStart:
            if RACE not in self.log():
                raise
            self.found = founds
            super().start(within)

    def answers(self) -> bool:
        return self.status("local_state_comment") == "Synced"

    def status(self, name: str) -> str | None:
        """Return one of the node's wsrep status values, or None while it does not answer."""
        with contextlib.suppress(pymysql.MySQLError), self.connect("") as connection, connection.cursor() as cursor:
            cursor.execute(f"SHOW STATUS LIKE 'wsrep_{name}'")
            row = cursor.fetchone()
            return str(row[1]) if row else None
        return None


class GaleraCluster:
    """Three nodes, synchronized when the block starts. Skip, or fail if Galera is required, if it cannot run here."""

    def __init__(self, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.nodes = [GaleraNode(number, durable=durable, settings=settings) for number in (1, 2, 3)]
        self.nodes[0].found = True
        for node in self.nodes:
            node.members = self.nodes

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()  # one after the other: two at the same time take as long, since they have the same donor
        except BaseException as error:
            self.close()
            if isinstance(error, ServerDidNotStart) and not required("galera"):
                pytest.skip(f"GALERA CANNOT RUN HERE: {error}; NOT TESTED")
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop all nodes and remove their files."""
        for node in self.nodes:
            node.close()

    def kill(self, node: GaleraNode) -> None:
        """Send SIGKILL to a node. The others accept writes again once they agree that it has left (``await_size``)."""
        node.kill()

    def await_size(self, size: int, within: float = 60.0) -> None:
        """Wait until the live nodes are one cluster of this size, synchronized and writable."""
        deadline = time.monotonic() + within
        while not all(self._is_one_of(size, node) for node in self.nodes if node.is_running):
            assert time.monotonic() < deadline, f"there is no cluster of {size} after {within} s"
            time.sleep(0.05)

    def _is_one_of(self, size: int, node: GaleraNode) -> bool:
        return (
            node.answers() and node.status("cluster_size") == str(size) and node.status("cluster_status") == "Primary"
        )

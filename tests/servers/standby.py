"""A PostgreSQL standby that can replace its primary."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from servers.accounts import run
from servers.ports import LOOPBACK
from servers.postgresql import PostgresServer


class Standby(PostgresServer):
    """A streaming hot standby. The primary must be running at its first start.

    ``synchronous`` makes the primary acknowledge a commit only once it is on the standby's disk, too. If the standby is
    down, a commit on the primary waits indefinitely, until ``Standby.release_primary``.
    """

    name = "standby"

    def __init__(
        self, primary: PostgresServer, *, synchronous: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(durable=primary.durable, settings=settings, programs=primary.programs)
        self.primary = primary
        self.synchronous = synchronous

    def create(self) -> None:
        source = f"host={LOOPBACK} port={self.primary.port} user=postgres application_name=standby"
        options = ("-R", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
        run([self.programs / "pg_basebackup", "-D", self.data, "-d", source, *options], self.directory)

    def start(self, within: float = 60.0) -> None:
        first = self._process is None
        super().start(within)
        if first and self.synchronous:
            self.primary.configure(synchronous_standby_names="standby")
            self.await_streaming("sync")

    def await_streaming(self, state: str = "async") -> None:
        """Wait until the standby has caught up, and the primary lists it as sync or async."""
        with self.primary.connect("postgres") as connection:
            query = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s"
            while not connection.execute(query, [state]).fetchone():
                connection.execute("SELECT pg_sleep(0.01)")

    def release_primary(self) -> None:
        """Let the primary commit without waiting for this standby."""
        self.primary.configure(synchronous_standby_names="")

    def promote(self) -> None:
        """Promote the standby, which accepts writes when this returns. The old primary should be down."""
        with self.connect("postgres") as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)

    def both_url(self, database: str = "test", **options: str) -> str:
        """Return the URL with both hosts, which connects to the current primary."""
        hosts = f"{LOOPBACK}:{self.primary.port},{LOOPBACK}:{self.port}"
        query = urlencode({"target_session_attrs": "read-write", **options})
        return f"postgresql://postgres@{hosts}/{database}?{query}"

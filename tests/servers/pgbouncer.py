"""The tests' own PgBouncer, in transaction mode, in front of their PostgreSQL server."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import psycopg

from servers.accounts import hand_over
from servers.ports import LOOPBACK
from servers.postgresql import PostgresServer
from servers.process import ServerProcess
from servers.requirements import missing


def program() -> Path:
    """Return the path of PgBouncer. Skip if it is missing."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return Path(found) if found else missing("pgbouncer", "apt-get install pgbouncer")


class PgBouncer(ServerProcess):
    """A PgBouncer with default settings, except for the mode. It admits every user as PostgreSQL's ``postgres``.

    So it rejects startup parameters that it does not know (``options``, ``search_path``), as installations of users do.
    """

    name = "pgbouncer"

    def __init__(self, server: PostgresServer, *, settings: Mapping[str, str] | None = None) -> None:
        self.pgbouncer = program()
        super().__init__()
        self.server = server
        self.settings = {"pool_mode": "transaction", "default_pool_size": "20", **(settings or {})}

    def command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addr": LOOPBACK,
            "listen_port": str(self.port),
            "unix_socket_dir": str(self.directory),
            "auth_type": "any",
            "admin_users": "postgres",
            **self.settings,
        }
        lines = [
            "[databases]",
            f"* = host={LOOPBACK} port={self.server.port} user=postgres",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        file = self.directory / "pgbouncer.ini"
        file.write_text("\n".join([*lines, ""]))
        hand_over(file)
        return [self.pgbouncer, file]

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("pgbouncer", connect_timeout="5"), autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Shut down immediately, without waiting for transactions."""
        self.end(signal.SIGTERM)

    def url(self, database: str = "test", **options: str) -> str:
        """Return the URL of a database of the server, through this PgBouncer."""
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/{database}{query}"

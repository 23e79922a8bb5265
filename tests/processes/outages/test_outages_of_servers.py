"""A server fails while a worker runs a task: the worker continues by itself, and logs two lines for each outage."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pymysql
import pytest
from helpers import until
from notify_socket import Systemd
from servers.accounts import new_directory
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer
from servers.proxy import CuttingProxy
from servers.wire import MariaDBConversation, PostgreSQLConversation
from workers import WORKER, has_written

from dbtaskqueue import StoreUnavailable, TaskQueue

UNAVAILABLE, AVAILABLE_AGAIN = "database unavailable", "database available again"


class Server(Protocol):
    """What a test needs of either server. The worker's role may read and write rows, but nothing else."""

    conversation: type

    port: int

    def worker_url(self) -> str: ...

    def give_rights(self) -> None: ...

    def kill_connections(self) -> None: ...

    def refuse_more(self) -> contextlib.AbstractContextManager[None]: ...

    def read_only(self, on: bool) -> None: ...


class Postgres(PostgresServer):
    conversation = PostgreSQLConversation

    def worker_url(self) -> str:
        return self.url().replace("postgres@", "worker@")

    def give_rights(self) -> None:
        with self.connect() as connection:
            connection.execute("CREATE ROLE worker LOGIN")
            connection.execute("GRANT USAGE ON SCHEMA dbtaskqueue TO worker")
            connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbtaskqueue TO worker")
            connection.execute("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA dbtaskqueue TO worker")

    def kill_connections(self) -> None:
        with self.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'")

    @contextlib.contextmanager
    def refuse_more(self) -> Iterator[None]:
        with self.connect() as connection:
            connection.execute("ALTER ROLE worker CONNECTION LIMIT 0")
            self.kill_connections()
            yield
            connection.execute("ALTER ROLE worker CONNECTION LIMIT -1")

    def read_only(self, on: bool) -> None:
        self.configure(default_transaction_read_only="on" if on else "off")


class MariaDB(MariaDBServer):
    conversation = MariaDBConversation

    def worker_url(self) -> str:
        return self.url().replace("test@", "worker@")

    def give_rights(self) -> None:
        self.execute("CREATE USER worker@'%'")
        self.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON test.* TO worker@'%'")

    def kill_connections(self) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'worker'")
            for (number,) in cursor.fetchall():
                with contextlib.suppress(pymysql.MySQLError):  # it has ended in the meantime
                    cursor.execute(f"KILL {number}")

    @contextlib.contextmanager
    def refuse_more(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(self.connect()) for _ in range(12)]
            with others[0].cursor() as cursor:
                cursor.execute("SET GLOBAL max_connections = 10")
                cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'worker'")
                for (number,) in cursor.fetchall():
                    with contextlib.suppress(pymysql.MySQLError):
                        cursor.execute(f"KILL {number}")
                yield
                cursor.execute("SET GLOBAL max_connections = 200")

    def read_only(self, on: bool) -> None:
        self.execute(f"SET GLOBAL read_only = {int(on)}")


LARGE = 400_000
SERVERS: dict[str, type[Any]] = {"postgresql": Postgres, "mariadb": MariaDB}


@pytest.fixture(scope="module", params=sorted(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server, which runs at the start of each test."""
    with SERVERS[request.param]() as server:
        with TaskQueue(server.url()):
            pass
        server.give_rights()
        yield server


class Life:
    """A worker that runs a task, and its log."""

    def __init__(self, url: str, watching: str, directory: Path, seconds: float = 0.5) -> None:
        self.queue = TaskQueue(watching)
        self.task = self.queue.enqueue(["sleep", seconds])
        self.note = directory / "note"
        command = [sys.executable, "-c", WORKER, url, str(self.note), json.dumps({})]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def __enter__(self) -> Life:
        until(lambda: has_written(self.note, "start"), what="the start of the task")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.queue.close()

    def has_said(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def await_word(self, words: str, within: float = 30.0) -> None:
        until(lambda: self.has_said(words), within=within, what=f"{words!r} in the log: {self.lines}")

    def check(self, outages: int = 1) -> None:
        """Check that the task and its successor are done, once, and that each outage logged two lines."""
        assert self.task.get_result(timeout=30) == "sleep"
        assert self.queue.enqueue(["nothing", None]).get_result(timeout=30) == "nothing"
        self.process.terminate()
        assert self.process.wait(timeout=30) == 0
        self._reader.join()
        text = "".join(self.lines)
        assert self.task.refresh().attempt == 1
        assert (text.count(UNAVAILABLE), text.count(AVAILABLE_AGAIN)) == (outages, outages), text
        assert "Traceback" not in text, text


@pytest.fixture
def life(server: Any, tmp_path: Path) -> Iterator[Life]:
    with Life(server.worker_url(), server.url(), tmp_path) as life:
        yield life


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_is_restarted(server: Any, life: Life, how: str) -> None:
    getattr(server, how)()
    life.await_word(UNAVAILABLE)
    server.start()
    life.await_word(AVAILABLE_AGAIN)
    life.check()


def test_connections_that_are_killed_once(server: Any, life: Life) -> None:
    """They were idle, so they are opened again, and no outage is logged."""
    server.kill_connections()
    life.check(outages=0)


def test_too_many_connections(server: Any, life: Life) -> None:
    with server.refuse_more():
        life.await_word(UNAVAILABLE)
    life.await_word(AVAILABLE_AGAIN)
    life.check()


def test_a_server_that_takes_no_writes(server: Any, life: Life) -> None:
    server.read_only(True)
    life.await_word(UNAVAILABLE)
    server.read_only(False)
    life.await_word(AVAILABLE_AGAIN)
    life.check()


def test_a_silent_server_is_noticed_within_30_seconds(server: Any, tmp_path: Path) -> None:
    """The server hangs, but its kernel still acknowledges what is sent to it."""
    url = server.worker_url()
    with CuttingProxy(server.port, server.conversation) as proxy, Life(proxy.url(url), server.url(), tmp_path) as life:
        proxy.freeze()
        life.await_word(UNAVAILABLE, within=30)
        proxy.thaw()
        life.await_word(AVAILABLE_AGAIN)
        life.check()


def test_a_silent_server_does_not_trigger_the_watchdog(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(f"@{tmp_path.parent.name}/{tmp_path.name}")
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.name)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    url = server.worker_url()
    with CuttingProxy(server.port, server.conversation) as proxy, Life(proxy.url(url), server.url(), tmp_path) as life:
        until(lambda: systemd.values("READY"))
        proxy.freeze()
        life.await_word(UNAVAILABLE, within=60)
        before = len(systemd.values("WATCHDOG"))
        until(lambda: systemd.values("STATUS")[-1].startswith("database unavailable, running"), what="another status")
        until(lambda: len(systemd.values("WATCHDOG")) > before + 3, what="a watchdog notification")
        proxy.thaw()
        life.await_word(AVAILABLE_AGAIN)
        life.check()
        assert not life.has_said("the worker hangs")
    systemd.close()


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk, which can be filled. It is not among pytest's directories, which a server's account cannot read."""
    directory = new_directory("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=220m,mode=777", "tmpfs", str(directory)]
    try:
        if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("NO DISK CAN BE MOUNTED HERE: a full one is not tested")
        yield directory
        subprocess.run(["umount", "-l", str(directory)], check=True)
    finally:
        directory.rmdir()


@pytest.mark.parametrize("make", SERVERS.values(), ids=list(SERVERS))
def test_a_full_disk(make: type[Any], disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer gets an error; the server may end. Once there is space again, everything continues."""
    monkeypatch.setattr("servers.process.new_directory", partial(new_directory, place=disk))
    server = make()
    monkeypatch.undo()
    ballast = disk / "ballast"
    with server:
        with TaskQueue(server.url()):
            pass
        server.give_rights()
        with (
            Life(server.worker_url(), server.url(), tmp_path) as life,
            TaskQueue(server.url(), queue="other") as producer,
        ):
            with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            stored, doubts = until_it_is_refused(producer)
            ballast.unlink()
            if not server.is_running:
                server.start()
            until(lambda: is_accepted(producer), what="an enqueue")
            sizes = [len(str(task.payload)) for task in producer.tasks(limit=1000)]
            assert stored <= sizes.count(LARGE) <= stored + doubts
            life.check(outages=int(life.has_said(UNAVAILABLE)))


def until_it_is_refused(producer: TaskQueue) -> tuple[int, int]:
    """Enqueue until the disk is full; return how many tasks were acknowledged, and how many are in doubt."""
    deadline = time.monotonic() + 60
    stored = 0
    while True:
        assert time.monotonic() < deadline, "the disk does not become full"
        try:
            producer.enqueue(os.urandom(LARGE // 2).hex())  # so that no server can compress it
        except StoreUnavailable as refused:
            return stored, int(refused.maybe_done)
        stored += 1


def is_accepted(producer: TaskQueue) -> bool:
    with contextlib.suppress(StoreUnavailable):
        producer.enqueue("free space")
        return True
    return False

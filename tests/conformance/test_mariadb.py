"""MariaDB only: several addresses, certificates, old snapshots, and a race for a key that the unique index decides."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest
from helpers import documented_options, with_option
from servers.accounts import hand_over
from servers.mariadb import MariaDBServer
from servers.ports import LOOPBACK, free_port

from dbtaskqueue import ConfigurationError, InvalidTransition, StoreUnavailable, TaskQueue, TaskState
from dbtaskqueue._store.mariadb.connections import MariadbConnections
from dbtaskqueue._store.verbs import SqlStore
from dbtaskqueue.states import FINAL

pytestmark = pytest.mark.engine("mariadb")


def asked(queue: TaskQueue, question: str) -> Any:
    """Return what the server answers on the connection that writes."""
    assert isinstance(queue.store, SqlStore)
    connections = queue.store._connections
    assert isinstance(connections, MariadbConnections)
    queue.resume()  # opens the connection
    link: Any = connections._writer
    with link.connection.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()


# -- addresses -------------------------------------------------------------------------------------


def test_the_first_address_that_takes_writes_is_used(url: str) -> None:
    port = urlsplit(url).port
    with MariaDBServer(durable=False, settings={"read-only": "ON"}) as replica:
        both = (
            f"mariadb://test@{LOOPBACK}:{free_port()},{LOOPBACK}:{replica.port},{LOOPBACK}:{port}{urlsplit(url).path}"
        )
        with TaskQueue(both) as queue:
            assert queue.get(queue.enqueue("x").id).payload == "x"
            assert asked(queue, "SELECT @@port") == (port,)
            [task] = queue.fetch(timeout=10)
            task.start()
            task.finish()


def test_a_read_only_server_is_named_in_the_error(url: str) -> None:
    with MariaDBServer(durable=False) as replica:
        with TaskQueue(replica.url()) as queue:
            queue.enqueue()
        replica.execute("SET GLOBAL read_only = 1")
        replica.execute("REVOKE READ_ONLY ADMIN ON *.* FROM test@'%'")
        with TaskQueue(replica.url()) as queue:
            assert queue.stats().pending == 1
            with pytest.raises(StoreUnavailable, match="read-only") as caught:
                queue.enqueue()
            assert not caught.value.maybe_done


# -- certificates ----------------------------------------------------------------------------------


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MariaDBServer, Path]]:
    """Start a server with a certificate for "localhost"; return it with the CA's certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("THE openssl COMMAND IS NOT INSTALLED: TLS WITH MARIADB IS NOT TESTED")
    server = MariaDBServer(durable=False)
    ca, key, request, mine = (server.directory / name for name in ("ca.pem", "ca.key", "server.csr", "server.pem"))
    own_key, names = server.directory / "server.key", server.directory / "names"
    names.write_text("subjectAltName=DNS:localhost")
    new = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=CA", "-keyout", key, "-out", ca)
    openssl("req", *new, "-subj", "/CN=server", "-keyout", own_key, "-out", request)
    signer = ["-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", request, *signer, "-extfile", names, "-out", mine)
    for path in (ca, mine, own_key):
        hand_over(path)
    server.settings |= {"ssl-ca": str(ca), "ssl-cert": str(mine), "ssl-key": str(own_key)}
    with server:
        yield server, ca


@pytest.mark.parametrize(
    "options", ["", "ssl=true", "ssl_verify_cert=false", "ssl_ca={ca}", "ssl_ca={ca}&ssl_verify_cert=true"]
)
def test_the_connection_is_encrypted(tls_server: tuple[MariaDBServer, Path], options: str) -> None:
    server, ca = tls_server
    with TaskQueue(f"{server.url()}?{options.format(ca=ca)}") as queue:
        assert asked(queue, "SHOW STATUS LIKE 'Ssl_cipher'")[1]


def test_the_host_name_is_checked_if_the_option_is_set(tls_server: tuple[MariaDBServer, Path]) -> None:
    server, ca = tls_server
    url = f"{server.url()}?ssl_ca={ca}&ssl_verify_identity=true"
    with TaskQueue(url.replace(LOOPBACK, "localhost")) as queue:
        assert asked(queue, "SHOW STATUS LIKE 'Ssl_cipher'")[1]
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        TaskQueue(url)
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        TaskQueue(f"{server.url()}?ssl_verify_cert=true")  # by the system's CAs, which did not sign it


def test_a_certificate_of_another_ca_is_refused(tls_server: tuple[MariaDBServer, Path], tmp_path: Path) -> None:
    server, _ = tls_server
    other = tmp_path / "other.pem"
    new = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Other"]
    openssl("req", "-x509", *new, "-keyout", tmp_path / "other.key", "-out", other)
    TaskQueue(server.url()).close()  # an unverified connection does not weaken a later verified one
    for options in (f"ssl_ca={other}", f"ssl_ca={other}&ssl_verify_cert=true"):
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            TaskQueue(f"{server.url()}?{options}")
    with TaskQueue(f"{server.url()}?ssl_ca={other}&ssl_verify_cert=false") as queue:
        assert asked(queue, "SHOW STATUS LIKE 'Ssl_cipher'")[1]


@pytest.mark.parametrize("options", ["", "ssl=true"])
def test_an_unverified_connection_loads_no_certificates(
    tls_server: tuple[MariaDBServer, Path], options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading the system's CAs would take 50 ms for each connection."""
    loaded = []
    load = ssl.SSLContext.load_default_certs

    def note(context: ssl.SSLContext, *purpose: ssl.Purpose) -> None:
        loaded.append(context)
        load(context, *purpose)

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", note)
    with TaskQueue(f"{tls_server[0].url()}?{options}") as queue:
        queue.enqueue("x")
    assert loaded == []
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        TaskQueue(f"{tls_server[0].url()}?ssl_verify_cert=true")
    assert loaded  # by the system's CAs


def test_encryption_can_be_declined(tls_server: tuple[MariaDBServer, Path]) -> None:
    with TaskQueue(f"{tls_server[0].url()}?ssl=false") as queue:
        assert asked(queue, "SHOW STATUS LIKE 'Ssl_cipher'")[1] == ""


def test_a_socket_file(tls_server: tuple[MariaDBServer, Path]) -> None:
    with TaskQueue(f"mariadb://test@/test?unix_socket={tls_server[0].socket}") as queue:
        assert asked(queue, "SELECT SUBSTRING_INDEX(host, ':', 1) FROM information_schema.processlist"
                            " WHERE id = CONNECTION_ID()") == ("localhost",)  # fmt: skip


@pytest.mark.parametrize("option", ["ssl=perhaps", "ssl_ca=/nowhere/ca.pem", "charset=latin1", "colour=red"])
def test_a_broken_option(url: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        TaskQueue(with_option(url, option))


def test_every_documented_option_opens_a_queue(tls_server: tuple[MariaDBServer, Path]) -> None:
    server, ca = tls_server
    certificate = f"ssl_cert={server.settings['ssl-cert']}&ssl_key={server.settings['ssl-key']}"
    options = {
        "ssl": "ssl=true",
        "ssl_ca": f"ssl_ca={ca}",
        "ssl_cert": certificate,
        "ssl_key": certificate,
        "ssl_key_password": f"{certificate}&ssl_key_password=unused",
        "ssl_verify_cert": f"ssl_ca={ca}&ssl_verify_cert=true",
        "ssl_verify_identity": f"ssl_ca={ca}&ssl_verify_identity=true",
        "unix_socket": f"unix_socket={server.socket}",
        "connect_timeout": "connect_timeout=5",
        "charset": "charset=utf8mb4",
        "max_payload": "max_payload=2000",
    }
    assert set(options) == documented_options("MariaDB")
    for option in options.values():
        with TaskQueue(f"{server.url().replace(LOOPBACK, 'localhost')}?{option}") as queue:
            assert queue.get(queue.enqueue(option).id).payload == option


def test_connect_timeout_is_an_option(url: str) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(closing(socket.create_server((LOOPBACK, 0), backlog=0)))
        for _ in range(4):  # fills the server's backlog of connections
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timed out"):
            TaskQueue(f"mariadb://test@{LOOPBACK}:{full.getsockname()[1]}/test?connect_timeout=1")
        assert time.monotonic() - started < 9, "the default is 10 s"


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "3601", ""])
def test_an_invalid_connect_timeout(url: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="connect_timeout must be"):
        TaskQueue(with_option(url, f"connect_timeout={value}"))


def test_the_only_valid_charset_may_be_given(url: str) -> None:
    TaskQueue(with_option(url, "charset=utf8mb4")).close()


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_that_is_newer_than_the_snapshot_of_the_callers_transaction(url: str, queue: TaskQueue) -> None:
    parts = urlsplit(url)
    with closing(
        pymysql.connect(host=parts.hostname, port=parts.port or 0, user=parts.username, database=parts.path[1:])
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM dbtaskqueue_task")  # the snapshot is taken here
        first = queue.enqueue("first", key="a")
        second = queue.enqueue("second", key="a", connection=connection)
        assert (second.id, second.payload) == (first.id, "first")
        connection.commit()
    assert queue.stats().pending == 1


def test_a_retry_that_loses_the_race_for_its_key(queue: TaskQueue) -> None:
    task = queue.enqueue("first", key="a")
    task.cancel()
    queue.enqueue("second", key="a")
    assert isinstance(queue.store, SqlStore)
    connections = queue.store._connections
    assert isinstance(connections, MariadbConnections)
    connections._sql["key_is_taken"] = "SELECT 1 FROM DUAL WHERE 1 = 0"  # the key was taken right after the check
    with pytest.raises(InvalidTransition):
        queue.retry(task.id)
    assert task.refresh().state is TaskState.CANCELLED
    assert queue.stats().pending == 1


# -- plans -----------------------------------------------------------------------------------------


def test_the_names_of_queues_are_read_with_seeks(queue: TaskQueue) -> None:
    names = [f"q{number}" for number in range(25)]
    for name in names:
        lane = queue.lane(name)
        parent = lane.enqueue(0)
        lane.enqueue_many(range(20), after=parent)
        lane.enqueue_many(range(20))
        for task in lane.fetch(5, timeout=10):
            task.cancel()
    assert queue.store.queues() == sorted(names)
    before = rows_walked(queue)
    assert queue.store.queues() == sorted(names)
    assert rows_walked(queue) - before < 5 * len(names), "it walked over rows of the table of tasks"
    for name in names:
        queue.lane(name).purge()
    assert queue.store.queues() == sorted(names)
    queue.lane("q3").prune(0, states=list(FINAL))
    queue.lane("a").enqueue()
    queue.lane("z").pause()
    assert queue.store.queues() == sorted({*names, "a", "z"} - {"q3"})


def rows_walked(queue: TaskQueue) -> int:
    """Return how many rows the connection that reads has read one after the other, in tables and indexes."""
    assert isinstance(queue.store, SqlStore)
    connections = queue.store._connections
    assert isinstance(connections, MariadbConnections)

    def read(link: Any) -> int:
        with link.connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read_%next'")
            return sum(int(value) for _, value in cursor.fetchall())

    return connections.ask(read)

"""The database servers of the tests start, answer, come back with their data after a kill, and leave nothing behind."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from helpers import Background, python_path, spawn, until
from servers.galera import GaleraCluster
from servers.mariadb import MariaDBServer
from servers.mariadb import program as mariadb_program
from servers.pgbouncer import PgBouncer
from servers.ports import LOOPBACK, free_port
from servers.postgresql import PostgresServer, default_programs, installed
from servers.process import descendants, lives
from servers.requirements import missing
from servers.shared import (
    fresh_mariadb_url,
    fresh_pgbouncer_url,
    fresh_postgresql_url,
    shared_mariadb,
    shared_postgresql,
)
from servers.standby import Standby


@pytest.mark.parametrize("durable", [True, False])
def test_a_postgresql_server_comes_back_with_its_data(durable: bool) -> None:
    with PostgresServer(durable=durable) as server:
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        family = [server.pid, *descendants(server.pid)]
        server.kill()
        assert not server.is_running
        assert not [pid for pid in family if lives(pid)]
        for end in (server.kill, lambda: server.stop("fast"), lambda: server.stop("immediate")):
            server.start()
            with server.connect() as connection:
                assert connection.execute("SELECT number FROM kept").fetchone() == (42,)
            end()
    assert not server.directory.exists()


def test_a_mariadb_server_comes_back_with_its_data() -> None:
    with MariaDBServer() as server:
        server.execute("CREATE TABLE test.kept AS SELECT 42 AS number")
        for end in (server.kill, server.stop, server.kill):
            end()
            assert not server.is_running
            server.start()
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT number FROM kept")
                assert cursor.fetchone() == (42,)
    assert not server.directory.exists()


def test_settings_of_a_postgresql_server_are_changed_while_it_runs() -> None:
    with PostgresServer(durable=False, settings={"work_mem": "5MB"}) as server, server.connect() as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
        server.configure(work_mem="6MB")
        until(lambda: connection.execute("SHOW work_mem").fetchone() == ("6MB",))


def test_a_free_port_is_given_once_though_nothing_uses_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = free_port()
    other = next(port for port in range(taken + 1, 65536) if not is_used(port))
    choices = iter([taken, taken, other])
    monkeypatch.setattr("random.SystemRandom.choice", lambda *_: next(choices))
    assert free_port() == other


def is_used(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def test_every_installed_postgresql_starts() -> None:
    default_programs()
    for programs in installed():
        with PostgresServer(durable=False, programs=programs) as server:
            assert server.is_running


def test_postgresql_starts_from_a_directory_that_only_the_tests_may_read(tmp_path: Path) -> None:
    package = default_programs().parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if not libraries.exists():
        pytest.skip("only the wheel lies where others may not read it")
    for source in (default_programs().parent, libraries):
        shutil.copytree(source, tmp_path / source.relative_to(package.parent), symlinks=True)
    tmp_path.chmod(0o700)
    with PostgresServer(durable=False, programs=tmp_path / default_programs().relative_to(package.parent)) as server:
        assert server.is_running


def test_a_pgbouncer_is_killed_and_comes_back() -> None:
    with PostgresServer(durable=False) as server, PgBouncer(server) as bouncer:
        for end in (bouncer.stop, bouncer.kill):
            with psycopg.connect(bouncer.url()) as connection:
                assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
            end()
            assert not bouncer.is_running
            bouncer.start()
        with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
            psycopg.connect(bouncer.url(options="-c search_path=x"))


def test_in_transaction_mode_a_session_moves_between_connections() -> None:
    with fresh_pgbouncer_url() as url:
        base = url.partition("?")[0]
        with psycopg.connect(base) as one, psycopg.connect(base, autocommit=True) as other:
            backend = other.execute("SELECT pg_backend_pid()").fetchone()
            assert one.execute("SELECT pg_backend_pid()").fetchone() == backend
            assert other.execute("SELECT pg_backend_pid()").fetchone() != backend


def test_a_synchronous_standby_has_all_acknowledged_writes() -> None:
    with PostgresServer() as primary, Standby(primary, synchronous=True) as standby:
        with primary.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        with psycopg.connect(standby.both_url()) as connection:
            assert connection.info.port == primary.port
        assert standby.is_standby()
        primary.kill()
        standby.promote()
        with psycopg.connect(standby.both_url()) as connection:
            assert connection.info.port == standby.port
            assert connection.execute("SELECT number FROM kept").fetchone() == (42,)
            connection.execute("INSERT INTO kept VALUES (43)")


def test_a_synchronous_primary_waits_for_its_standby() -> None:
    with PostgresServer() as primary, Standby(primary, synchronous=True) as standby:
        standby.kill()
        with primary.connect() as connection:
            create = Background(lambda: connection.execute("CREATE TABLE later (id int)"))
            with pytest.raises(AssertionError, match="did not end"):
                create.join(0.3)
            standby.start()
            create.join()
            standby.kill()
            standby.release_primary()
            connection.execute("CREATE TABLE alone (id int)")


def test_a_galera_cluster_survives_the_loss_of_a_node() -> None:
    with GaleraCluster(durable=False) as cluster:
        first, second, third = cluster.nodes
        first.execute("CREATE TABLE test.kept (number int PRIMARY KEY)")
        first.execute("INSERT INTO test.kept VALUES (42)")
        cluster.kill(first)
        cluster.await_size(2)
        second.execute("INSERT INTO test.kept VALUES (43)")
        first.start()
        cluster.await_size(3)
        for node in (first, third):
            with node.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SET wsrep_sync_wait = 1")
                cursor.execute("SELECT number FROM kept ORDER BY number")
                assert cursor.fetchall() == ((42,), (43,))


START_AND_SAY_WHERE = """
import sys, time
from servers.galera import GaleraCluster
from servers.mariadb import MariaDBServer
from servers.mariadb import program as mariadb_program
from servers.pgbouncer import PgBouncer
from servers.ports import LOOPBACK, free_port
from servers.postgresql import PostgresServer, default_programs, installed
server = {"postgresql": PostgresServer, "mariadb": MariaDBServer}[sys.argv[1]]()
server.start()
print(server.pid, server.directory, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_server_does_not_outlive_a_killed_test_process(name: str) -> None:
    if name == "postgresql":  # skips here if the server is missing, and not in the child process
        default_programs()
    else:
        mariadb_program("mariadbd")
    process = spawn(START_AND_SAY_WHERE, name, PYTHONPATH=python_path())
    assert process.stdout
    pid, directory = process.stdout.readline().split()
    family = [int(pid), *descendants(int(pid))]
    assert all(map(lives, family))
    process.kill()
    process.communicate()
    until(lambda: not any(map(lives, family)), what="the end of the server")
    until(lambda: not Path(directory).exists(), what="the removal of its directory")


def test_a_fresh_schema_is_dropped_although_its_tables_are_locked() -> None:
    server = shared_postgresql()
    forgotten = psycopg.connect(server.url())
    with fresh_postgresql_url() as url:
        (schema,) = parse_qs(urlsplit(url).query)["schema"]
        forgotten.execute(f"CREATE SCHEMA {schema} CREATE TABLE held (id int)")
        forgotten.commit()
        forgotten.execute(f"SELECT * FROM {schema}.held")
    with server.connect() as connection:
        assert connection.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,)
    forgotten.close()


def test_a_fresh_mariadb_database_is_dropped_although_its_tables_are_locked() -> None:
    with fresh_mariadb_url() as url:
        name = urlsplit(url).path[1:]
        forgotten = shared_mariadb().connect(name)
        with forgotten.cursor() as cursor:
            cursor.execute("CREATE TABLE held (id int)")
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM held")
    with shared_mariadb().connect() as connection, connection.cursor() as cursor:
        assert not cursor.execute("SHOW DATABASES LIKE %s", [name])


def test_a_missing_server_is_reported_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBTASKQUEUE_TEST_REQUIRE", "pgbouncer, oracle")
    monkeypatch.setattr("servers.requirements.absent", set())
    with pytest.raises(pytest.fail.Exception, match="NO ORACLE SERVER IS INSTALLED"):
        missing("oracle", "not found")
    with pytest.raises(pytest.skip.Exception, match="NO DB2 SERVER IS INSTALLED: not found; NOT TESTED"):
        missing("db2", "not found")
    with pytest.raises(pytest.skip.Exception, match="NO BROWSER IS INSTALLED: apt-get install chromium; NOT TESTED"):
        missing("browser", "apt-get install chromium")

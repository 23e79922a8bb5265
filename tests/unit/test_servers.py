"""The tests' own database servers: they start, answer, are killed, come back with their data, leave nothing."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from helpers import spawn, until
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer
from servers.process import descendants, lives
from servers.requirements import missing
from servers.shared import fresh_mariadb_url, fresh_postgresql_url, shared_mariadb, shared_postgresql


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
    assert not server.folder.exists()


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
    assert not server.folder.exists()


def test_settings_of_a_postgresql_server_are_changed_while_it_runs() -> None:
    with PostgresServer(durable=False, settings={"work_mem": "5MB"}) as server, server.connect() as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
        server.configure(work_mem="6MB")
        until(lambda: connection.execute("SHOW work_mem").fetchone() == ("6MB",))


START_AND_SAY_WHERE = """
import sys, time
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer
server = {"postgresql": PostgresServer, "mariadb": MariaDBServer}[sys.argv[1]]()
server.start()
print(server.pid, server.folder, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_server_does_not_outlive_a_killed_test_process(name: str) -> None:
    process = spawn(START_AND_SAY_WHERE, name, PYTHONPATH=str(Path(__file__).parents[1]))
    assert process.stdout
    pid, folder = process.stdout.readline().split()
    family = [int(pid), *descendants(int(pid))]
    assert all(map(lives, family))
    process.kill()
    process.communicate()
    until(lambda: not any(map(lives, family)), what="the end of the server")
    until(lambda: not Path(folder).exists(), what="the removal of its folder")


def test_a_fresh_schema_is_dropped_whoever_holds_its_tables() -> None:
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


def test_a_fresh_mariadb_database_is_dropped_whoever_holds_its_tables() -> None:
    with fresh_mariadb_url() as url:
        name = urlsplit(url).path[1:]
        forgotten = shared_mariadb().connect(name)
        with forgotten.cursor() as cursor:
            cursor.execute("CREATE TABLE held (id int)")
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM held")
    with shared_mariadb().connect() as connection, connection.cursor() as cursor:
        assert not cursor.execute("SHOW DATABASES LIKE %s", [name])


def test_a_missing_server_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBTASKQUEUE_TEST_REQUIRE", "mariadb, galera")
    with pytest.raises(pytest.fail.Exception, match="NO MARIADB SERVER IS INSTALLED"):
        missing("mariadb", "not found")
    with pytest.raises(pytest.skip.Exception, match="NO POSTGRESQL SERVER IS INSTALLED: not found; NOT TESTED"):
        missing("postgresql", "not found")

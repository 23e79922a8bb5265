"""The proxy of the tests breaks a connection at an exact point, so it is known which statements took effect."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psycopg
import pymysql
import pytest
from helpers import Background, until
from pymysql.connections import Connection as MariaDBConnection
from servers.postgresql import Connection as PostgresConnection
from servers.proxy import CuttingProxy, When, any_statement, commits, containing
from servers.shared import shared_mariadb, shared_postgresql
from servers.wire import MariaDBConversation, PostgreSQLConversation


@pytest.fixture
def table() -> Iterator[PostgresConnection]:
    """Create an empty table ``numbers`` in PostgreSQL; return a connection that bypasses the proxy."""
    with shared_postgresql().connect() as connection:
        connection.execute("CREATE TABLE numbers (n int)")
        yield connection
        connection.execute("DROP TABLE numbers")


@pytest.fixture
def proxy() -> Iterator[CuttingProxy]:
    """Start a proxy in front of PostgreSQL."""
    with CuttingProxy(shared_postgresql().port, PostgreSQLConversation) as proxy:
        yield proxy


def connect(proxy: CuttingProxy) -> PostgresConnection:
    return psycopg.connect(proxy.url(shared_postgresql().url()))


def numbers(table: PostgresConnection) -> list[int]:
    return [n for (n,) in table.execute("SELECT n FROM numbers ORDER BY n").fetchall()]


@pytest.mark.parametrize(("when", "written"), [("before", []), ("after", [1])])
def test_a_connection_is_lost_at_commit(
    when: When, written: list[int], table: PostgresConnection, proxy: CuttingProxy
) -> None:
    connection = connect(proxy)
    connection.execute("INSERT INTO numbers VALUES (1)")
    proxy.arm(commits, when)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert proxy.fired
    until(lambda: numbers(table) == written)
    with connect(proxy) as again:
        again.execute("INSERT INTO numbers VALUES (2)")
    assert numbers(table) == [*written, 2]


@pytest.mark.parametrize(("when", "written"), [("before", [1, 2]), ("after", [1, 2, 3])])
def test_a_connection_is_lost_at_a_prepared_statement_in_autocommit(
    when: When, written: list[int], table: PostgresConnection, proxy: CuttingProxy
) -> None:
    connection = connect(proxy)
    connection.autocommit = True
    proxy.arm(containing(b"insert into"), when, nth=3)
    for n in (1, 2):
        connection.execute("INSERT INTO numbers VALUES (%s) RETURNING n", [n], prepare=True)
    assert not proxy.fired
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO numbers VALUES (%s) RETURNING n", [3], prepare=True)
    assert proxy.fired
    assert numbers(table) == written


def test_answers_in_a_pipeline_before_the_lost_one_arrive(table: PostgresConnection, proxy: CuttingProxy) -> None:
    connection = connect(proxy)
    connection.autocommit = True
    proxy.arm(containing(b"VALUES (2)"), "after")
    cursors = []

    def two_statements() -> None:
        with connection.pipeline() as pipeline:
            for n in (1, 2):
                cursors.append(connection.execute(f"INSERT INTO numbers VALUES ({n}) RETURNING n"))
                pipeline.sync()

    with pytest.raises(psycopg.OperationalError):
        two_statements()
    assert cursors[0].fetchone() == (1,)
    assert numbers(table) == [1, 2]


def test_copy_is_lost_after_it_took_effect(table: PostgresConnection, proxy: CuttingProxy) -> None:
    connection = connect(proxy)
    connection.autocommit = True
    proxy.arm(containing(b"copy"), "after")
    with (
        pytest.raises(psycopg.OperationalError),
        connection.cursor() as cursor,
        cursor.copy("COPY numbers FROM STDIN") as copy,
    ):
        copy.write_row([7])
    assert numbers(table) == [7]


def test_a_silent_proxy_sends_the_client_nothing(table: PostgresConnection, proxy: CuttingProxy) -> None:
    connection = connect(proxy)
    connection.execute("INSERT INTO numbers VALUES (1)")
    proxy.arm(commits, "silence")
    commit = Background(connection.commit)
    until(lambda: numbers(table) == [1])
    proxy.wait_until_fired()
    assert commit.runs
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        commit.join()


def test_a_frozen_proxy_passes_nothing_until_it_is_thawed(table: PostgresConnection, proxy: CuttingProxy) -> None:
    connection = connect(proxy)
    proxy.freeze()
    query = Background(lambda: connection.execute("SELECT 5").fetchone())
    newcomer = Background(lambda: connect(proxy))
    with pytest.raises(AssertionError, match="did not end"):
        query.join(0.2)
    proxy.thaw()
    assert query.join() == (5,)
    newcomer.join().close()
    connection.close()


def test_connections_are_refused_cut_and_accepted_again(proxy: CuttingProxy) -> None:
    connection = connect(proxy)
    assert proxy.connections == 1
    proxy.refuse()
    connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(proxy)
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    until(lambda: proxy.connections == 0)
    proxy.accept_again()
    connect(proxy).close()


def test_a_stopped_proxy_accepts_no_connections() -> None:
    with CuttingProxy(shared_postgresql().port, PostgreSQLConversation) as proxy:
        connection = connect(proxy)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))


@pytest.fixture
def maria_table() -> Iterator[MariaDBConnection]:
    """Create an empty table ``numbers`` in MariaDB; return a connection that bypasses the proxy."""
    with shared_mariadb().connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE numbers (n int)")
        yield connection
        cursor.execute("DROP TABLE numbers")


def maria_numbers(table: MariaDBConnection) -> list[int]:
    with table.cursor() as cursor:
        cursor.execute("SELECT n FROM numbers ORDER BY n")
        return [n for (n,) in cursor.fetchall()]


def transact(connection: MariaDBConnection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO numbers VALUES (1)")
        cursor.execute("INSERT INTO numbers VALUES (2), (3) RETURNING n")
        assert cursor.fetchall() == ((2,), (3,))
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == ((1,),)
    connection.commit()


@pytest.mark.parametrize(
    ("statement", "when", "written"),
    [
        (b"COMMIT", "before", []),
        (b"COMMIT", "after", [1, 2, 3]),
        (b"RETURNING", "before", []),
        (b"RETURNING", "after", []),
        (b"SELECT 1", "after", []),
    ],
)
def test_a_mariadb_connection_is_lost(
    statement: bytes, when: When, written: list[int], maria_table: MariaDBConnection
) -> None:
    with CuttingProxy(shared_mariadb().port, MariaDBConversation) as proxy:
        connection = pymysql.connect(host="127.0.0.1", port=proxy.port, user="test", database="test")
        proxy.arm(containing(statement), when)
        with pytest.raises(pymysql.OperationalError):
            transact(connection)
        assert proxy.fired
        until(lambda: maria_numbers(maria_table) == written)
        again = pymysql.connect(host="127.0.0.1", port=proxy.port, user="test", database="test")
        again.close()


def test_a_large_answer_of_mariadb_ends_before_the_connection_is_lost(maria_table: MariaDBConnection) -> None:
    with CuttingProxy(shared_mariadb().port, MariaDBConversation) as proxy:
        connection = pymysql.connect(host="127.0.0.1", port=proxy.port, user="test", database="test", autocommit=True)
        proxy.arm(any_statement, "after")
        with connection.cursor() as cursor, pytest.raises(pymysql.OperationalError):
            cursor.execute("INSERT INTO numbers SELECT seq FROM seq_1_to_50000 RETURNING n")
        assert len(maria_numbers(maria_table)) == 50000

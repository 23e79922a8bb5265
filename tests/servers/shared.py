"""Empty databases for tests, in a server that all tests of this process share.

The first test that needs the server starts it, so it runs once in each process of pytest-xdist. It is fast rather
than durable, and ends with the process. A test that stops its server must start its own instead.

    with fresh_postgresql_url() as url, TaskQueue(url) as queue: ...
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
from psycopg import sql
from pymysql.connections import Connection

from servers.mariadb import MariaDBServer
from servers.pgbouncer import PgBouncer
from servers.postgresql import Connection as PostgresConnection
from servers.postgresql import PostgresServer
from servers.process import ServerProcess
from servers.requirements import given, must_be_ours

PATIENCE = 2
"""Seconds until a connection that a test left open is closed, so that its tables can be dropped."""


def _end_with_this_process(server: ServerProcess) -> None:
    owner = os.getpid()

    def end() -> None:
        if os.getpid() == owner:  # a child that a test has forked must not stop the servers
            server.close()

    atexit.register(end)


@functools.cache
def shared_postgresql() -> PostgresServer:
    """Return the shared PostgreSQL server. Skip if PostgreSQL is missing."""
    server = PostgresServer(durable=False)
    _end_with_this_process(server)
    server.start()
    return server


@functools.cache
def shared_mariadb() -> MariaDBServer:
    """Return the shared MariaDB server. Skip if MariaDB is missing."""
    server = MariaDBServer(durable=False)
    _end_with_this_process(server)
    server.start()
    return server


@functools.cache
def shared_pgbouncer() -> PgBouncer:
    """Return a PgBouncer in transaction mode in front of the shared PostgreSQL server. Skip if either is missing."""
    must_be_ours("postgresql")
    bouncer = PgBouncer(shared_postgresql())
    _end_with_this_process(bouncer)
    bouncer.start()
    return bouncer


def shared_postgresql_url() -> str:
    """Return the URL of the shared PostgreSQL database, or of the one that the environment names."""
    return given("postgresql") or shared_postgresql().url()


def shared_mariadb_url() -> str:
    """Return the URL of the shared MariaDB database, or of the one that the environment names."""
    return given("mariadb") or shared_mariadb().url()


@contextlib.contextmanager
def fresh_postgresql_url() -> Iterator[str]:
    """Yield the URL of a schema that does not exist yet; drop it at the end of the block."""
    with _schema_of_its_own(shared_postgresql_url()) as url:
        yield url


@contextlib.contextmanager
def fresh_pgbouncer_url() -> Iterator[str]:
    """Do the same through a PgBouncer in transaction mode."""
    with _schema_of_its_own(shared_pgbouncer().url()) as url:
        yield url


@contextlib.contextmanager
def _schema_of_its_own(base: str) -> Iterator[str]:
    schema = f"t_{uuid.uuid4().hex}"
    try:
        yield f"{base}{'&' if '?' in base else '?'}schema={schema}"
    finally:
        _drop_schema(schema)


@contextlib.contextmanager
def fresh_mariadb_url() -> Iterator[str]:
    """Yield the URL of an empty database; drop it at the end of the block."""
    name = f"t_{uuid.uuid4().hex}"
    _mariadb(f"CREATE DATABASE `{name}`")
    try:
        yield urlsplit(shared_mariadb_url())._replace(path=f"/{name}").geturl()
    finally:
        _drop_database(name)


@functools.cache
def _postgresql_administrator() -> PostgresConnection:
    connection = psycopg.connect(shared_postgresql_url(), autocommit=True)
    connection.execute(f"SET lock_timeout = '{PATIENCE}s'")
    connection.execute("SET client_min_messages = warning")
    return connection


def _drop_schema(schema: str) -> None:
    connection = _postgresql_administrator()
    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
    try:
        connection.execute(drop)
    except psycopg.errors.LockNotAvailable:  # a test left a transaction open
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
            " WHERE relnamespace = to_regnamespace(%s) AND pid <> pg_backend_pid()",
            [schema],
        )
        connection.execute(drop)


@functools.cache
def _mariadb_administrator() -> Connection:
    parts = urlsplit(shared_mariadb_url())
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        autocommit=True,
        init_command=f"SET lock_wait_timeout = {PATIENCE}",
    )


def _mariadb(statement: str, *values: str) -> list[tuple[int, ...]]:
    with _mariadb_administrator().cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def _drop_database(name: str) -> None:
    try:
        _mariadb(f"DROP DATABASE IF EXISTS `{name}`")
    except pymysql.OperationalError:  # a test left a transaction open
        for (connection,) in _mariadb("SELECT id FROM information_schema.processlist WHERE db = %s", name):
            _mariadb(f"KILL {connection}")
        _mariadb(f"DROP DATABASE IF EXISTS `{name}`")

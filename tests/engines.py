"""The engines that tests run on: for each a context manager that makes an empty database and yields its URL.

To let an engine join, add it to ENGINES. A server is started when the first test asks for it. POOLED is what
only the contract is tested through (tests/conformance): the same engine, with something in between.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pymysql
from psycopg import sql
from servers.shared import fresh_mariadb_url, fresh_pgbouncer_url, fresh_postgresql_url

from dbtaskqueue import membership


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/taskqueue.sqlite"


@contextlib.contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    with fresh_postgresql_url() as url:
        yield url


@contextlib.contextmanager
def _mariadb(folder: Path) -> Iterator[str]:
    with fresh_mariadb_url() as url:
        yield url


@contextlib.contextmanager
def _pgbouncer(folder: Path) -> Iterator[str]:
    with fresh_pgbouncer_url() as url:
        yield url


Engines = dict[str, Callable[[Path], AbstractContextManager[str]]]

ENGINES: Engines = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
}
POOLED: Engines = {"pgbouncer": _pgbouncer}


def engines_of(folder: str) -> list[str]:
    """The engines that the tests of a folder run on; none: on SQLite, as if there were no other."""
    if folder.startswith("processes/outages"):
        return ["mariadb", "postgresql"]
    if folder.startswith("conformance"):
        return sorted([*ENGINES, *POOLED])
    return sorted(ENGINES) if folder.startswith(("processes", "model")) else []


@contextlib.contextmanager
def database(engine: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of that engine; at the end nobody of this process works in it any more."""
    with (ENGINES | POOLED)[engine](folder) as url:
        yield url
        end_all_workers()


def end_all_workers() -> None:
    """End what the handles of a test left running for tasks that they still hold.

    Else their hearts and loops ask for a database that is gone, each second, until the end of this process.
    """
    for member in list(membership._members):
        with member._lock:
            loop, heart = member._loop, member._heart
            member.id = member._loop = member._heart = None
            member._held.clear()
        if loop is not None:
            loop.stop()
        if heart is not None:
            heart.stop()
        member.store.close()


def execute(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement past the library, with ``%s`` for each value; the rows that it gives, if any."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        with contextlib.closing(sqlite3.connect(parts.path[1:], timeout=30, isolation_level=None)) as lite:
            return lite.execute(statement.replace("%s", "?"), values).fetchall()
    if parts.scheme == "mariadb":
        with (
            pymysql.connect(
                host=parts.hostname or "",
                port=parts.port or 0,
                user=parts.username,
                database=parts.path[1:],
                autocommit=True,
                ssl_disabled=True,  # its context takes 50 ms
            ) as maria,
            maria.cursor() as cursor,
        ):
            cursor.execute(statement, values)
            return list(cursor.fetchall())
    schema = parse_qs(parts.query).get("schema", ["dbtaskqueue"])[0]
    with psycopg.connect(parts._replace(query="").geturl()) as postgres:
        postgres.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
        done = postgres.execute(statement.encode(), values)
        return done.fetchall() if done.description else []

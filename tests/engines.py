"""The engines that tests run on: for each a context manager that makes an empty database and yields its URL.

To add an engine, add it to ENGINES. A server is started when the first test asks for it. POOLED has PostgreSQL behind
a connection pooler: only tests/conformance runs through it.

Only ``engines_of`` decides which engines a test runs on:

- ``pytest --all-engines`` (``make test-all``) runs each test on every engine of its directory.
- The default run (``make test``) runs a test on every engine that can make it fail. Where SQL decides, these are all
  of ENGINES. Where it does not (executors, options, names, bad input), ``one_engine("reason")`` marks the test or its
  module, and SQLite alone is used. ``every_engine("reason")`` marks a test that is different from its module.
- PgBouncer is left out of the default run, except for tests marked ``pooled("reason")``: those about the state of a
  session or about transactions.
- A test marked ``engine("sqlite")`` runs on that engine only, in either run.

The default run must still run every named query on every engine: ``query_coverage.py`` checks that.
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
import pytest
from psycopg import sql
from servers.shared import fresh_mariadb_url, fresh_pgbouncer_url, fresh_postgresql_url

from dbtaskqueue._worker import membership


@contextlib.contextmanager
def _sqlite(directory: Path) -> Iterator[str]:
    yield f"sqlite:///{directory}/taskqueue.sqlite"


@contextlib.contextmanager
def _postgresql(directory: Path) -> Iterator[str]:
    with fresh_postgresql_url() as url:
        yield url


@contextlib.contextmanager
def _mariadb(directory: Path) -> Iterator[str]:
    with fresh_mariadb_url() as url:
        yield url


@contextlib.contextmanager
def _pgbouncer(directory: Path) -> Iterator[str]:
    with fresh_pgbouncer_url() as url:
        yield url


Engines = dict[str, Callable[[Path], AbstractContextManager[str]]]

ENGINES: Engines = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
}
POOLED: Engines = {"pgbouncer": _pgbouncer}


def engines_of(directory: str, node: pytest.Item | pytest.Collector, *, everything: bool) -> list[str]:
    """Return the engines that a test in this directory runs on; without any, it runs once, on SQLite."""
    if directory.startswith("processes/outages"):
        names = ["mariadb", "postgresql"]
    elif directory.startswith("conformance"):
        names = sorted([*ENGINES, *POOLED])
    elif directory.startswith(("processes", "model", "dashboard", "integrations")):
        names = sorted(ENGINES)
    else:
        return []
    if only := node.get_closest_marker("engine"):
        names = [name for name in names if name in only.args]
    if everything or not names:
        return names
    if node.get_closest_marker("one_engine") and not node.get_closest_marker("every_engine"):
        return ["sqlite"] if "sqlite" in names else names[-1:]
    return [name for name in names if name in ENGINES or node.get_closest_marker("pooled")]


@contextlib.contextmanager
def database(engine: str, directory: Path) -> Iterator[str]:
    """Yield the URL of an empty database. After the block, no thread of this process uses it any more."""
    with (ENGINES | POOLED)[engine](directory) as url:
        yield url
        end_all_workers()


def end_all_workers() -> None:
    """End the maintenance threads that run because handles of a test still hold tasks.

    Otherwise they would keep querying a database that no longer exists, until this process ends.
    """
    for member in list(membership._members):
        with member._lock:
            loop, heartbeat = member._loop, member._heartbeat
            member.id = member._loop = member._heartbeat = None
            member._forget_claims()
        if loop is not None:
            loop.stop()
        if heartbeat is not None:
            heartbeat.stop()
        member.store.close()


def execute(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement without the library, with ``%s`` for each value; return its rows, if it has any."""
    with cursor(url) as its:
        its.execute(statement.replace("%s", "?") if url.startswith("sqlite:") else statement, values)
        return list(its.fetchall()) if its.description else []


@contextlib.contextmanager
def cursor(url: str) -> Iterator[Any]:
    """Open a cursor of the engine's driver, without the library. Commit at the end of the block."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        with contextlib.closing(sqlite3.connect(parts.path[1:], timeout=30, isolation_level=None)) as lite:
            yield lite.cursor()
    elif parts.scheme == "mariadb":
        with (
            pymysql.connect(
                host=parts.hostname or "",
                port=parts.port or 0,
                user=parts.username,
                database=parts.path[1:],
                autocommit=True,
                ssl_disabled=True,  # creating its context takes 50 ms
            ) as maria,
            maria.cursor() as its,
        ):
            yield its
    else:
        with psycopg.connect(parts._replace(query="").geturl()) as postgres, postgres.cursor() as its:
            its.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema_of(url))))
            yield its


def schema_of(url: str) -> str:
    """Return the PostgreSQL schema that a URL names."""
    return parse_qs(urlsplit(url).query).get("schema", ["dbtaskqueue"])[0]

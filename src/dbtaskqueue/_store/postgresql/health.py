"""What ``doctor`` reports about a PostgreSQL server and our schema in it."""

from __future__ import annotations

from collections.abc import Iterator

from ...checks import listed
from ..contract import Finding
from .connections import PostgresqlConnections, PostgresqlLink

_MANY_DEAD = 100_000
LONG = 300.0
"""Seconds after which a transaction is called long."""
_DURABLE = {"on", "remote_apply", "remote_write", "local"}


def findings(connections: PostgresqlConnections, schema: str, link: PostgresqlLink) -> list[Finding]:
    """Return engine, version, durability, size, vacuum and what delays it, and rights, with suggested fixes."""
    settings = {str(name): str(value) for name, value in link.rows("settings")}
    return [
        Finding("engine", "PostgreSQL"),
        Finding("version", settings["server_version"]),
        *_standby(link),
        _durability(settings),
        *_connections(settings, link, pooled=connections.is_pooled),
        Finding("isolation", settings["default_transaction_isolation"]),
        Finding("time zone", f"{settings['TimeZone']} (irrelevant: times are stored as numbers)"),
        *_vacuum(schema, settings, link),
        *_rights(schema, link),
    ]


def _standby(link: PostgresqlLink) -> Iterator[Finding]:
    if link.rows("is_standby") == [(True,)]:
        advice = "connect with target_session_attrs=read-write and the addresses of all servers"
        yield Finding("role", "a standby: nothing can be written", advice, True)


def _durability(settings: dict[str, str]) -> Finding:
    commit, fsync = settings["synchronous_commit"], settings["fsync"]
    value = f"synchronous_commit={commit}, fsync={fsync}, full_page_writes={settings['full_page_writes']}"
    if fsync != "on" or settings["full_page_writes"] != "on":
        advice = "psql -c 'ALTER SYSTEM SET fsync = on' -c 'ALTER SYSTEM SET full_page_writes = on'"
        return Finding("durability", f"{value}: a power failure may destroy the database", advice)
    if commit not in _DURABLE:
        advice = "psql -c 'ALTER SYSTEM SET synchronous_commit = on' -c 'SELECT pg_reload_conf()'"
        return Finding("durability", f"{value}: a crash of the server may lose what was committed last", advice)
    return Finding("durability", f"{value}: an accepted task survives a power failure")


def _connections(settings: dict[str, str], link: PostgresqlLink, *, pooled: bool) -> Iterator[Finding]:
    used, most = int(link.rows("connections")[0][0]), int(settings["max_connections"])
    tight = "psql -c 'ALTER SYSTEM SET max_connections = …', then restart; or PgBouncer" if used > 0.8 * most else None
    yield Finding("connections", f"{used} of {most}; a worker uses up to 3", tight)
    if pooled:
        yield Finding("pooler", "PgBouncer or similar: workers poll, since LISTEN is not available through it")
        timeout = settings["statement_timeout"]
        advice = "psql -c \"ALTER ROLE … SET statement_timeout = '20s'\"" if timeout == "0" else None
        yield Finding("statement timeout", f"{timeout} ms, set by the server", advice)


def _vacuum(schema: str, settings: dict[str, str], link: PostgresqlLink) -> Iterator[Finding]:
    tables, indexes, live, dead = (int(number) for number in link.rows("sizes", {"schema": schema})[0])
    yield Finding("size", f"tables {tables} bytes, indexes {indexes} bytes")
    vacuum = f"psql -c 'VACUUM ANALYZE \"{schema}\".dbtaskqueue_task'" if dead > max(_MANY_DEAD, live) else None
    yield Finding("rows", f"{live} live, {dead} dead", vacuum)
    if settings["autovacuum"] != "on":
        yield Finding("autovacuum", "off: the tables grow without limit", "psql -c 'ALTER SYSTEM SET autovacuum = on'")
    for pid, seconds, name in link.rows("long_transactions", {"seconds": LONG}):
        value = f"process {pid} ({name}) has one open for {seconds:.0f} s, so vacuum removes no dead rows"
        yield Finding("long transaction", value, f"psql -c 'SELECT pg_terminate_backend({pid})'")


def _rights(schema: str, link: PostgresqlLink) -> Iterator[Finding]:
    missing = [f"{right} on {table}" for table, right in link.rows("missing_rights", {"schema": schema})]
    if missing:
        value = f"missing: {listed(missing, 4)}"
        rights = "SELECT, INSERT, UPDATE, DELETE"
        grant = f"""psql -c 'GRANT {rights} ON ALL TABLES IN SCHEMA "{schema}" TO …'"""
        yield Finding("rights", value, grant, True)

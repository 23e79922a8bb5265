"""What ``doctor`` reports about a MariaDB server and our tables in it."""

from __future__ import annotations

from collections.abc import Iterator

from ...checks import listed
from ..contract import Finding
from .connections import MariadbLink

_LONG_HISTORY = 1_000_000
_NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE")


def findings(link: MariadbLink) -> list[Finding]:
    """Return engine, version, durability, size, what delays purging, cluster and rights, with suggested fixes."""
    variables = {str(name): str(value) for name, value in link.rows("variables")}
    status = {str(name): str(value) for name, value in link.rows("status")}
    isolation = variables.get("tx_isolation") or variables.get("transaction_isolation", "unknown")
    return [
        Finding("engine", "MariaDB"),
        Finding("version", str(link.rows("server")[0][0])),
        *_durability(variables),
        *_replication(variables),
        *(_cluster(status) if variables.get("wsrep_on") == "ON" else ()),
        _connections(variables, status),
        Finding("sql_mode", f"{variables['sql_mode']} (irrelevant: our sessions set their own)"),
        Finding("isolation", f"{isolation} (irrelevant: our sessions set their own)"),
        Finding("time zone", f"{variables['time_zone']} (irrelevant: times are stored as numbers)"),
        *_purging(link, status),
        *_rights(link),
    ]


def _durability(variables: dict[str, str]) -> Iterator[Finding]:
    flush, binlog = variables["innodb_flush_log_at_trx_commit"], variables["log_bin"] == "ON"
    value = f"innodb_flush_log_at_trx_commit={flush}, "
    value += f"sync_binlog={variables['sync_binlog']}" if binlog else "no binary log"
    if flush not in ("1", "3"):
        advice = "mariadb -e 'SET GLOBAL innodb_flush_log_at_trx_commit = 1', and in the server's configuration"
        yield Finding("durability", f"{value}: a power failure may lose the last second", advice)
    elif binlog and variables["sync_binlog"] == "0":
        advice = "mariadb -e 'SET GLOBAL sync_binlog = 1', and in the server's configuration"
        yield Finding("durability", f"{value}: a power failure may lose the end of the binary log", advice)
    else:
        yield Finding("durability", f"{value}: an accepted task survives a power failure")
    if variables["innodb_doublewrite"] == "OFF":
        advice = "put innodb_doublewrite = ON into the server's configuration, and restart it"
        yield Finding("doublewrite", "OFF: a power failure may destroy the database", advice)


def _replication(variables: dict[str, str]) -> Iterator[Finding]:
    if variables["log_bin"] == "ON" and variables["binlog_format"] == "STATEMENT":
        value = "STATEMENT: nothing can be written at the isolation level that we need"
        yield Finding("binlog_format", value, "mariadb -e \"SET GLOBAL binlog_format = 'MIXED'\"", True)
    if variables["read_only"] not in ("OFF", "0"):
        advice = "give the URL the addresses of all servers, host1,host2: the first that takes writes is used"
        yield Finding("role", "read_only: nothing can be written", advice, True)


def _cluster(status: dict[str, str]) -> Iterator[Finding]:
    size, state = status.get("wsrep_cluster_size", "0"), status.get("wsrep_cluster_status", "unknown")
    value = f"Galera, {size} nodes, {state}, {status.get('wsrep_local_state_comment', 'unknown')}"
    if status.get("wsrep_ready") != "ON":
        yield Finding("cluster", f"{value}: not ready", "mariadb -e \"SHOW STATUS LIKE 'wsrep%'\"", True)
    else:
        yield Finding("cluster", f"{value}; all programs must write on one node: name the nodes in the same order")


def _connections(variables: dict[str, str], status: dict[str, str]) -> Finding:
    used, most = int(status["threads_connected"]), int(variables["max_connections"])
    advice = f"mariadb -e 'SET GLOBAL max_connections = {2 * most}'" if used > 0.8 * most else None
    return Finding("connections", f"{used} of {most}; a worker uses up to 3", advice)


def _purging(link: MariadbLink, status: dict[str, str]) -> Iterator[Finding]:
    tables, indexes, free = (int(number) for number in link.rows("sizes")[0])
    yield Finding("size", f"tables {tables} bytes, indexes {indexes} bytes, {free} bytes free in their files")
    history = int(status.get("innodb_history_list_length", 0))
    advice = "end long transactions; see information_schema.innodb_trx" if history > _LONG_HISTORY else None
    yield Finding("history", f"{history} old versions of rows are not purged yet", advice)
    running = link.rows_if_allowed("long_transactions")
    if running is None:
        yield Finding("long transactions", "cannot be seen without the right PROCESS")
    for thread, seconds in running or []:
        value = f"connection {thread} has one open for {seconds} s, which prevents the purge of old rows"
        yield Finding("long transaction", value, f"mariadb -e 'KILL {thread}'")


def _rights(link: MariadbLink) -> Iterator[Finding]:
    if link.rows("roles")[0][0]:
        return  # not every account can read the rights of its role
    granted = {(table, right) for table, right in link.rows("rights")}
    missing = [
        f"{right} on {table}"
        for (table,) in link.rows("our_tables")
        for right in (_NEEDED[:1] if table == "dbtaskqueue_schema" else _NEEDED)
        if not granted & {(table, right), (None, right)}
    ]
    if missing:
        value = f"missing: {listed(missing, 4)}"
        yield Finding("rights", value, "mariadb -e 'GRANT SELECT, INSERT, UPDATE, DELETE ON … TO …'", True)

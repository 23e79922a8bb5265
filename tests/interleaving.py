"""Interleaves transactions: starts something in another thread at a certain statement of this thread."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from engines import cursor, execute
from helpers import Background, until
from query_coverage import LINKS, METHODS

_WAITING = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    "mariadb": "SELECT 1 FROM information_schema.innodb_trx JOIN information_schema.processlist"
    " ON id = trx_mysql_thread_id WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()",
}


def start_and_wait_for_lock(url: str, act: Callable[[], Any]) -> Background[Any]:
    """Start ``act`` in a thread. Return when it has ended or waits for a lock.

    On SQLite it returns immediately: while this thread writes, another one can only wait.
    """
    thread = Background(act)
    engine = url.partition(":")[0]
    if engine in _WAITING:
        until(lambda: not thread.runs or _waits(url, engine), what="the end of the thread or its wait for a lock")
    return thread


def _waits(url: str, engine: str) -> bool:
    if engine == "mariadb":
        time.sleep(0.2)  # it refreshes innodb_trx only if that was not read for 0.1 s
    return bool(execute(url, _WAITING[engine]))


@contextlib.contextmanager
def at_statement(
    url: str, query: str, act: Callable[[], Any], *, after: bool = False, ends: bool = False
) -> Iterator[None]:
    """During the block: when this thread first runs this named query, start ``act`` in another thread before it.

    ``after``: start it after the query. ``ends``: wait for its end, since no lock is in its way. The transaction
    continues when ``act`` has ended or waits for a lock. At the end of the block, wait for ``act``; fail if the query
    was not run.
    """
    started: list[Background[Any]] = []

    def around(name: str, run: Callable[[], Any]) -> Any:
        if name != query or started:
            return run()
        result = run() if after else None
        started.append(start_and_wait_for_lock(url, act))
        if ends:
            started[0].join()
        return result if after else run()

    with _watched(around):
        yield
    assert started, f"{query} was not run"
    if not ends:
        started[0].join()


@contextlib.contextmanager
def counted_statements() -> Iterator[Counter[str]]:
    """Count the named queries that this thread runs during the block."""
    found = Counter[str]()

    def around(name: str, run: Callable[[], Any]) -> Any:
        found[name] += 1
        return run()

    with _watched(around):
        yield found


@contextlib.contextmanager
def _watched(around: Callable[[str, Callable[[], Any]], Any]) -> Iterator[None]:
    """Let ``around`` run the named queries of this thread, on every engine, during the block."""
    this = threading.get_ident()
    inside = threading.local()

    def watching(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: object, name: Any, *args: Any, **kwargs: Any) -> Any:
            call = functools.partial(method, self, name, *args, **kwargs)
            if threading.get_ident() != this or getattr(inside, "it", False):  # a method may call another one
                return call()
            inside.it = True
            try:
                return around(name if isinstance(name, str) else "insert_task", call)
            finally:
                inside.it = False

        return run

    kept = []
    for link in LINKS.values():
        for name in METHODS:
            if name in vars(link):
                kept.append((link, name, vars(link)[name]))
                setattr(link, name, watching(vars(link)[name]))
    try:
        yield
    finally:
        for link, name, method in kept:
            setattr(link, name, method)


@contextlib.contextmanager
def users_connection(url: str) -> Iterator[Any]:
    """Open a connection of the driver, in a transaction."""
    with cursor(url) as its:
        if url.startswith("sqlite:"):
            its.execute("BEGIN IMMEDIATE")
        elif url.startswith("mariadb:"):
            its.connection.autocommit(False)
        yield its.connection

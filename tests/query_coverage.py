"""Check that a run of the whole suite ran every named query of ``_store/sql`` on each installed engine.

In the default run, most tests run on few engines (``engines.py``). This check makes that safe: a query that no test
runs any more fails the run. ``conftest.py`` installs the recorder in each process of pytest-xdist,
collects what they recorded, and asks for ``unused`` at the end. Child processes of tests are not recorded.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from dbtaskqueue._store import queries
from dbtaskqueue._store.mariadb.connections import MariadbLink
from dbtaskqueue._store.postgresql.connections import PostgresqlLink
from dbtaskqueue._store.records import column_lists
from dbtaskqueue._store.sqlite.transaction import SqliteTransaction

LINKS = {"sqlite": SqliteTransaction, "postgresql": PostgresqlLink, "mariadb": MariadbLink}
"""The class of each engine that runs named queries."""

METHODS = ("rows", "row", "change", "change_each", "change_together", "insert")
"""Its methods whose first argument is the name of a query."""

recorded: defaultdict[str, set[str]] = defaultdict(set)
"""The names of the queries that this process ran, for each engine."""


def install() -> None:
    """Record, from now on, the name of each query that this process runs."""
    for engine, link in LINKS.items():
        for name in METHODS:
            if method := vars(link).get(name):
                setattr(link, name, _recording(method, recorded[engine]))


def _recording(method: Callable[..., Any], names: set[str]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: object, name: str, *args: Any, **kwargs: Any) -> Any:
        names.add(name)
        return method(self, name, *args, **kwargs)

    return run


def unused(engine: str, ran: Iterable[str]) -> list[str]:
    """Return the named queries of an engine that were neither run nor included in one that was."""
    parts = _parts(engine)
    covered, found = set[str](), list(ran)
    while found:
        name = found.pop()
        if name not in covered:
            covered.add(name)
            found += parts.get(name, [])
    return sorted(set(parts) - covered)


def _parts(engine: str) -> dict[str, list[str]]:
    """Return the named queries of an engine, each with the names that its text includes."""
    texts = queries.sources(engine)
    lists = column_lists(texts)

    def included(text: str) -> list[str]:
        names = re.findall(r"\{\{(\w+)\}\}", text)
        return [part for name in names for part in (included(lists[name]) if name in lists else [name])]

    return {name: included(text) for name, text in texts.items()}

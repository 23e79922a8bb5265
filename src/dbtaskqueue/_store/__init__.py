"""The only package that uses SQL. ``open_store`` returns the Store that a URL names."""

from __future__ import annotations

import importlib

from .._formats.url import parse
from ..errors import ConfigurationError

# Imported now, since exit handlers run in reverse order: connections are closed after their workers have left.
from . import connections as connections
from .connections import close_free as close_free
from .connections import surround_writes as surround_writes
from .contract import Store
from .counting import Statements as Statements
from .counting import count_statements as count_statements
from .verbs import SqlStore

_ENGINES = {"sqlite": "SqliteStore", "postgresql": "PostgresqlStore", "mariadb": "MariadbStore"}
"""The class in each engine's module ``store``. The module is imported when it is needed, and its driver with it."""


def open_store(url: str) -> Store:
    """Return the store that ``url`` names, not opened yet. Raises ConfigurationError."""
    target = parse(url)
    try:
        module = importlib.import_module(f"{__name__}.{target.engine}.store")
    except ModuleNotFoundError as missing:
        command = f"pip install 'dbtaskqueue[{target.engine}]'"
        raise ConfigurationError(
            f"{target.text}: {missing.name} is not installed; install it with: {command}"
        ) from None
    store: SqlStore = getattr(module, _ENGINES[target.engine])(target)
    store.url = store.address(url)
    return store

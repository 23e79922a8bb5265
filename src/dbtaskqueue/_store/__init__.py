"""The only package that speaks SQL. ``open_store`` is its door: a URL in, a Store out."""

from __future__ import annotations

import importlib

from .._formats.url import parse
from ..errors import ConfigurationError
from . import connections as connections  # now, so that at exit it closes connections after who uses them has left
from .connections import close_free as close_free
from .connections import surround_writes as surround_writes
from .contract import Store
from .verbs import SqlStore

_ENGINES = {"sqlite": "SqliteStore", "postgresql": "PostgresqlStore", "mariadb": "MariadbStore"}
"""Each has a package of its name with a module ``store``; a server's is loaded when it is wanted, with its driver."""


def open_store(url: str) -> Store:
    """The store that ``url`` points to, not opened yet. Raises ConfigurationError."""
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

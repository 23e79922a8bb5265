"""The only package that speaks SQL. ``open_store`` is its door: a URL in, a Store out."""

from __future__ import annotations

from ..url import parse
from .base import Store
from .sqlite import SqliteStore

_ENGINES = {"sqlite": SqliteStore}


def open_store(url: str) -> Store:
    """The store that ``url`` points to, not opened yet. Raises ConfigurationError."""
    target = parse(url)
    return _ENGINES[target.engine](target)

"""The engines that tests run on: for each a context manager that makes an empty database and yields its URL.

To let an engine join, add it to ENGINES. A server is started when the first test asks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from servers.shared import fresh_mariadb_url, fresh_postgresql_url


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


ENGINES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
}

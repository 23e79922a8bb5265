"""The engine that a test of the contract runs on.

Every test here asks for ``url`` or ``queue`` and so runs once for each engine. To let an engine join,
add its name to ENGINES with a context manager that makes an empty database of its own for the test and
yields its URL. A test that can mean one engine only is marked with ``@pytest.mark.engine("sqlite")``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from servers.shared import fresh_postgresql_url

from dbtaskqueue import TaskQueue


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/taskqueue.sqlite"


@contextlib.contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    with fresh_postgresql_url() as url:
        yield url


ENGINES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"sqlite": _sqlite, "postgresql": _postgresql}


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine."""
    only = request.node.get_closest_marker("engine")
    if only and request.param not in only.args:
        pytest.skip(f"can mean {', '.join(only.args)} only")
    return str(request.param)


@pytest.fixture
def url(engine: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of that engine."""
    with ENGINES[engine](tmp_path) as url:
        yield url


@pytest.fixture
def other(url: str, queue: TaskQueue) -> Iterator[TaskQueue]:
    """A second handle on the same queue: another worker."""
    with TaskQueue(url) as other:
        yield other

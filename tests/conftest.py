"""Fixtures for every test: a database of its own, and a queue in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import database
from helpers import until as until

from dbtaskqueue import TaskQueue


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model-minutes", default="0", help="minutes of random lives in tests/model (default: seconds)")


@pytest.fixture
def engine() -> str:
    """The name of the engine: SQLite, where a folder's own conftest.py does not say otherwise."""
    return "sqlite"


@pytest.fixture
def url(engine: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that does not exist yet, or is empty."""
    with database(engine, tmp_path) as url:
        yield url


@pytest.fixture
def queue(url: str) -> Iterator[TaskQueue]:
    """A queue in a database of its own."""
    with TaskQueue(url) as queue:
        yield queue

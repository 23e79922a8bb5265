"""What every test shares: a database of its own, a queue in it, and the engines that it runs on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import query_coverage
from engines import database, engines_of
from helpers import until as until
from report import Report

from dbtaskqueue import TaskQueue

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # what a shell starts with & ignores it, and so would the programs that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG_FIRST = ("unit/test_servers", "processes/outages", "model", "processes")
"""Where single tests take longest. They start first, or the run would end with one process that is busy."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-engines", action="store_true", help="each test on every engine (default: tests/engines.py)")
    parser.addoption("--model-minutes", default="0", help="minutes of random lives in tests/model (default: seconds)")
    parser.addoption("--deploy-task-seconds", default="1.5", help="how long the tasks in tests/processes/deploys take")
    parser.addoption("--kills", help="how often tests/processes/children kills (default: 5 or 10 times)")
    parser.addoption("--starved-seconds", default="15", help="how long tests/processes/children starves a worker")


def pytest_configure(config: pytest.Config) -> None:
    query_coverage.install()
    config.pluginmanager.register(Report(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once on each of its engines."""
    if "engine" in metafunc.fixturenames:
        folder = metafunc.definition.path.parent.relative_to(Path(__file__).parent).as_posix()
        everything = metafunc.config.option.all_engines
        if names := engines_of(folder, metafunc.definition, everything=everything):
            metafunc.parametrize("engine", names, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by LONG_FIRST; pytest-xdist hands them out in this order."""

    def place(item: pytest.Item) -> int:
        where = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((at for at, start in enumerate(LONG_FIRST) if where.startswith(start)), len(LONG_FIRST))

    items.sort(key=place)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine: SQLite, where the test's folder does not run on several."""
    return str(getattr(request, "param", "sqlite"))


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

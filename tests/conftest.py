"""Fixtures for all tests: an empty database, a queue in it, and the choice of engines."""

from __future__ import annotations

import itertools
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
    # a shell makes programs started with & ignore SIGINT, and child processes of the tests would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("unit/test_servers", "processes", "model", "docs/test_howto")
"""Directories whose tests take long, mostly because they wait. Each such test is followed by five short ones."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-engines", action="store_true", help="each test on every engine (default: tests/engines.py)")
    parser.addoption("--elsewhere", help="only tests marked so that they run again with this source of processes")
    parser.addoption(
        "--model-minutes", default="0", help="minutes of random sequences in tests/model (default: seconds)"
    )
    parser.addoption("--deploy-task-seconds", default="1.5", help="how long the tasks in tests/processes/deploys take")
    parser.addoption(
        "--cron-moments", default="500", help="random cron expressions and moments in tests/unit/test_timetable.py"
    )
    parser.addoption(
        "--tick-seconds", default="8", help="seconds for which tests/processes/schedules kill workers (default: 8)"
    )
    parser.addoption("--kills", help="how often tests/processes/children kills (default: 5 or 10 times)")
    parser.addoption(
        "--flow-rounds", help="rounds of each race in tests/processes/flow (default: 50; full size: 10,000)"
    )
    parser.addoption("--flow-seconds", default="4", help="for how long tests/processes/flow kill workers under load")
    parser.addoption(
        "--blocked-seconds", default="15", help="seconds for which tests/processes/children block a worker"
    )


def pytest_configure(config: pytest.Config) -> None:
    query_coverage.install()
    config.pluginmanager.register(Report(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once on each of its engines."""
    if "engine" in metafunc.fixturenames:
        directory = metafunc.definition.path.parent.relative_to(Path(__file__).parent).as_posix()
        everything = metafunc.config.option.all_engines
        if names := engines_of(directory, metafunc.definition, everything=everything):
            metafunc.parametrize("engine", names, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the tests of LONG over the first part of the run; pytest-xdist hands tests out in this order."""
    if (source := config.option.elsewhere) is not None:
        items[:] = [item for item in items if any(source in mark.args for mark in item.iter_markers("elsewhere"))]
    tests = Path(__file__).parent
    long: list[pytest.Item] = []
    short: list[pytest.Item] = []
    for item in items:
        (long if item.path.relative_to(tests).as_posix().startswith(LONG) else short).append(item)
    rest = iter(short)
    items[:] = [each for item in long for each in (item, *itertools.islice(rest, 5))]
    items.extend(rest)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of the engine; SQLite if the test's directory does not run on several."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def url(engine: str, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database that does not exist yet or is empty."""
    with database(engine, tmp_path) as url:
        yield url


@pytest.fixture
def queue(url: str) -> Iterator[TaskQueue]:
    """Return a queue in an empty database."""
    with TaskQueue(url) as queue:
        yield queue

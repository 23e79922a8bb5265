"""The engine that a test of the contract runs on.

Every test here asks for ``url`` or ``queue`` and so runs once for each of ENGINES (``tests/engines.py``). A
test that can mean one engine only is marked with ``@pytest.mark.engine("sqlite")``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import ENGINES

from dbtaskqueue import TaskQueue


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

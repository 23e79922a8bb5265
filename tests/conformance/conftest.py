"""The engine that a test of the contract runs on.

Every test here asks for ``url`` or ``queue`` and so runs once for each of ENGINES (``tests/engines.py``). A
test that can mean one engine only is marked with ``@pytest.mark.engine("sqlite")``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbtaskqueue import TaskQueue


@pytest.fixture
def other(url: str, queue: TaskQueue) -> Iterator[TaskQueue]:
    """A second handle on the same queue: another worker."""
    with TaskQueue(url) as other:
        yield other

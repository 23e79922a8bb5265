"""The fixtures of the conformance tests.

Every test here uses ``url`` or ``queue`` and so runs on each of ENGINES (``tests/engines.py``). A
test that makes sense on one engine only is marked with ``@pytest.mark.engine("sqlite")``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbtaskqueue import TaskQueue


@pytest.fixture
def other(url: str, queue: TaskQueue) -> Iterator[TaskQueue]:
    """Open a second handle on the same queue, which counts as another worker."""
    with TaskQueue(url) as other:
        yield other

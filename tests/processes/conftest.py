"""Every test here that asks for ``url`` runs once for each engine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from engines import engine_fixture

engine = engine_fixture()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of the test; what still runs is killed at its end."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()

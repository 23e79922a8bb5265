"""Fixtures for tests of parents and children with real processes."""

from __future__ import annotations

import pytest


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds a race has: ``--flow-rounds``."""
    return int(request.config.option.flow_rounds or 50)


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """For how long workers are killed: ``--flow-seconds``."""
    return float(request.config.option.flow_seconds)

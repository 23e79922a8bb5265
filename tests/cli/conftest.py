"""The command, on a database of its own, in a directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.running import Cli


@pytest.fixture
def cli(url: str, tmp_path: Path) -> Cli:
    """Runs ``dbtaskqueue --url URL …`` for the database of ``url``; a ``queue`` fixture shares it."""
    return Cli(url, tmp_path)

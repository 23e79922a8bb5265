"""Fixtures for tests with real processes, which end with the test that started them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workers import WORKER


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """The file in which workers record what they do."""
    return tmp_path / "note"


@pytest.fixture
def worker(start: Callable[..., subprocess.Popen[str]], url: str, note: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a worker process with these options of ``Worker``; ``run=`` has the options of ``Worker.run``."""

    def run(**options: object) -> subprocess.Popen[str]:
        return start([sys.executable, "-c", WORKER, url, str(note), json.dumps(options)])

    return run

"""Fixtures for tests with real processes: each is ended with the test that started it."""

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
    """The file into which workers write what they do."""
    return tmp_path / "note"


@pytest.fixture
def worker(start: Callable[..., subprocess.Popen[str]], url: str, note: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a worker process with options of ``Worker``; ``run=`` holds options of ``Worker.run``."""

    def run(**options: object) -> subprocess.Popen[str]:
        return start([sys.executable, "-c", WORKER, url, str(note), json.dumps(options)])

    return run

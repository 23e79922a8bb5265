"""The transactions of test_transactions.py, with the oldest SQLAlchemy and drivers that the extras allow."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from integrations.environments import environment
from pages import ROOT

OLDEST = (
    *("sqlalchemy==2.0.0", "aiosqlite==0.20.0", "asyncpg==0.29.0", "aiomysql==0.2.0", "asyncmy==0.2.10"),
    *("psycopg2-binary", "psycopg[binary]", "pymysql", "greenlet"),
    *("pytest", "pytest-timeout", "psutil", "cronsim", "click", "rich"),
)


def test_the_oldest_versions(request: pytest.FixtureRequest) -> None:
    if not request.config.option.all_engines:
        pytest.skip("with --all-engines only: it installs the oldest versions, and runs the tests a second time")
    file = Path(__file__).with_name("test_transactions.py")
    command = [environment(*OLDEST), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    variables.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout

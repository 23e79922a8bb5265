"""The shop: an application that tests import, and that programs run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from engines import execute
from helpers import ended, python_path
from servers import requirements

HERE = Path(__file__).parent
DRIVERS = {"postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}


def sqlalchemy_url(url: str) -> str:
    """Return the URL for SQLAlchemy."""
    parts = urlsplit(url)
    return parts._replace(scheme=DRIVERS[parts.scheme], query="").geturl() if parts.scheme in DRIVERS else url


@pytest.fixture
def database(url: str) -> str:
    """Return the URL of a database without the application's table: a PostgreSQL server has one for several tests."""
    if url.startswith("postgresql"):
        execute(url, "DROP TABLE IF EXISTS public.orders")
    return url


@pytest.fixture
def config(database: str) -> dict[str, Any]:
    """Return the config of an application whose queue is in its own database."""
    url = database
    return {"SQLALCHEMY_DATABASE_URI": sqlalchemy_url(url), "DBTASKQUEUE_URL": url}


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the shop. Each test has modules of its own."""
    requirements.library("flask_sqlalchemy")
    monkeypatch.syspath_prepend(str(HERE))
    import shop

    yield shop
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


class Programs:
    """Runs the programs of an installed Flask, in a directory."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "DBTASKQUEUE_"))},
            "PYTHONPATH": f"{HERE}{os.pathsep}{python_path()}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SHOP_DATABASE": sqlalchemy_url(url),
            "SHOP_TASKS": url,
        }

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``python -m WORDS``."""
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.directory,
            env=self.environment,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options},
        )

    def flask(self, *words: str, app: str = "shop") -> tuple[int, str, str]:
        """Run a command of flask. Return its exit code, output and errors."""
        with ended(self.start("flask", "--app", app, *words, stdout=subprocess.PIPE)) as process:
            output, errors = process.communicate(timeout=120)
            return process.returncode, output, errors


@pytest.fixture
def programs(tmp_path: Path, database: str) -> Programs:
    return Programs(tmp_path, database)

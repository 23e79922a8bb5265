"""The versions on the page about compatibility are those that the code requires."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from dbtaskqueue._store.mariadb import connections as mariadb
from dbtaskqueue._store.postgresql import connections as postgresql
from dbtaskqueue._store.sqlite import connections as sqlite
from dbtaskqueue._store.sqlite.store import SqliteStore

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "compatibility.md").read_text()


def supported(name: str) -> str:
    """Return the oldest supported version according to the page, such as "3.38"."""
    [version] = re.findall(rf"^\| {name} \| ([\d.]+) and later", TEXT, re.MULTILINE)
    return version


def test_the_oldest_databases_are_those_that_the_code_accepts() -> None:
    assert supported("SQLite") == ".".join(map(str, sqlite._OLDEST_SQLITE[:2]))
    assert supported("PostgreSQL") == str(postgresql.OLDEST // 10000)
    assert supported("MariaDB") == ".".join(map(str, mariadb.OLDEST))


def test_the_oldest_python_and_drivers_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f">={supported('Python')}" == project["requires-python"]
    extras = project["optional-dependencies"]
    assert extras["postgresql"] == [f"psycopg[binary]>={supported('psycopg')}"]
    assert extras["metrics"] == [f"prometheus-client>={supported('prometheus-client')}"]
    assert extras["mariadb"] == [f"pymysql>={supported('PyMySQL')}"]


def test_the_version_of_the_schema_is_listed() -> None:
    listed = re.findall(r"^\| (\d+) \| \d+\.\d+\.\d+ \| \d+ \|", TEXT, re.MULTILINE)
    assert str(SqliteStore.schema_version) in listed

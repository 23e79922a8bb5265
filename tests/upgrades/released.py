"""Programs and databases of released versions.

The source of a released program comes from the repository's history. Its databases are SQL files beside this module.
"""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3
import subprocess
import tarfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pymysql

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMITS = {"0.1.0": "f17bce9b"}
"""Where a release is in the history, for a clone without its tag."""
_SCHEMA = '"dbtaskqueue"'
"""The PostgreSQL schema in the dumps."""


class NoHistory(Exception):
    """The repository's history is missing or too short, so there is no released program to run."""


def extract_program(version: str, directory: Path) -> Path:
    """Write the source of a released version into ``directory``; return the path for ``PYTHONPATH``.

    Raises NoHistory if the release is not in this repository, for example in a shallow clone.
    """
    for name in (f"v{version}", COMMITS[version]):
        archive = ["git", "-C", str(ROOT), "archive", "--format=tar", f"{name}^{{commit}}", "src"]
        try:
            done = subprocess.run(archive, capture_output=True, timeout=60)
        except FileNotFoundError:
            raise NoHistory("there is no git") from None
        if done.returncode == 0:
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
                tar.extractall(directory, filter="data")
            return directory / "src"
    raise NoHistory(f"git has neither the tag v{version} nor the commit {COMMITS[version]} (a shallow clone?)")


def dump_of(version: str, engine: str) -> Path:
    """Return the path of the database of a released version."""
    return HERE / f"v{version.replace('.', '_')}" / f"{engine}.sql"


def load(url: str, version: str) -> None:
    """Fill an empty database with that of a released version."""
    parts = urlsplit(url)
    text = dump_of(version, parts.scheme).read_text()
    if parts.scheme == "sqlite":
        with contextlib.closing(sqlite3.connect(parts.path[1:], timeout=30)) as lite:
            lite.executescript(text)
    elif parts.scheme == "mariadb":
        with (
            pymysql.connect(
                host=parts.hostname or "",
                port=parts.port or 0,
                user=parts.username,
                database=parts.path[1:],
                ssl_disabled=True,  # its context takes 50 ms
            ) as maria,
            maria.cursor() as cursor,
        ):
            for statement in statements_of(text):
                cursor.execute(statement)
            maria.commit()
    else:
        schema = parse_qs(parts.query).get("schema", ["dbtaskqueue"])[0]
        with psycopg.connect(parts._replace(query="").geturl()) as postgres:
            for statement in statements_of(text.replace(_SCHEMA, f'"{schema}"')):
                postgres.execute(statement.encode())


def statements_of(text: str) -> list[str]:
    """Split a dump. Each statement ends with a semicolon at the end of a line, and has none there otherwise."""
    text = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
    return [statement.strip() for statement in re.split(r";\n", text) if statement.strip()]

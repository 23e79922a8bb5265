"""Programs and databases of released versions.

The source of a released program comes from the repository's history. Its databases are SQL files beside this module.
"""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from engines import cursor, schema_of

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
        archive = ["git", "-C", str(ROOT), "archive", "--format=zip", f"{name}^{{commit}}", "src"]
        try:
            done = subprocess.run(archive, capture_output=True, timeout=60)
        except FileNotFoundError:
            raise NoHistory("there is no git") from None
        if done.returncode == 0:
            zipfile.ZipFile(io.BytesIO(done.stdout)).extractall(directory)
            return directory / "src"
    raise NoHistory(f"git has neither the tag v{version} nor the commit {COMMITS[version]} (a shallow clone?)")


def dump_of(version: str, engine: str) -> Path:
    """Return the path of the database of a released version."""
    return HERE / f"v{version.replace('.', '_')}" / f"{engine}.sql"


def load(url: str, version: str) -> None:
    """Fill an empty database with that of a released version."""
    engine = urlsplit(url).scheme
    text = dump_of(version, engine).read_text()
    with cursor(url) as its:
        if engine == "sqlite":
            its.executescript(text)
            return
        if engine == "postgresql":
            text = text.replace(_SCHEMA, f'"{schema_of(url)}"')
        for statement in statements_of(text):
            its.execute(statement)


def statements_of(text: str) -> list[str]:
    """Split the dump of a server: a semicolon at the end of a line ends a statement, and occurs nowhere else."""
    text = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
    return [statement.strip() for statement in re.split(r";\n", text) if statement.strip()]

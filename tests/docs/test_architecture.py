"""The map, layers, files and tables on the page about the architecture are those of the code."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from helpers import source_of

from dbtaskqueue import TaskQueue

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
SOURCE = source_of()


def test_the_map_shows_every_module_and_package() -> None:
    tree = TEXT.partition("```")[2].partition("```")[0]
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    assert shown == {path.name for path in SOURCE.iterdir() if path.name != "__pycache__"}


def test_the_layers_have_every_module_once() -> None:
    table = TEXT.partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
    layers = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    modules = {path.stem for path in SOURCE.iterdir() if not path.name.startswith("__") and path.name != "py.typed"}
    assert sorted(layers) == sorted(modules)


def test_the_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:[\w.]+/)*\w+\.(?:py|sql))`", TEXT)
    assert len(named) > 15
    for name in named:
        in_source = any(str(path).endswith(f"/{name}") for path in SOURCE.rglob("*"))
        assert in_source or (ROOT / name).exists(), name


def test_every_table_is_described() -> None:
    """The page must have each table that a migration creates, on any engine."""
    migrations = "".join(path.read_text() for path in (SOURCE / "_store" / "sql" / "migrations").rglob("*.sql"))
    created = set(
        re.findall(r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(?:\{\{\w+\}\})?(dbtaskqueue_\w+)", migrations)
    )
    assert set(re.findall(r"^\| `(dbtaskqueue_\w+)` \| ", TEXT, re.MULTILINE)) == created


def test_the_columns_that_are_explained_exist(tmp_path: Path) -> None:
    file = tmp_path / "tasks.sqlite"
    TaskQueue(f"sqlite:///{file}").close()
    columns = {row[1] for row in sqlite3.connect(file).execute("PRAGMA table_info(dbtaskqueue_task)")}
    section = TEXT.partition("\n## Tables\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^- \*\*`(\w+)`\*\*", section, re.MULTILINE)) <= columns

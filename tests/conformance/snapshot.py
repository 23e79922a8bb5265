"""Write the expected schema to ``schema_sqlite.sql``. A test compares the result of all migrations with that file.

After a change of the schema, run this and read the diff: ``.venv/bin/python tests/conformance/snapshot.py``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("schema_sqlite.sql")


def snapshot(path: Path) -> str:
    """Return the SQL of all our tables and indexes in a SQLite file, as SQLite stores it."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        query = "SELECT sql FROM sqlite_master WHERE tbl_name LIKE 'dbtaskqueue%' AND sql IS NOT NULL ORDER BY name"
        statements = [sql for (sql,) in connection.execute(query)]
        versions = connection.execute("SELECT version, oldest FROM dbtaskqueue_schema").fetchall()
    return "".join(f"{statement};\n\n" for statement in statements) + f"-- version, oldest: {versions}\n"


def main() -> None:
    """Write the snapshot."""
    from dbtaskqueue import TaskQueue

    with tempfile.TemporaryDirectory() as directory:
        TaskQueue(f"sqlite:///{directory}/new.sqlite").close()
        SNAPSHOT.write_text(snapshot(Path(directory, "new.sqlite")))


if __name__ == "__main__":
    main()

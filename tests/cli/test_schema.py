"""dbtaskqueue migrate, and schemas that are too new."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cli.running import Cli, assert_explained

from dbtaskqueue import TaskQueue
from dbtaskqueue._store.sqlite.store import SqliteStore

VERSION = SqliteStore.schema_version


def change(cli: Cli, statement: str) -> None:
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute(statement)


def test_migrate_prints_the_versions(cli: Cli) -> None:
    assert cli("migrate") == (0, f"schema: none before, version {VERSION} now\n", "")
    assert cli("migrate") == (0, f"schema: version {VERSION} before, version {VERSION} now\n", "")
    assert cli("stats").code == 0


def test_migrate_leaves_tables_of_other_programs(cli: Cli) -> None:
    change(cli, "CREATE TABLE customer (name TEXT)")
    assert cli("migrate").out == f"schema: none before, version {VERSION} now\n"
    change(cli, "INSERT INTO customer VALUES ('still here')")


def test_a_schema_that_is_too_new(cli: Cli, queue: TaskQueue) -> None:
    change(cli, "UPDATE dbtaskqueue_schema SET version = 999, oldest = 999")
    for words in (("migrate",), ("doctor",), ("list",), ("enqueue", "1"), ("worker", "os:getcwd")):
        assert_explained(
            cli(*words), "schema version 999", f"this one knows {VERSION}", "pip install --upgrade dbtaskqueue"
        )


def test_a_newer_schema_that_this_program_may_use(cli: Cli, queue: TaskQueue) -> None:
    change(cli, "UPDATE dbtaskqueue_schema SET version = 999, oldest = 1")
    assert cli("enqueue", "1").code == 0
    assert cli("migrate").out == "schema: version 999 before, version 999 now\n"

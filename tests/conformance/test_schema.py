"""The schema is created on demand, refused when it is too new, and equal to the sum of its migrations."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from conformance.snapshot import SNAPSHOT, snapshot

from dbtaskqueue import SchemaError, TaskQueue, TaskQueueError, Worker
from dbtaskqueue._formats.url import parse
from dbtaskqueue._store import open_store, queries
from dbtaskqueue._store.sqlite.store import SqliteStore

SCHEMA_VERSION = SqliteStore.schema_version

pytestmark = pytest.mark.engine("sqlite")


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file_of(url), timeout=30)
    try:
        with connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        return rows
    finally:
        connection.close()


def schema_of(url: str) -> dict[str, str]:
    rows = execute(url, "SELECT name, sql FROM sqlite_master WHERE name LIKE 'dbtaskqueue%'")
    return {str(name): str(sql) for name, sql in rows}


def test_a_missing_schema_is_created(url: str) -> None:
    TaskQueue(url).close()
    assert execute(url, "SELECT version, oldest FROM dbtaskqueue_schema") == [(SCHEMA_VERSION, SqliteStore.oldest)]


def test_create_false_creates_no_file(url: str) -> None:
    with pytest.raises(
        SchemaError, match=r"does not exist; .* or name another database with --url or \$DBTASKQUEUE_URL"
    ):
        TaskQueue(url, create=False)
    assert not file_of(url).exists()


def test_create_false_creates_no_schema(url: str) -> None:
    execute(url, "CREATE TABLE theirs (id)")
    with pytest.raises(SchemaError, match=r"dbtaskqueue .*migrate"):
        TaskQueue(url, create=False)
    assert schema_of(url) == {}
    assert execute(url, "PRAGMA journal_mode") == [("delete",)], (
        "the journal mode of another program's file is not changed"
    )


def test_create_false_uses_an_existing_schema(url: str) -> None:
    TaskQueue(url).close()
    with TaskQueue(url, create=False) as queue:
        assert queue.enqueue().id == 1


def test_a_new_database_has_the_schema_of_the_snapshot(url: str) -> None:
    TaskQueue(url).close()
    assert snapshot(file_of(url)) == SNAPSHOT.read_text(), "if the change is intended, run snapshot.py"


def test_the_sum_of_the_migrations_is_the_schema(tmp_path: Path) -> None:
    by_hand = tmp_path / "by_hand.sqlite"
    with contextlib.closing(sqlite3.connect(by_hand)) as connection:
        for script in queries.migrations("sqlite", SCHEMA_VERSION):
            connection.executescript(";".join(script))
    assert snapshot(by_hand) == SNAPSHOT.read_text()


# -- a program of the next version -----------------------------------------------------------------

NEXT = SCHEMA_VERSION + 1
UPGRADE = f"""
-- A comment; with a semicolon.
ALTER TABLE dbtaskqueue_task ADD COLUMN colour TEXT;
CREATE INDEX dbtaskqueue_colour ON dbtaskqueue_task (colour);
UPDATE dbtaskqueue_task SET colour = 'red';
UPDATE dbtaskqueue_schema SET version = {NEXT};
"""


@pytest.fixture
def old(url: str) -> str:
    """Create a database of this version, with a pending and a done task."""
    with TaskQueue(url) as queue:
        queue.enqueue_many(["done", "waits"])
        Worker(url).run(str.upper, max_tasks=1)
    return url


def change_the_program(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make this process behave like a program that knows one more schema version."""
    text = queries._text
    path = f"sql/migrations/sqlite/{NEXT:04}.sql"
    monkeypatch.setattr(queries, "_text", lambda name: script if name == path else text(name))
    monkeypatch.setattr(SqliteStore, "schema_version", NEXT)


def test_an_old_schema_is_upgraded_when_it_is_opened(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change_the_program(monkeypatch, UPGRADE)
    with TaskQueue(old) as queue:
        assert execute(old, "SELECT version, oldest FROM dbtaskqueue_schema") == [(NEXT, SqliteStore.oldest)]
        assert execute(old, "SELECT colour FROM dbtaskqueue_task") == [("red",), ("red",)]
        assert [(task.payload, task.state) for task in queue.tasks()] == [("waits", "pending"), ("done", "done")]
        Worker(old).run(str.upper, burst=True)
        assert queue.stats().done == 2
    TaskQueue(old).close()  # a second opening upgrades nothing


def test_an_old_schema_is_upgraded_by_migrate(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change_the_program(monkeypatch, UPGRADE)
    store = open_store(old)
    assert store.migrate() == (SCHEMA_VERSION, NEXT)
    assert store.migrate() == (NEXT, NEXT)
    store.close()
    TaskQueue(old, create=False).close()


def test_without_create_an_old_schema_is_refused_naming_the_versions(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(file_of(old))
    change_the_program(monkeypatch, UPGRADE)
    with pytest.raises(SchemaError) as caught:
        TaskQueue(old, create=False)
    for words in (f"schema version {SCHEMA_VERSION}", f"needs {NEXT}", "dbtaskqueue --url", "migrate"):
        assert words in str(caught.value)
    assert snapshot(file_of(old)) == before


def test_an_interrupted_upgrade_leaves_the_old_schema(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(file_of(old))
    with monkeypatch.context() as patch:
        change_the_program(patch, UPGRADE.replace("UPDATE dbtaskqueue_schema", "UPDATE no_such_table"))
        with pytest.raises(TaskQueueError):
            TaskQueue(old)
    assert snapshot(file_of(old)) == before
    with TaskQueue(old) as queue:
        assert queue.stats().pending == 1


def test_the_old_program_works_as_long_as_the_new_schema_allows_it(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        change_the_program(patch, UPGRADE)
        TaskQueue(old).close()
    with TaskQueue(old) as queue:
        Worker(queue).run(str.upper, burst=True)
        assert queue.stats().done == 2
    execute(old, f"UPDATE dbtaskqueue_schema SET oldest = {NEXT}")
    with pytest.raises(SchemaError, match=f"version {NEXT}"):
        TaskQueue(old)


def test_a_file_of_version_1_is_upgraded_with_its_tasks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "schema_version", 1)
        with TaskQueue(url):
            pass
    execute(
        url,
        "INSERT INTO dbtaskqueue_task (id, queue, state, rank, due, decided_at, budget, created_at, payload)"
        " VALUES (7, 'default', 'pending', 0, 0, 0, 10, 0, '\"x\"')",
    )
    old_worker = "INSERT INTO dbtaskqueue_worker (host, pid, lease, created_at) VALUES ('old', 7, 3600, 0)"
    execute(url, old_worker)
    with pytest.raises(SchemaError, match=f"schema version 1, this program needs {SCHEMA_VERSION}"):
        TaskQueue(url, create=False)
    with TaskQueue(url) as queue:
        assert execute(url, "SELECT version, oldest FROM dbtaskqueue_schema") == [(SCHEMA_VERSION, SqliteStore.oldest)]
        assert snapshot(file_of(url)) == SNAPSHOT.read_text()
        assert [(row.pid, row.queues, row.functions) for row in queue.store.workers()] == [(7, None, None)]
        Worker(queue).run(str.upper, burst=True)
        assert queue.get(7).result == "X"


def test_a_worker_stores_what_it_serves(url: str) -> None:
    with TaskQueue(url, "mail") as queue:
        queue.task(name="one")(str.upper)
        seen: list[tuple[str | None, str | None]] = []

        def read_workers(payload: object) -> None:
            seen.extend((row.queues, row.functions) for row in queue.store.workers())

        queue.enqueue()
        Worker(queue).run(read_workers, burst=True)
        assert seen == [('["mail"]', '[null, "one"]')]
        assert [(row.queues, row.functions) for row in queue.store.workers()] == []
        assert queue.fetch(timeout=0) == []
        assert [(row.queues, row.functions) for row in queue.store.workers()] == [(None, None)]


# -- versions --------------------------------------------------------------------------------------


def test_migrations_are_numbered_without_a_gap() -> None:
    directory = Path(str(queries.__file__)).parent / "sql" / "migrations" / "sqlite"
    names = sorted(path.name for path in directory.iterdir() if path.suffix == ".sql")
    assert [int(name[:4]) for name in names] == list(range(1, SCHEMA_VERSION + 1))


def test_migrate_prints_both_versions(url: str) -> None:
    store = open_store(url)
    store.prepare(create=True)
    assert store.migrate() == (SCHEMA_VERSION, SCHEMA_VERSION)
    store.close()


def test_tables_of_another_program_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE theirs (id INTEGER PRIMARY KEY, word TEXT)", "INSERT INTO theirs (word) VALUES ('mine')")
    with TaskQueue(url) as queue:
        task = queue.enqueue("x")
        Worker(url).run(str.upper, burst=True)
        assert task.get_result(10) == "X"
    assert execute(url, "SELECT * FROM theirs") == [(1, "mine")]
    assert all(name.startswith("dbtaskqueue_") for name in schema_of(url))
    ours = execute(url, "SELECT name FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    assert {str(name) for (name,) in ours} - set(schema_of(url)) == {"theirs"}


def test_a_schema_that_is_too_new_is_refused_naming_the_versions(url: str) -> None:
    TaskQueue(url).close()
    new = SCHEMA_VERSION + 7
    execute(url, f"UPDATE dbtaskqueue_schema SET version = {new}, oldest = {new - 1}")
    for create in (True, False):
        with pytest.raises(SchemaError) as caught:
            TaskQueue(url, create=create)
        message = str(caught.value)
        assert str(new) in message
        assert str(new - 1) in message
        assert str(SCHEMA_VERSION) in message
        assert isinstance(caught.value, TaskQueueError)
    assert execute(url, "SELECT version FROM dbtaskqueue_schema") == [(new,)]
    store = open_store(url)
    with pytest.raises(SchemaError):
        store.migrate()
    store.close()


def test_a_newer_schema_that_this_program_may_use(url: str) -> None:
    TaskQueue(url).close()
    execute(url, f"UPDATE dbtaskqueue_schema SET version = {SCHEMA_VERSION + 7}, oldest = {SCHEMA_VERSION}")
    with TaskQueue(url) as queue:
        assert queue.enqueue().id == 1
    assert execute(url, "SELECT version FROM dbtaskqueue_schema") == [(SCHEMA_VERSION + 7,)]


def test_a_schema_without_its_version_is_refused(url: str) -> None:
    """The error is one of the library's own."""
    TaskQueue(url).close()
    execute(url, "DELETE FROM dbtaskqueue_schema")
    with pytest.raises(TaskQueueError):
        TaskQueue(url)


def test_an_interrupted_creation_leaves_no_partial_schema(url: str) -> None:
    """Migrations run in one transaction, so an error in the middle changes nothing."""
    execute(url, "CREATE TABLE dbtaskqueue_large (theirs)")
    with pytest.raises(TaskQueueError):
        TaskQueue(url)
    assert set(schema_of(url)) == {"dbtaskqueue_large"}


@pytest.mark.parametrize(
    ("option", "number"), [("", 2), ("?synchronous=NORMAL", 1), ("?synchronous=full", 2), ("?synchronous=EXTRA", 3)]
)
def test_the_journal_is_wal_and_commits_are_as_durable_as_asked(url: str, option: str, number: int) -> None:
    with TaskQueue(url + option) as queue:
        queue.enqueue()
        ask = queue.store._connections.write  # type: ignore[attr-defined]
        assert ask(lambda tx: tx.connection.execute("PRAGMA synchronous").fetchone()) == (number,)
        assert execute(url, "PRAGMA journal_mode") == [("wal",)]


def test_a_dsn_and_a_url_open_the_same_file(url: str) -> None:
    path = file_of(url)
    with TaskQueue(f"dbi:SQLite:dbname={path}") as queue:
        task = queue.enqueue("x")
    with TaskQueue(f"DBI:sqlite:{path}") as again, TaskQueue(url) as plain:
        assert again.get(task.id).payload == plain.get(task.id).payload == "x"
    assert parse(f"dbi:SQLite:dbname={path}").database == str(path)

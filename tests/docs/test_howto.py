"""The tutorial, the checklist and the how-to pages are followed from top to bottom, as a reader would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from integrations.django.shop import NEWEST, python_for
from pages import ROOT, Reader, blocks_of
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer

from dbtaskqueue import TaskQueue, Worker

NEEDS = {
    "asyncio": ("sqlalchemy", "aiosqlite", "greenlet"),
    "fastapi": ("fastapi", "httpx", "sqlalchemy", "aiosqlite", "greenlet"),
    "sqlalchemy": ("flask_sqlalchemy", "aiosqlite", "greenlet"),
    "flask": ("flask", "flask_sqlalchemy"),
    "web": ("flask", "fastapi", "httpx", "django", "sqlalchemy"),
    "sentry": ("sentry_sdk",),
    "opentelemetry": ("opentelemetry.sdk", "opentelemetry.instrumentation"),
    "typing": ("mypy",),
    "typed-arguments": ("msgspec", "pydantic"),
}
"""The packages that the examples of a page need, from the dependency groups ``test`` and ``lint``."""
HOWTO = ROOT / "docs" / "howto"
PAGES = [
    ROOT / "docs" / "tutorial.md",
    ROOT / "docs" / "production-checklist.md",
    *sorted(set(HOWTO.glob("*.md")) - {HOWTO / "django.md"}),  # which has a test of its own
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_works(page: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package, reason=f"{package} IS NOT INSTALLED: {page.name} IS NOT TESTED")
    with Reader(tmp_path).following() as reader:
        reader.follow(page)


def test_the_page_about_django_works(tmp_path: Path) -> None:
    """It needs a newer Python than the others, so it has an environment of its own."""
    with Reader(tmp_path, python_for(NEWEST)).following() as reader:
        reader.follow(HOWTO / "django.md")


@pytest.mark.parametrize("page", sorted(HOWTO.glob("*.md")), ids=lambda page: page.stem)
def test_log_events_on_pages_are_in_the_reference(page: Path) -> None:
    reference = (ROOT / "docs" / "reference" / "log-events.md").read_text()
    text = " ".join(page.read_text().split())
    assert [line for line in re.findall(r'\blog says "([^"]+)"', text) if line not in reference] == []


def shell(page: str, word: str) -> list[str]:
    """Return the lines of the shell block that has this word, from a page."""
    [block] = [block for block in blocks_of(HOWTO / page) if block.language == "sh" and word in block.text]
    return block.text.splitlines()


def run(line: str, directory: Path, **variables: str) -> str:
    """Run a shell line, which must succeed; return what it prints."""
    environment = {**Reader(directory).environment, **variables}
    done = subprocess.run(
        ["sh", "-c", line], cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pending(url: str) -> int:
    with TaskQueue(url, create=False) as queue:
        return queue.stats().pending


@pytest.mark.parametrize(("word", "copy"), [(".backup", "backup.sqlite"), ("VACUUM", "small.sqlite")])
def test_a_backup_of_a_file_in_use(word: str, copy: str, tmp_path: Path) -> None:
    if not shutil.which("sqlite3"):
        pytest.skip("NO sqlite3 PROGRAM IS INSTALLED: its backup is not tested")
    with TaskQueue(f"sqlite:///{tmp_path}/taskqueue.sqlite") as queue:
        queue.enqueue({"page": 7})
        for line in shell("backups.md", word):
            run(line, tmp_path)
    assert pending(f"sqlite:///{tmp_path}/{copy}") == 1


def test_a_backup_and_a_restore_on_postgresql(tmp_path: Path) -> None:
    with PostgresServer(durable=False) as server:
        path = f"{server.programs}:{Reader(tmp_path).environment['PATH']}"
        dump, restore = shell("backups.md", "pg_dump")
        with TaskQueue(server.url()) as queue:
            task = queue.enqueue({"page": 7})
            run(dump, tmp_path, DATABASE=server.url(), PATH=path)
            task.cancel()
        run(restore, tmp_path, DATABASE=server.url(), PATH=path)
        assert pending(server.url()) == 1


def test_a_backup_and_a_restore_on_mariadb(tmp_path: Path) -> None:
    with MariaDBServer(durable=False) as server:
        server.execute("CREATE DATABASE tasks")
        Path(tmp_path, ".my.cnf").write_text(f"[client]\nuser=test\nsocket={server.socket}\n")
        dump, restore = shell("backups.md", "mariadb-dump")
        with TaskQueue(server.url("tasks")) as queue:
            task = queue.enqueue({"page": 7})
            run(dump, tmp_path)
            task.cancel()
        run(restore, tmp_path)
        assert pending(server.url("tasks")) == 1


def statements(word: str) -> list[str]:
    """Return the statements of the SQL block in servers.md that has this word."""
    [block] = [block for block in blocks_of(HOWTO / "servers.md") if block.language == "sql" and word in block.text]
    return [statement for statement in block.text.split(";\n") if statement]


def serve(url: str) -> None:
    """Enqueue and run a task as this URL's user."""
    with TaskQueue(url) as queue:
        task = queue.enqueue(7)
        Worker(queue).run(lambda payload: payload, burst=True)
        assert task.refresh().result == 7


def test_the_grants_are_enough_on_postgresql() -> None:
    with PostgresServer(durable=False) as server:
        TaskQueue(server.url()).close()
        with server.connect("test") as connection:
            connection.execute("CREATE ROLE tasks LOGIN")
            for statement in [*statements("ON SCHEMA"), *statements("statement_timeout")]:
                connection.execute(statement.encode())
        serve(server.url().replace("//postgres@", "//tasks@"))


def test_the_grants_are_enough_on_mariadb() -> None:
    with MariaDBServer(durable=False) as server:
        server.execute("CREATE DATABASE tasks")
        TaskQueue(server.url("tasks")).close()
        server.execute("CREATE USER tasks@'%'")
        for statement in statements("ON tasks"):
            server.execute(statement)
        serve(server.url("tasks").replace("//test@", "//tasks@"))


@pytest.mark.parametrize("page", ["systemd.md", "replace-cron.md", "containers.md"])
def test_the_files_that_the_page_shows_are_those_of_the_examples(page: str) -> None:
    """Compare each line, except for excerpts of other files."""
    examples = "".join(path.read_text() for path in ROOT.glob("examples/[ds]*/*") if path.suffix != ".py")
    first = next(block for block in blocks_of(HOWTO / page) if block.language in ("ini", "dockerfile"))
    for block in [first, *(block for block in blocks_of(HOWTO / page) if "services:" in block.text)]:
        for line in block.text.splitlines():
            assert line in examples, line


def test_systemd_understands_the_timer(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("NO SYSTEMD HERE: whether it understands the timer is not tested")
    units = [block.text for block in blocks_of(HOWTO / "systemd.md") if block.text.startswith("# /etc/systemd/")]
    for text in units:
        name = Path(text.partition("\n")[0]).name
        known = text.replace("/srv/app/venv/bin/dbtaskqueue", sys.executable).replace("User=tasks", "User=root")
        Path(tmp_path, name).write_text(known)
    line = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, tmp_path.iterdir())]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (len(units), done.returncode) == (2, 0), done
    assert "dbtaskqueue-prune" not in done.stderr, done.stderr

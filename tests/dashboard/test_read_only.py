"""A dashboard that may only read: an account with SELECT, a hot standby, a SQLite file of another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx
import psycopg
import pymysql
import pytest
from dashboard.clients import Served, mounted, serve
from helpers import python_path, until
from psycopg import sql
from servers.shared import shared_postgresql, shared_postgresql_url
from servers.standby import Standby

from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard.routes import OPEN, table

PATHS = sorted(
    way.path.replace("{id}", "1")
    for way in table()
    if way.path != "/health/queues" and way.method == "GET" and way.role in ("look", OPEN) and "{hash}" not in way.path
)
QUERY = "?name=default&queue=default"


def fill(url: str) -> None:
    """Make tasks in some states, a schedule and a paused queue."""
    with TaskQueue(url) as queue:
        queue.enqueue_many(range(5))
        [done, failed] = queue.fetch(2)
        for task in (done, failed):
            task.start()
        done.finish("x")
        failed.fail("boom", retry=False)
        queue.schedule("default", 1, every=3600)
        queue.lane("other").pause()


def assert_reads(client: httpx.Client, below: str = "/") -> None:
    """Check that everything below a path can be looked at."""
    for path in (path for path in PATHS if path.startswith(below)):
        for query in ("", QUERY):
            answer = client.get(path + query)
            is_busy = "being checked" in answer.text  # doctor
            assert is_busy or answer.status_code in (200, 400, 404), (path, answer.text)
    assert client.get("/health/ready").status_code == 200
    assert client.get("/health/queues?min_workers=0").status_code == 200
    assert {queue["name"] for queue in client.get("/api/v1/queues").json()["queues"]} == {"default", "other"}
    assert [task["state"] for task in client.get("/api/v1/tasks?id=1").json()["tasks"]] == ["done"]


@contextmanager
def reader(url: str) -> Iterator[str]:
    """Make an account that may only SELECT; yield the URL with it."""
    parts = urlsplit(url)
    name = f"reader_{uuid.uuid4().hex}"[:30]
    make, drop = (_postgresql if url.startswith("postgresql") else _mariadb)(url, name)
    make()
    try:
        yield urlunsplit(parts._replace(netloc=f"{name}:x@{parts.netloc.rpartition('@')[2]}"))
    finally:
        drop()


def _postgresql(url: str, name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    schema = sql.Identifier(parse_qs(urlsplit(url).query)["schema"][0])
    role = sql.Identifier(name)

    def run(*statements: str) -> None:
        with psycopg.connect(shared_postgresql_url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(sql.SQL(statement).format(role=role, schema=schema))

    grants = ("GRANT USAGE ON SCHEMA {schema} TO {role}", "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
    make = partial(run, "CREATE ROLE {role} LOGIN PASSWORD 'x'", *grants)
    return make, partial(run, "DROP OWNED BY {role}", "DROP ROLE {role}")


def _mariadb(url: str, name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    parts = urlsplit(url)

    def run(*statements: str) -> None:
        account = {"user": parts.username, "password": parts.password or ""}
        with pymysql.connect(host=parts.hostname, port=parts.port or 3306, **account) as connection:
            for statement in statements:
                connection.cursor().execute(statement)

    grant = f"GRANT SELECT ON `{parts.path.strip('/')}`.* TO `{name}`@`%`"
    return partial(run, f"CREATE USER `{name}`@`%` IDENTIFIED BY 'x'", grant), partial(run, f"DROP USER `{name}`@`%`")


@pytest.mark.engine("postgresql", "mariadb")
def test_an_account_with_select_only(url: str) -> None:
    fill(url)
    with reader(url) as read_url:
        with TaskQueue(read_url, create=False) as queue:
            assert_reads(mounted(queue, "admin", read_only=True))
        with serve(read_url, "--read-only") as served, served.client() as client:
            assert_reads(client)
            assert client.post("/api/v1/tasks/3/cancel").status_code == 403
            assert served.stop() == 0


@pytest.mark.engine("postgresql")
def test_an_account_with_select_only_that_is_not_read_only(url: str) -> None:
    """What cannot be written is refused with a reason, not a failure."""
    fill(url)
    with reader(url) as read_url, TaskQueue(read_url, create=False) as queue:
        client = mounted(queue)
        answer = client.post("/api/v1/tasks/3/cancel", headers={"authorization": "Bearer x"})
        assert answer.status_code == 503
        assert_reads(client)


@pytest.mark.engine("postgresql")
def test_a_hot_standby(url: str) -> None:
    primary = shared_postgresql()
    fill(url)
    with Standby(primary) as standby:
        standby.await_streaming()
        schema = parse_qs(urlsplit(url).query)["schema"][0]
        with serve(standby.url(schema=schema), "--read-only") as served, served.client() as client:
            until(lambda: client.get("/api/v1/tasks/1").status_code == 200)
            assert_reads(client)


FOR_OTHERS = """
import encodings.ascii, encodings.idna, encodings.latin_1, os, stringprep, sys
import dbtaskqueue.dashboard.server, uvicorn.loops.asyncio, uvicorn.lifespan.off, uvicorn.protocols.http.h11_impl
import dbtaskqueue._store.sqlite.store, anyio._backends._asyncio, jinja2.ext
from dbtaskqueue.cli import main
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
main(["--url", sys.argv[1], "dashboard", "--port", "0", "--read-only"])
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of ours that another user may read."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("is_used", [True, False])
def test_a_sqlite_file_of_another_user(directory: Path, is_used: bool) -> None:
    """It is read also while nobody uses it: then the files that WAL needs do not exist, and cannot be made."""
    url = f"sqlite:///{directory}/tasks.sqlite"
    fill(url)
    environment = {**os.environ, "PYTHONPATH": python_path()}
    with TaskQueue(url) as queue:
        if not is_used:
            queue.close()
        if os.getuid() != 0:
            directory.chmod(0o555)  # the other user is ourselves
        command = [sys.executable, "-c", FOR_OTHERS, url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            served = Served(process, process.stdout.readline())
            with served.client() as client:
                assert_reads(client, "/api/")  # the templates may not be readable for the other user
                directory.chmod(0o755)
                with TaskQueue(url) as writer:  # from now on, it is used
                    id = writer.enqueue("new").id
                    until(lambda: client.get(f"/api/v1/tasks/{id}").status_code == 200)
                    assert_reads(client, "/api/")
        finally:
            process.kill()
            process.communicate()

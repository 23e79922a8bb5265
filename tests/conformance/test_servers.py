"""Servers only: schemas, privileges, unusual settings, drivers, and options of the URL."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from click.testing import CliRunner
from helpers import PATIENCE, Background, documented_options, run_python, spawn, until, with_option
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer
from servers.requirements import must_be_ours
from servers.shared import shared_mariadb, shared_postgresql

from dbtaskqueue import ConfigurationError, RetryPolicy, SchemaError, StoreUnavailable, TaskQueue, Worker
from dbtaskqueue._store import open_store
from dbtaskqueue._store.mariadb.connections import MariadbLink
from dbtaskqueue._store.postgresql import health
from dbtaskqueue._store.verbs import SqlStore
from dbtaskqueue.cli import main

pytestmark = pytest.mark.engine("postgresql", "mariadb")


def administrate(engine: str, url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as the server's administrator; return the rows of the last one."""
    connection: Any
    if engine == "postgresql":
        must_be_ours("postgresql")
        connection = shared_postgresql().connect()
        connection.autocommit = True
    else:
        must_be_ours("mariadb")
        connection = shared_mariadb().connect(urlsplit(url).path[1:])
    with closing(connection), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def table(engine: str, url: str, name: str) -> str:
    """Return the full name of one of our tables."""
    return f"{url.partition('schema=')[2]}.dbtaskqueue_{name}" if engine == "postgresql" else f"dbtaskqueue_{name}"


# -- schema ----------------------------------------------------------------------------------------

MAKER = """
import sys
from dbtaskqueue import TaskQueue
sys.stdin.readline()
with TaskQueue(sys.argv[1]) as queue:
    print(queue.enqueue().id)
"""


def test_many_processes_create_the_schema_concurrently(url: str) -> None:
    processes = [spawn(MAKER, url) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60) for process in processes]
    assert all(process.returncode == 0 for process in processes), printed
    assert sorted(int(output) for output, _ in printed) == sorted({int(output) for output, _ in printed})
    with TaskQueue(url, create=False) as queue:
        assert queue.stats().pending == 6


def test_create_false_creates_nothing(engine: str, url: str) -> None:
    with pytest.raises(SchemaError, match="migrate"):
        TaskQueue(url, create=False)
    with pytest.raises(SchemaError, match="migrate"):
        TaskQueue(url, create=False)


def test_migrate_sql_prints_a_script_for_an_administrator(engine: str, url: str) -> None:
    result = CliRunner().invoke(main, ["--url", url, "migrate", "--sql"])
    assert result.exit_code == 0, result.output
    with pytest.raises(SchemaError):
        TaskQueue(url, create=False)
    statements = [part for part in result.output.split(";\n") if part.strip()]
    administrate(engine, url, *statements)
    with TaskQueue(url, create=False) as queue:
        queue.enqueue("x")
        Worker(queue).run(str.upper, burst=True)
        assert queue.tasks()[0].result == "X"
    assert CliRunner().invoke(main, ["--url", url, "migrate", "--sql"]).output == ""
    mine = SqlStore.__subclasses__()[0].schema_version
    printed = f"schema: version {mine} before, version {mine} now\n"
    assert CliRunner().invoke(main, ["--url", url, "migrate"]).output == printed


@pytest.fixture
def poor_url(engine: str, url: str) -> Iterator[str]:
    """Return the URL of a role that may only read and write our tables."""
    TaskQueue(url).close()
    if engine == "postgresql":
        schema = url.partition("schema=")[2]
        rights = "SELECT, INSERT, UPDATE, DELETE"
        administrate(
            engine,
            url,
            "CREATE ROLE poor LOGIN",
            f"GRANT USAGE ON SCHEMA {schema} TO poor",
            f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO poor",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO poor",
        )
        yield url.replace("//postgres@", "//poor@")
        administrate(engine, url, "DROP OWNED BY poor", "DROP ROLE poor")
    else:
        database = urlsplit(url).path[1:]
        grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.* TO poor@'%'"
        administrate(engine, url, "CREATE USER poor@'%'", grant)
        yield url.replace("//test@", "//poor@")
        administrate(engine, url, "DROP USER poor@'%'")


def test_privileges_to_read_and_write_are_enough(poor_url: str) -> None:
    with TaskQueue(poor_url) as queue:
        task = queue.enqueue({"a": "x" * 1000}, key="k")
        queue.enqueue_many([1, 2, 3])
        queue.pause()
        queue.resume()
        Worker(poor_url).run(lambda payload: payload, burst=True)
        assert task.refresh().result == {"a": "x" * 1000}
        assert queue.retry(task.id).state == "pending"
        assert queue.purge() == 1
        assert queue.prune(0, states=["done", "abandoned"]) == 4
    result = CliRunner().invoke(main, ["--url", poor_url, "doctor"])
    assert "rights" not in result.output, result.output


def test_missing_privileges_are_reported_by_doctor_or_when_opening(engine: str, url: str, poor_url: str) -> None:
    if engine == "postgresql":
        administrate(engine, url, f"REVOKE DELETE ON {table(engine, url, 'task')} FROM poor")
        result = CliRunner().invoke(main, ["--url", poor_url, "doctor"])
        assert result.exit_code == 1
        assert "GRANT" in result.output
    else:
        administrate(engine, url, f"REVOKE ALL PRIVILEGES ON `{urlsplit(url).path[1:]}`.* FROM poor@'%'")
        with pytest.raises(StoreUnavailable, match="denied"):
            TaskQueue(poor_url)


@pytest.fixture
def newcomer_url(engine: str, url: str) -> Iterator[str]:
    """Return the URL of a role that may only connect, to a database without our tables."""
    if engine == "postgresql":
        administrate(engine, url, 'CREATE ROLE "new-comer" LOGIN')
        yield url.replace("//postgres@", "//new-comer@")
        administrate(engine, url, 'DROP OWNED BY "new-comer" CASCADE', 'DROP ROLE "new-comer"')
    else:
        grant = f"GRANT SELECT ON `{urlsplit(url).path[1:]}`.* TO 'new-comer'@'%'"
        administrate(engine, url, "CREATE USER 'new-comer'@'%'", grant)
        yield url.replace("//test@", "//new-comer@")
        administrate(engine, url, "DROP USER 'new-comer'@'%'")


def test_an_error_names_the_grant_that_lets_a_role_create_the_schema(engine: str, url: str, newcomer_url: str) -> None:
    result = CliRunner().invoke(main, ["--url", newcomer_url, "migrate"])
    assert result.exit_code == 1
    assert "or run what this prints: dbtaskqueue --url" in result.output
    with pytest.raises(SchemaError) as refused:
        TaskQueue(newcomer_url)
    assert f"Error: {refused.value}\n" == result.output
    assert "new-comer" in result.output
    grant = re.search(r"let an administrator run: (GRANT .*?);", result.output)
    assert grant is not None, result.output
    administrate(engine, url, grant[1])
    with TaskQueue(newcomer_url) as queue:
        assert queue.enqueue(1).id == 1
        assert queue.purge() == 1


@pytest.mark.engine("postgresql")
def test_an_error_names_the_grants_that_let_a_role_use_the_schema(engine: str, url: str, newcomer_url: str) -> None:
    TaskQueue(url).close()
    with pytest.raises(SchemaError) as refused:
        TaskQueue(newcomer_url)
    grants = re.search(r"let an administrator run: (GRANT .*)", str(refused.value))
    assert grants is not None, refused.value
    administrate(engine, url, *grants[1].split("; "))
    with TaskQueue(newcomer_url) as queue:
        assert queue.enqueue(1).id == 1
        assert queue.purge() == 1


def set_versions(engine: str, url: str, version: int, oldest: int) -> None:
    name = table(engine, url, "schema")
    administrate(engine, url, f"UPDATE {name} SET version = {version}, oldest = {oldest}")


def test_two_program_versions_on_one_schema(engine: str, url: str) -> None:
    """With a newer schema, this program keeps working or refuses, exactly as ``oldest`` says."""
    with TaskQueue(url) as queue:
        queue.enqueue("before")
    mine = SqlStore.__subclasses__()[0].schema_version
    set_versions(engine, url, mine + 5, mine)
    with TaskQueue(url) as queue:
        queue.enqueue("meanwhile")
        Worker(queue).run(lambda payload: payload, burst=True)
        assert queue.stats().done == 2
    set_versions(engine, url, mine + 5, mine + 1)
    for create in (True, False):
        with pytest.raises(SchemaError, match=rf"version {mine + 5}.*version {mine + 1}.*knows {mine}"):
            TaskQueue(url, create=create)


def test_an_old_schema_is_upgraded_by_migrate_only(engine: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TaskQueue(url).close()
    store = type(open_store(url))
    mine = store.schema_version  # type: ignore[attr-defined]
    monkeypatch.setattr(store, "schema_version", mine + 1)
    more = _one_more(engine, url, mine + 1)
    monkeypatch.setattr(store, "upgrade", lambda self, version: more if version == mine else [])
    with pytest.raises(SchemaError, match="migrate"):
        TaskQueue(url)
    result = CliRunner().invoke(main, ["--url", url, "migrate"])
    assert result.output == f"schema: version {mine} before, version {mine + 1} now\n"
    with TaskQueue(url) as queue:
        assert queue.enqueue("x").refresh().payload == "x"


def _one_more(engine: str, url: str, version: int) -> list[str]:
    task, schema = table(engine, url, "task"), table(engine, url, "schema")
    return [f"ALTER TABLE {task} ADD COLUMN more BIGINT", f"UPDATE {schema} SET version = {version}"]


# -- options of the URL ----------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["colour=red", "max_payload=0", "schema=pg_mine", "schema=a-b", "schema="])
def test_a_wrong_option(engine: str, url: str, option: str) -> None:
    if option.startswith("schema") and engine == "postgresql":
        url = url.partition("?")[0]
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        open_store(with_option(url, option))


@pytest.mark.engine("postgresql")
def test_every_documented_option_opens_a_queue(url: str) -> None:
    base, _, schema = url.partition("?")
    parts = urlsplit(base)
    options = {
        "sslmode": "sslmode=prefer",
        "sslrootcert": "sslrootcert=/nowhere/ca.pem",  # these are only read with TLS
        "target_session_attrs": "target_session_attrs=read-write",
        "max_payload": "max_payload=2000",
        "schema": schema,
        "host": f"host={parts.hostname}&port={parts.port}",
    }
    assert set(options) == documented_options("PostgreSQL")
    for name, option in options.items():
        place = base.replace(f"{parts.hostname}:{parts.port}", "") if name == "host" else base
        with TaskQueue(f"{place}?{option}" if name == "schema" else f"{place}?{schema}&{option}") as queue:
            assert queue.get(queue.enqueue(option).id).payload == option


@pytest.mark.engine("postgresql")
def test_schemas_separate_queues(url: str) -> None:
    base = url.partition("?")[0]
    names = ["one_" + url[-8:], "Two_" + url[-8:]]
    with ExitStack() as stack:
        queues = [stack.enter_context(TaskQueue(f"{base}?schema={name}")) for name in names]
        for queue, name in zip(queues, names, strict=True):
            queue.enqueue(name)
        assert [[task.payload for task in queue.tasks()] for queue in queues] == [[name] for name in names]
    for name in names:
        administrate("postgresql", url, f'DROP SCHEMA "{name}" CASCADE')


def test_tls_options_reach_the_driver(engine: str, url: str) -> None:
    """The servers of the tests have no certificate, so a required TLS connection fails with a clear error."""
    option = "sslmode=require" if engine == "postgresql" else "ssl=true"
    with pytest.raises(StoreUnavailable, match=r"(?i)ssl"):
        TaskQueue(with_option(url, option))


def test_a_dsn_opens_the_same_database(engine: str, url: str) -> None:
    parts = urlsplit(url)
    driver = "Pg" if engine == "postgresql" else "mysql"
    options = f";{parts.query}" if parts.query else ""
    host = f"host={parts.hostname};port={parts.port};user={parts.username}"
    with TaskQueue(url) as queue, TaskQueue(f"dbi:{driver}:dbname={parts.path[1:]};{host}{options}") as same:
        assert same.get(queue.enqueue("x").id).payload == "x"


@pytest.mark.parametrize("prefix", ["", "+driver"])
def test_other_spellings_of_the_scheme(engine: str, url: str, prefix: str) -> None:
    scheme, driver = ("postgres", "psycopg") if engine == "postgresql" else ("mysql", "pymysql")
    scheme += prefix.replace("driver", driver)
    with TaskQueue(url) as queue, TaskQueue(scheme + url[url.index("://") :]) as same:
        assert same.get(queue.enqueue("x").id).payload == "x"


WITHOUT_DRIVER = """
import sys
sys.modules[sys.argv[2]] = None
from dbtaskqueue import ConfigurationError, TaskQueue
try:
    TaskQueue(sys.argv[1])
except ConfigurationError as error:
    print(error)
"""


def test_a_missing_driver_is_named_with_the_command_that_installs_it(engine: str) -> None:
    driver = "psycopg" if engine == "postgresql" else "pymysql"
    printed = run_python(WITHOUT_DRIVER, f"{engine}://u:secret@localhost/db", driver)
    assert f"pip install 'dbtaskqueue[{engine}]'" in printed
    assert printed.count("\n") == 1
    assert "secret" not in printed


def test_no_server_answers(engine: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        TaskQueue(f"{engine}://u:secret@127.0.0.1:1/db")
    assert not caught.value.maybe_done
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# -- settings that are not the defaults ------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_servers() -> Iterator[dict[str, Any]]:
    """Servers with unusual but valid settings."""
    with ExitStack() as stack:
        yield {
            "postgresql": lambda: stack.enter_context(
                PostgresServer(
                    durable=False,
                    settings={
                        "timezone": "Asia/Kathmandu",
                        "default_transaction_isolation": "serializable",
                        "datestyle": "SQL, DMY",
                        "standard_conforming_strings": "off",
                        "bytea_output": "escape",
                        "array_nulls": "off",
                    },
                )
            ),
            "mariadb": lambda: stack.enter_context(
                MariaDBServer(
                    durable=False,
                    settings={
                        "sql-mode": "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,NO_AUTO_VALUE_ON_ZERO",
                        "default-time-zone": "+05:45",
                        "transaction-isolation": "SERIALIZABLE",
                        "character-set-server": "latin1",
                        "collation-server": "latin1_german1_ci",
                        "autocommit": "0",
                    },
                )
            ),
        }


VALUES = [
    "astral 😀𝔘",
    "\u2028", "\\ ' \" % %s :a ; -- /*", "ä", "a ", "", {"": "", "k": [{}]}, 2**63 - 1, -(2**63), -0.0, 1e308,
    5e-324, 0.1, True, None, "x" * (1024 * 1024 - 2),
]  # fmt: skip


def test_values_come_back_equal_whatever_the_settings(engine: str, odd_servers: dict[str, Any]) -> None:
    server = odd_servers[engine]()
    with TaskQueue(server.url()) as queue:
        tasks = queue.enqueue_many(VALUES)
        Worker(queue).run(lambda payload: payload, burst=True)
        for task, value in zip(tasks, VALUES, strict=True):
            found = queue.get(task.id)
            assert (found.payload, found.result, repr(found.result)) == (value, value, repr(value))
        keys = ["k", "K", "ä", "a", "k ", " k", "ß", "ss", "%", "_"]
        assert len({queue.enqueue(key, key=key).id for key in keys}) == len(keys)
        assert [queue.enqueue(1, key=key).payload for key in keys] == keys
        failing = queue.enqueue("fails", max_attempts=1)
        Worker(queue).run(lambda payload: 1 / 0 if payload == "fails" else None, burst=True)
        assert failing.refresh().state == "abandoned"
        assert queue.retry(failing.id).state == "pending"
        assert queue.purge() == 1
    with TaskQueue(server.url(), queue="name") as lower, TaskQueue(server.url(), queue="NAME") as upper:
        lower.enqueue("lower")
        assert upper.tasks() == []
        assert upper.fetch(timeout=0) == []


# -- wake-ups --------------------------------------------------------------------------------------


@pytest.mark.engine("postgresql")
def test_a_waiter_is_notified_once_and_not_at_each_insert(url: str) -> None:
    """Every NOTIFY locks the whole cluster, so it is sent only while a waiter sleeps."""
    with TaskQueue(url) as queue, TaskQueue(url, queue="another") as another:
        queue.enqueue("no waiter sleeps")
        assert queue.store.wakeups.ticket(("default",)) is not None, "the waiter registers before it sleeps"
        [(channel,)] = administrate("postgresql", url, f"SELECT channel FROM {table('postgresql', url, 'waiter')}")
        with closing(psycopg.connect(url.partition("?")[0], autocommit=True)) as listener:
            listener.execute(f'LISTEN "{channel}"')

            def notifications() -> int:
                return len(list(listener.notifies(timeout=0.2)))

            another.enqueue("not for this one")
            queue.enqueue("much later", start_in=3600)
            assert notifications() == 0
            for _ in range(10):
                queue.enqueue("now")
            queue.enqueue_many(range(10))
            assert notifications() == 1
            queue.store.wakeups.ticket(("default",))
            queue.enqueue("soon", start_in=2)
            assert notifications() == 1, "a waiter must learn of an earlier due time"


@pytest.fixture
def register_waiters(url: str) -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """Return a function that registers waiters for queues; it returns one that lists which were notified since."""
    with ExitStack() as stack:

        def register(*names: str) -> Callable[[], list[str]]:
            listener = stack.enter_context(closing(psycopg.connect(url.partition("?")[0], autocommit=True)))
            for name in names:
                waiter = stack.enter_context(TaskQueue(url, queue=name))
                assert waiter.store.wakeups.ticket((name,)) is not None
            waiters = table("postgresql", url, "waiter")
            rows = f"SELECT channel, queue FROM {waiters} WHERE channel LIKE 'dbtaskqueue%'"
            queues = dict(administrate("postgresql", url, rows))
            for channel in queues:
                listener.execute(f'LISTEN "{channel}"')
            return lambda: [queues[notification.channel] for notification in listener.notifies(timeout=0.2)]

        yield register


@pytest.mark.engine("postgresql")
def test_a_task_that_is_due_again_wakes_only_its_own_queue(
    queue: TaskQueue, register_waiters: Callable[..., Callable[[], list[str]]]
) -> None:
    for _ in range(5):
        queue.enqueue(retry=RetryPolicy(delay=0))
    notified = register_waiters("other", "other", "other", "default")
    for task in queue.fetch(5):
        assert task.start()
        task.fail("again")
    assert notified() == ["default"]
    notified = register_waiters("other", "default")
    for task in queue.fetch(5):
        task.release()
    assert notified() == ["default"]
    notified = register_waiters("default")
    last = queue.tasks()[0].id
    queue.cancel(last)
    queue.retry(last)
    assert notified() == ["default"]
    notified = register_waiters("default", "default")
    queue.pause()
    queue.resume()
    assert notified() == ["default", "default"], "many tasks may be due in a queue that was paused"


@pytest.mark.engine("postgresql")
def test_the_waiter_of_a_dead_session_does_not_take_a_notification(
    url: str, queue: TaskQueue, register_waiters: Callable[..., Callable[[], list[str]]]
) -> None:
    """A killed worker leaves its waiter's row, but the next enqueue must wake the worker that replaced it."""
    waiters = table("postgresql", url, "waiter")
    far = "now() + interval '1 hour'"
    dead = f"INSERT INTO {waiters} SELECT 'default', 'a_dead_' || n, {far} FROM generate_series(1, 50) AS n"
    administrate("postgresql", url, dead)
    notified = register_waiters("default")
    queue.enqueue()
    assert notified() == ["default"]


@pytest.mark.engine("postgresql")
def test_a_rescue_removes_the_rows_of_dead_waiters(url: str, queue: TaskQueue) -> None:
    waiters = table("postgresql", url, "waiter")
    administrate("postgresql", url, f"INSERT INTO {waiters} VALUES ('gone', 'dead', now() + interval '1 hour')")
    die_holding_nothing = "import os, sys; from dbtaskqueue import TaskQueue; TaskQueue(sys.argv[1]).fetch(timeout=0); "
    run_python(die_holding_nothing + "sys.stdout.flush(); os._exit(0)", url)
    until(lambda: queue.fetch(timeout=0) == [] and not administrate("postgresql", url, f"SELECT 1 FROM {waiters}"))


@pytest.mark.engine("postgresql")
def test_a_busy_worker_does_not_count_as_waiting(url: str, queue: TaskQueue) -> None:
    rows = f"SELECT count(*) FROM {table('postgresql', url, 'waiter')}"
    started, go = threading.Event(), threading.Event()

    def work(payload: object) -> None:
        started.set()
        assert go.wait(PATIENCE)

    worker = Worker(url)
    running = Background(lambda: worker.run(work))
    for start_in in (0, 1):  # woken by a notification, or by the due time
        until(lambda: administrate("postgresql", url, rows) == [(1,)], what="the registration of the idle worker")
        queue.enqueue(start_in=start_in)
        assert started.wait(PATIENCE)
        assert administrate("postgresql", url, rows) == [(0,)]
        go.set()
        until(lambda: queue.stats().pending + queue.stats().running == 0)
        started.clear()
        go.clear()
    until(lambda: administrate("postgresql", url, rows) == [(1,)], what="the registration of the idle worker")
    worker.stop()
    running.join()
    assert administrate("postgresql", url, rows) == [(0,)]


@pytest.mark.engine("postgresql")
def test_a_waiter_whose_connection_broke_registers_on_another(url: str, queue: TaskQueue) -> None:
    channels = f"SELECT channel FROM {table('postgresql', url, 'waiter')}"
    with TaskQueue(url) as other:
        fetching = Background(lambda: other.fetch(timeout=PATIENCE))
        [(before,)] = until(lambda: administrate("postgresql", url, channels))
        listening = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
        administrate("postgresql", url, f"SELECT pg_terminate_backend(pid) FROM ({listening}) AS _")
        until(lambda: [row for row in administrate("postgresql", url, channels) if row != (before,)])
        queue.enqueue("x")
        assert [task.payload for task in fetching.join()] == ["x"]


# -- passwords -------------------------------------------------------------------------------------


@pytest.mark.engine("postgresql")
def test_the_log_of_a_worker_shows_no_password(url: str) -> None:
    options = ["--url", with_option(url, "password=hunter2"), "worker", "--allow-commands", "--burst"]
    command = [sys.executable, "-m", "dbtaskqueue", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "password=***" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


# -- doctor ----------------------------------------------------------------------------------------


def test_doctor_reports_server_settings(engine: str, url: str) -> None:
    TaskQueue(url).close()
    result = CliRunner().invoke(main, ["--url", url, "doctor"])
    assert result.exit_code == 0, result.output
    expected = {
        "postgresql": [
            "PostgreSQL",
            "synchronous_commit=on",
            "fsync=off",
            "dead",
            "isolation",
            "time zone",
            "ALTER SYSTEM",
        ],
        "mariadb": ["MariaDB", "innodb_flush_log_at_trx_commit=", "sql_mode", "isolation", "time zone", "SET GLOBAL"],
    }
    for word in expected[engine]:
        assert word in result.output, result.output


@pytest.mark.engine("postgresql")
def test_doctor_reports_a_transaction_that_holds_back_vacuum(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LONG", 0.0)
    TaskQueue(url).close()
    with closing(psycopg.connect(url.partition("?")[0])) as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM pg_class")
        advice = [finding.advice for finding in open_store(url).findings() if finding.name == "long transaction"]
        assert f"psql -c 'SELECT pg_terminate_backend({old.info.backend_pid})'" in advice


@pytest.mark.engine("mariadb")
@pytest.mark.parametrize(
    ("version", "word"), [("8.4.3", "MySQL"), ("10.5.27-MariaDB", "too old"), ("5.5.5-10.4.1-MariaDB", "too old")]
)
def test_an_unsupported_server_is_refused_in_one_line(
    url: str, version: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MariadbLink, "rows", lambda self, name: [(version, "", 2**30)])
    with pytest.raises(ConfigurationError, match=word) as caught:
        TaskQueue(url)
    assert "\n" not in str(caught.value)

"""``enqueue(connection=…)``: a task that exists if and only if the user's own transaction commits."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
import pymysql
import pytest
from helpers import Background, run_python, until
from servers.shared import fresh_mariadb_url

from dbtaskqueue import ConfigurationError, PayloadError, StoreUnavailable, TaskNotFound, TaskQueue, Worker

pytestmark = pytest.mark.pooled("transactions")

Connect = Callable[[], Any]


def sqlite_connection(url: str) -> sqlite3.Connection:
    return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)


def postgresql_connection(url: str) -> psycopg.Connection[Any]:
    base, _, query = url.partition("?")
    options = urlencode([pair for pair in parse_qsl(query) if pair[0] != "schema"])
    return psycopg.connect(f"{base}?{options}")


def mariadb_connection(url: str) -> Any:
    parts = urlsplit(url)
    return pymysql.connect(host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:])


CONNECT = {
    "sqlite": sqlite_connection,
    "postgresql": postgresql_connection,
    "pgbouncer": postgresql_connection,
    "mariadb": mariadb_connection,
}


@pytest.fixture
def connect(engine: str, url: str) -> Connect:
    """Return a function that opens a connection as an application would, without the library."""
    return lambda: CONNECT[engine](url)


@pytest.fixture
def connection(connect: Connect, queue: TaskQueue) -> Iterator[Any]:
    with closing(connect()) as connection:
        yield connection


def execute(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    cursor.execute(statement)
    return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture
def orders(queue: TaskQueue, connect: Connect) -> Iterator[str]:
    """Create a table of the application."""
    with closing(connect()) as connection:
        execute(connection, "DROP TABLE IF EXISTS app_orders")
        execute(connection, "CREATE TABLE app_orders (number INTEGER)")
        connection.commit()
    yield "app_orders"
    with closing(connect()) as connection:
        execute(connection, "DROP TABLE app_orders")
        connection.commit()


def test_a_commit_makes_both(queue: TaskQueue, connection: Any, orders: str, connect: Connect) -> None:
    execute(connection, f"INSERT INTO {orders} VALUES (7)")
    task = queue.enqueue({"order": 7}, connection=connection)
    assert task.state == "pending"
    with pytest.raises(TaskNotFound):
        queue.get(task.id)
    connection.commit()
    assert task.refresh().payload == {"order": 7}
    with closing(connect()) as other:
        assert execute(other, f"SELECT number FROM {orders}") == [(7,)]


def test_a_rollback_makes_neither(queue: TaskQueue, connection: Any, orders: str, connect: Connect) -> None:
    execute(connection, f"INSERT INTO {orders} VALUES (7)")
    tasks = [queue.enqueue(1, connection=connection), *queue.enqueue_many(["x" * 1000] * 3, connection=connection)]
    connection.rollback()
    assert queue.tasks() == []
    for task in tasks:
        with pytest.raises(TaskNotFound):
            queue.get(task.id)
    with closing(connect()) as other:
        assert execute(other, f"SELECT number FROM {orders}") == []


def test_enqueue_many_with_large_payloads(queue: TaskQueue, connection: Any) -> None:
    payloads = ["x" * 5000, 1, None, {"ü": "😀" * 300}, "y"]
    tasks = queue.enqueue_many(payloads, connection=connection, priority=3)
    connection.commit()
    assert [queue.get(task.id).payload for task in tasks] == payloads
    assert [task.id for task in tasks] == sorted(task.id for task in tasks)
    Worker(queue).run(lambda payload: payload, burst=True)
    assert [task.refresh().result for task in tasks] == payloads


def test_a_key_is_looked_up_in_the_transaction(queue: TaskQueue, connection: Any) -> None:
    before = queue.enqueue("first", key="a")
    assert queue.enqueue("second", key="a", connection=connection).id == before.id
    new = queue.enqueue("third", key="b", connection=connection)
    again = queue.enqueue("fourth", key="b", connection=connection)
    assert (again.id, again.payload) == (new.id, "third")
    connection.commit()
    assert [task.payload for task in queue.tasks()] == ["third", "first"]


def test_a_task_function_is_enqueued_in_the_transaction(queue: TaskQueue, connection: Any) -> None:
    @queue.task
    def double(number: int) -> int:
        return 2 * number

    task = double.using(connection=connection).enqueue(4)
    connection.commit()
    Worker(queue).run(burst=True)
    assert task.get_result(timeout=10) == 8


def test_a_task_is_read_in_the_transaction(queue: TaskQueue, connection: Any, orders: str) -> None:
    execute(connection, f"INSERT INTO {orders} VALUES (7)")
    task = queue.enqueue("mine", connection=connection)
    assert queue.get(task.id, connection=connection).payload == "mine"
    assert task.refresh(connection=connection).state == "pending"
    with pytest.raises(TaskNotFound, match=f"there is no task {task.id + 1}$"):
        queue.get(task.id + 1, connection=connection)
    connection.commit()
    task.refresh()
    assert queue.get(task.id, connection=connection) == task


@pytest.mark.parametrize("how", ["refresh", "wait", "get_result", "wait_all"])
def test_waiting_for_a_task_that_is_not_committed(queue: TaskQueue, connection: Any, how: str) -> None:
    task = queue.enqueue("mine", connection=connection)
    wait = (lambda: queue.wait_all([task], 60)) if how == "wait_all" else getattr(task, how)
    with pytest.raises(TaskNotFound, match="that enqueued it is not committed yet, or was rolled back"):
        wait()
    connection.commit()
    assert task.refresh().payload == "mine"
    task.cancel()
    assert queue.prune(0) == 1
    with pytest.raises(TaskNotFound, match=f"there is no task {task.id}$"):
        task.wait()


def test_reading_takes_no_lock_and_needs_no_transaction(queue: TaskQueue, connection: Any, engine: str) -> None:
    task = queue.enqueue("ours")
    if engine == "sqlite":
        connection.isolation_level = None
    elif engine == "mariadb":
        connection.autocommit(True)
    else:
        connection.autocommit = True
    assert queue.get(task.id, connection=connection).payload == "ours"
    if engine == "sqlite":
        assert not connection.in_transaction


def test_a_closed_connection(queue: TaskQueue, connect: Connect) -> None:
    connection = connect()
    queue.enqueue(1, connection=connection)
    connection.close()
    with pytest.raises(ConfigurationError, match="closed"):
        queue.enqueue(2, connection=connection)
    assert queue.tasks() == []


@pytest.mark.engine("sqlite")
def test_a_file_that_stays_locked_for_the_timeout_of_the_connection(queue: TaskQueue, url: str) -> None:
    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as other, closing(sqlite3.connect(path, timeout=0)) as mine:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked for longer than the timeout of this one") as refused:
            queue.enqueue(1, connection=mine)
    assert not refused.value.maybe_done
    assert queue.tasks() == []


def test_each_connection_is_checked_once(
    queue: TaskQueue, connection: Any, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB is asked which database it is each time, since USE may have changed it."""
    names: list[str] = []
    if engine != "sqlite":
        link = type(queue.store._borrow(connection))  # type: ignore[attr-defined]
        rows = link.rows
        monkeypatch.setattr(link, "rows", lambda *args, **options: names.append(args[1]) or rows(*args, **options))
    for _ in range(3):
        queue.enqueue(1, connection=connection)
    connection.commit()
    wanted = {"sqlite": [], "mariadb": ["identity", "insert_task"] * 3}
    assert names == wanted.get(engine, ["enqueue_one", "notify"] * 3)


@pytest.mark.engine("mariadb")
def test_a_connection_that_has_changed_to_another_database(queue: TaskQueue, connection: Any) -> None:
    home = execute(connection, "SELECT DATABASE()")[0][0]
    queue.enqueue(1, connection=connection)
    connection.commit()
    with fresh_mariadb_url() as url:
        TaskQueue(url).close()
        execute(connection, f"USE {urlsplit(url).path[1:]}")
        with pytest.raises(ConfigurationError, match="a different database"):
            queue.enqueue(2, connection=connection)
        connection.rollback()
    execute(connection, f"USE {home}")
    queue.enqueue(3, connection=connection)
    connection.commit()
    assert [task.payload for task in queue.tasks()] == [3, 1]


def test_the_wake_up_comes_after_the_commit(queue: TaskQueue, connection: Any) -> None:
    waiting = Background(lambda: queue.fetch(timeout=60))
    until(lambda: queue.store.workers(), what="the waiting fetch")
    queue.enqueue("x", connection=connection)
    assert waiting.runs
    connection.commit()
    [task] = waiting.join()
    assert task.payload == "x"


def test_a_refused_enqueue_does_not_damage_the_transaction(queue: TaskQueue, connection: Any, orders: str) -> None:
    execute(connection, f"INSERT INTO {orders} VALUES (7)")
    with pytest.raises(PayloadError):
        queue.enqueue(float("nan"), connection=connection)
    with pytest.raises(ValueError, match="priority"):
        queue.enqueue(1, priority=10**6, connection=connection)
    connection.commit()
    assert execute(connection, f"SELECT number FROM {orders}") == [(7,)]
    connection.rollback()
    assert queue.tasks() == []


def test_a_connection_of_another_kind(queue: TaskQueue, engine: str) -> None:
    with closing(sqlite3.connect(":memory:")) as sqlite:
        for wrong in ("a url", 7, object(), *([] if engine == "sqlite" else [sqlite])):
            with pytest.raises(ConfigurationError, match=r"^connection: .* is needed here"):
                queue.enqueue(1, connection=wrong)
    assert queue.tasks() == []


def test_a_connection_in_autocommit(queue: TaskQueue, connection: Any, engine: str) -> None:
    if engine == "sqlite":
        connection.isolation_level = None
    elif engine == "mariadb":
        connection.autocommit(True)
    else:
        connection.autocommit = True
    with pytest.raises(ConfigurationError, match="autocommit"):
        queue.enqueue(1, connection=connection)
    assert queue.tasks() == []
    execute(connection, "BEGIN")
    task = queue.enqueue(2, connection=connection)
    execute(connection, "COMMIT")
    assert task.refresh().payload == 2


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("start", ["BEGIN", "BEGIN IMMEDIATE", "SELECT count(*) FROM dbtaskqueue_task"])
def test_a_transaction_that_has_already_started(queue: TaskQueue, connection: Any, start: str) -> None:
    execute(connection, start)
    connection.row_factory = sqlite3.Row
    task = queue.enqueue(1, connection=connection)
    assert connection.in_transaction
    connection.commit()
    assert task.refresh().state == "pending"


@pytest.mark.engine("sqlite")
def test_a_transaction_that_enqueue_starts_has_the_write_lock(queue: TaskQueue, connection: Any, url: str) -> None:
    """It has the lock even if the key was taken and nothing was written, so later writes in it cannot fail."""
    task = queue.enqueue(1, key="k")
    assert queue.enqueue(2, key="k", connection=connection).id == task.id
    with closing(sqlite3.connect(urlsplit(url).path[1:], timeout=0)) as late:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            late.execute("BEGIN IMMEDIATE")
        connection.commit()
        late.execute("BEGIN IMMEDIATE")


@pytest.fixture
def elsewhere(engine: str, url: str, tmp_path: Path) -> Iterator[Any]:
    """Open a connection to another database of the same engine, with a queue in it if that is possible."""
    with contextlib.ExitStack() as stack:
        if engine == "sqlite":
            other = f"sqlite:///{tmp_path}/other.sqlite"
        elif engine == "mariadb":
            other = stack.enter_context(fresh_mariadb_url())
        else:
            other = f"{urlsplit(url)._replace(path='/postgres').geturl()}"
        TaskQueue(other).close()
        yield stack.enter_context(closing(CONNECT[engine](other)))


def test_a_connection_to_another_database(queue: TaskQueue, elsewhere: Any) -> None:
    with pytest.raises(ConfigurationError, match="a different database"):
        queue.enqueue(1, connection=elsewhere)
    assert queue.tasks() == []


CRASH = """
import os, sys
sys.path[:0] = sys.argv[3].split(os.pathsep)
import test_own_transaction as ours
from dbtaskqueue import TaskQueue
connection = ours.CONNECT[sys.argv[1]](sys.argv[2])
task = TaskQueue(sys.argv[2]).enqueue("never", connection=connection)
assert task.id
os._exit(0)
"""


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("many", [False, True])
def test_a_transaction_that_started_with_a_read_before_another_wrote(
    queue: TaskQueue, connection: Any, orders: str, many: bool
) -> None:
    """Django and SQLAlchemy do this by default. SQLite refuses writes in such a transaction."""
    execute(connection, "BEGIN")
    execute(connection, f"SELECT count(*) FROM {orders}")
    queue.enqueue("by another connection")
    with pytest.raises(StoreUnavailable, match=r"started with a read.*BEGIN IMMEDIATE.*transaction_mode") as refused:
        if many:
            queue.enqueue_many(["mine"], connection=connection)
        else:
            queue.enqueue("mine", connection=connection)
    assert not refused.value.maybe_done
    assert "60 s" not in str(refused.value)
    connection.rollback()
    execute(connection, "BEGIN IMMEDIATE")
    execute(connection, f"SELECT count(*) FROM {orders}")
    queue.enqueue("mine", connection=connection)
    connection.commit()
    assert [task.payload for task in queue.tasks()] == ["mine", "by another connection"]


def test_a_crash_before_the_commit_leaves_nothing(queue: TaskQueue, engine: str, url: str) -> None:
    here = Path(__file__).parent
    run_python(CRASH, engine, url, os.pathsep.join([str(here), str(here.parent), *sys.path]))
    assert queue.tasks() == []
    task = queue.enqueue("ours")
    assert [each.id for each in queue.tasks()] == [task.id]

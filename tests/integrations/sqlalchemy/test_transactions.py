"""``enqueue(connection=…)`` with sessions and connections of SQLAlchemy over nine drivers, and with drivers alone.

Each test runs with each kind of connection. Those of one kind share a database, and have queues of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import database
from servers.requirements import library
from servers.shared import fresh_mariadb_url

from dbtaskqueue import ConfigurationError, StoreUnavailable, TaskNotFound, TaskQueue, Worker

library("sqlalchemy", "aiosqlite", "psycopg2", "asyncpg", "aiomysql", "asyncmy", "greenlet")

from integrations.sqlalchemy.users import AUTOCOMMIT, KINDS, user_of  # noqa: E402

USUAL = ("Session", "AsyncSession", "alone", "pool")
"""In the default run, the other kinds are tested by commits and a rollback only."""
BRIEFLY = {"test_a_commit_makes_both", "test_a_rollback_makes_neither", "test_a_task_is_all_that_the_transaction_does"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with each kind of connection of its engine."""
    if "kind" in metafunc.fixturenames:
        everything = metafunc.config.option.all_engines or metafunc.function.__name__ in BRIEFLY
        names = [name for name in KINDS if everything or name.split()[1] in USUAL]
        if marker := metafunc.definition.get_closest_marker("engine"):
            names = [name for name in names if KINDS[name][0] in marker.args]
        metafunc.parametrize("kind", names, scope="module")


@pytest.fixture(scope="module")
def place(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskQueue]:
    """Return a queue in an empty database, with a table of the application."""
    engine = KINDS[kind][0]
    with database(engine, tmp_path_factory.mktemp("place")) as url, TaskQueue(url) as queue, user_of(kind, url) as user:
        user.execute("DROP TABLE IF EXISTS app_orders")
        user.execute("CREATE TABLE app_orders (number INTEGER)")
        user.commit()
        yield queue
        user.execute("DROP TABLE app_orders")
        user.commit()


@pytest.fixture
def queue(place: TaskQueue, request: pytest.FixtureRequest) -> TaskQueue:
    return place.lane(request.function.__name__[:60])


@pytest.fixture
def user(kind: str, place: TaskQueue) -> Iterator[Any]:
    with user_of(kind, place.url) as user:
        yield user


def orders(kind: str, place: TaskQueue) -> list[int]:
    with user_of(kind, place.url) as other:
        return [number for (number,) in other.execute("SELECT number FROM app_orders ORDER BY number")]


def test_a_commit_makes_both(queue: TaskQueue, user: Any, kind: str) -> None:
    user.execute("DELETE FROM app_orders")
    user.execute("INSERT INTO app_orders VALUES (7)")
    task = queue.enqueue({"order": 7, "ü": "'%s' :name ?1 $1 %%"}, connection=user.connection)
    with pytest.raises(TaskNotFound):
        queue.get(task.id)
    assert queue.get(task.id, connection=user.connection).payload == task.payload
    user.commit()
    assert task.refresh().payload == {"order": 7, "ü": "'%s' :name ?1 $1 %%"}
    assert orders(kind, queue) == [7]


def test_a_rollback_makes_neither(queue: TaskQueue, user: Any, kind: str) -> None:
    """Also if the application had not used its connection before."""
    before = orders(kind, queue)
    tasks = [queue.enqueue(1, connection=user.connection)]
    user.execute("INSERT INTO app_orders VALUES (8)")
    tasks += queue.enqueue_many(["x" * 1000] * 3, connection=user.connection)
    user.rollback()
    assert queue.tasks() == []
    assert orders(kind, queue) == before
    for task in tasks:
        with pytest.raises(TaskNotFound, match="not committed yet, or was rolled back"):
            task.wait(timeout=0)


def test_a_task_is_all_that_the_transaction_does(queue: TaskQueue, user: Any) -> None:
    """The session or connection has started no transaction before."""
    task = queue.enqueue("alone", connection=user.connection)
    user.commit()
    assert task.refresh().payload == "alone"


def test_a_task_in_a_savepoint(queue: TaskQueue, user: Any) -> None:
    queue.enqueue("before", connection=user.connection)
    with user.undone_savepoint():
        queue.enqueue("within", connection=user.connection)
    queue.enqueue("after", connection=user.connection)
    user.commit()
    assert [task.payload for task in queue.tasks()] == ["after", "before"]


def test_many_tasks_with_large_payloads(queue: TaskQueue, user: Any) -> None:
    payloads = ["x" * 5000, 1, None, {"ü": "😀" * 300}, "y", 'a"\\{b},NULL', "%s %(name)s :name ?"]
    tasks = queue.enqueue_many(payloads, connection=user.connection, priority=-3)
    one = queue.enqueue({"text": "z" * 100_000}, connection=user.connection, meta={"tenant": "ü"})
    user.commit()
    assert [queue.get(task.id).payload for task in tasks] == payloads
    assert [task.id for task in tasks] == sorted(task.id for task in tasks)
    assert (one.refresh().payload, one.meta) == ({"text": "z" * 100_000}, {"tenant": "ü"})
    Worker(queue).run(lambda payload: payload, burst=True)
    assert [task.refresh().result for task in tasks] == payloads


def test_many_tasks_in_one_call(queue: TaskQueue, user: Any) -> None:
    tasks = queue.enqueue_many(range(1203), connection=user.connection)
    user.commit()
    assert [queue.get(task.id).payload for task in (tasks[0], tasks[700], tasks[-1])] == [0, 700, 1202]


def test_a_key_that_this_or_another_transaction_has(queue: TaskQueue, user: Any) -> None:
    before = queue.enqueue("first", key="a")
    assert queue.enqueue("second", key="a", connection=user.connection).id == before.id
    new = queue.enqueue("third", key="b", connection=user.connection)
    again = queue.enqueue("fourth", key="b", connection=user.connection)
    assert (again.id, again.payload, again.deduplicated) == (new.id, "third", True)
    user.commit()
    assert [task.payload for task in queue.tasks()] == ["third", "first"]


@pytest.mark.engine("postgresql", "mariadb")
def test_a_key_that_was_taken_after_the_transaction_has_started(queue: TaskQueue, user: Any) -> None:
    """On MariaDB, the unique index refuses the task: the transaction cannot see the other one."""
    user.execute("SELECT count(*) FROM app_orders")
    before = queue.enqueue("first", key="a")
    assert queue.enqueue("second", key="a", connection=user.connection).id == before.id
    queue.enqueue("third", connection=user.connection)
    user.commit()
    assert [task.payload for task in queue.tasks()] == ["third", "first"]


def test_a_task_with_parents_and_other_options(queue: TaskQueue, user: Any) -> None:
    parent = queue.enqueue("parent")
    mine = queue.enqueue("mine", connection=user.connection)
    child = queue.enqueue("child", after=[parent, mine], expires_in=3600, connection=user.connection)
    late = queue.enqueue("late", start_in=3600, max_attempts=2, time_limit=5, connection=user.connection)
    user.commit()
    assert child.refresh().parents() == [parent.id, mine.id]
    late.cancel()
    Worker(queue).run(lambda payload: payload, burst=True)
    assert child.get_result(timeout=10) == "child"


def test_a_connection_in_autocommit(queue: TaskQueue, kind: str) -> None:
    with (
        user_of(kind, queue.url, AUTOCOMMIT) as user,
        pytest.raises(ConfigurationError, match="in autocommit; start a transaction"),
    ):
        queue.enqueue(1, connection=user.connection)
    assert queue.tasks() == []


def test_a_closed_connection(queue: TaskQueue, user: Any, kind: str) -> None:
    queue.enqueue(1, connection=user.connection)
    user.close()
    if kind.split()[1] in ("Connection", "AsyncConnection", "alone", "pool"):
        with pytest.raises(ConfigurationError, match="closed"):
            queue.enqueue(2, connection=user.connection)
    else:  # a closed session starts again when it is used
        queue.enqueue(3, connection=user.connection)
        user.commit()
    assert [task.payload for task in queue.tasks()] in ([], [3])


@contextlib.contextmanager
def another_database(engine: str, url: str, directory: Path) -> Iterator[str]:
    """Yield the URL of another database of the same kind, which has a queue, too."""
    with contextlib.ExitStack() as stack:
        if engine == "sqlite":
            other = f"sqlite:///{directory}/other.sqlite"
        elif engine == "mariadb":
            other = stack.enter_context(fresh_mariadb_url())
        else:
            path = url.partition("?")[0].rpartition("/")[0]
            other = f"{path}/postgres?{url.partition('?')[2]}"
        TaskQueue(other).close()
        yield other


def test_a_connection_to_another_database(queue: TaskQueue, kind: str, tmp_path: Path) -> None:
    engine = KINDS[kind][0]
    with another_database(engine, queue.url, tmp_path) as url, user_of(kind, url) as user:
        with pytest.raises(ConfigurationError, match="different database"):
            queue.enqueue(1, connection=user.connection)
        user.execute("SELECT 1")
    assert queue.tasks() == []


def test_a_connection_to_another_engine(user: Any, kind: str, tmp_path: Path) -> None:
    engine = KINDS[kind][0]
    with database("postgresql" if engine == "sqlite" else "sqlite", tmp_path) as url, TaskQueue(url) as other:
        with pytest.raises(ConfigurationError, match="is needed here"):
            other.enqueue(1, connection=user.connection)
        assert other.tasks() == []


@pytest.mark.engine("sqlite")
def test_a_transaction_that_started_with_a_read_before_another_wrote(queue: TaskQueue, user: Any) -> None:
    user.execute("BEGIN")
    user.execute("SELECT count(*) FROM app_orders")
    queue.enqueue("by another connection")
    with pytest.raises(StoreUnavailable, match=r"started with a read.*BEGIN IMMEDIATE.*transaction_mode") as refused:
        queue.enqueue("mine", connection=user.connection)
    assert not refused.value.maybe_done
    user.rollback()
    queue.enqueue("mine", connection=user.connection)
    user.commit()
    assert [task.payload for task in queue.tasks()] == ["mine", "by another connection"]


@pytest.mark.engine("postgresql")
def test_a_transaction_that_has_failed(queue: TaskQueue, user: Any) -> None:
    """The error of the driver stays that of the database, and the transaction stays that of the user."""
    queue.enqueue("before", connection=user.connection)  # the connection is checked here
    user.commit()
    with pytest.raises(Exception, match="app_nothing"):
        user.execute("SELECT 1 FROM app_nothing")
    with pytest.raises(StoreUnavailable, match="current transaction is aborted") as refused:
        queue.enqueue("secret payload", connection=user.connection)
    assert not re.search(r"secret|SQL:|parameters", str(refused.value))
    user.rollback()
    queue.enqueue("again", connection=user.connection)
    user.commit()
    assert [task.payload for task in queue.tasks()] == ["again", "before"]


@pytest.mark.engine("postgresql", "mariadb")
def test_a_lost_connection(queue: TaskQueue, user: Any, kind: str) -> None:
    """The server ends the connection during the transaction."""
    engine = KINDS[kind][0]
    queue.enqueue("lost", connection=user.connection)
    query = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}[engine]
    [(number,)] = user.execute(query)
    with user_of(kind, queue.url) as other:
        other.execute({"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}[engine].format(number))
    # a driver alone may have noticed it already, and cannot tell it from a connection that the program closed
    errors = (StoreUnavailable, ConfigurationError) if kind.split()[1] in ("alone", "pool") else StoreUnavailable
    with pytest.raises(errors) as refused:
        queue.enqueue("secret payload", connection=user.connection)
    assert not re.search(r"secret|SQL:|parameters", str(refused.value))
    assert queue.tasks() == []


def test_the_other_side_sees_nothing_of_a_process_that_ends(queue: TaskQueue, kind: str) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), user_of(kind, queue.url) as user:
            queue.enqueue("never", connection=user.connection)
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert queue.tasks() == []

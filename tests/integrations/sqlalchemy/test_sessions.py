"""Sessions and connections that are not the usual case: registries, several databases, wrong uses, costs."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from helpers import Background, run_python
from servers.requirements import library

from dbtaskqueue import ConfigurationError, StoreUnavailable, TaskNotFound, TaskQueue

library("sqlalchemy", "aiosqlite", "greenlet", "psycopg2", "flask_sqlalchemy")

import sqlalchemy  # noqa: E402
from integrations.sqlalchemy.users import sqlalchemy_url  # noqa: E402
from sqlalchemy import event, exc, text  # noqa: E402
from sqlalchemy.ext.asyncio import (  # noqa: E402
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker  # noqa: E402
from sqlalchemy.pool import NullPool  # noqa: E402

from dbtaskqueue._store.borrowed import OnLoop  # noqa: E402

DRIVER = {"sqlite": "pysqlite", "postgresql": "psycopg", "mariadb": "pymysql"}
ASYNC_DRIVER = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mariadb": "aiomysql"}


def begin_immediately(connection: sqlalchemy.Connection) -> None:
    """Begin a transaction on SQLite as the documentation shows it."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


class Base(DeclarativeBase):
    """The tables of the application."""


class Order(Base):
    """A row of the application."""

    __tablename__ = "app_orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Invoice(Base):
    """A row in another database."""

    __tablename__ = "app_invoices"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine_of(url: str) -> Iterator[Any]:
    """Return a function that makes an Engine for the queue's database."""
    with contextlib.ExitStack() as stack:

        def make(driver: str = DRIVER[url.partition(":")[0]], **options: Any) -> sqlalchemy.Engine:
            engine = sqlalchemy.create_engine(sqlalchemy_url(url, driver), **options)
            stack.callback(engine.dispose)
            return engine

        yield make


@pytest.mark.one_engine("a registry finds the session, whatever its database is")
def test_the_session_of_a_registry_is_that_of_the_caller(queue: TaskQueue, engine_of: Any) -> None:
    registry = scoped_session(sessionmaker(engine_of()))
    registry.execute(text("SELECT 1"))
    task = queue.enqueue("here", connection=registry)
    elsewhere = Background(lambda: queue.get(task.id, connection=registry))
    with pytest.raises(TaskNotFound):  # the session of that thread is another one
        elsewhere.join()
    registry.commit()
    registry.remove()
    assert task.refresh().payload == "here"


@pytest.mark.one_engine("a registry finds the session, whatever its database is")
@pytest.mark.parametrize("is_async", [False, True])
def test_a_registry_is_asked_in_the_coroutine_that_enqueues(
    queue: TaskQueue, url: str, engine: str, is_async: bool
) -> None:
    """Its scope may be the asyncio.Task, or a context variable: in another thread, it would return another session."""
    scope: ContextVar[str] = ContextVar("scope")

    async def request(number: int) -> None:
        scope.set(str(number))
        session = registry()
        given = OnLoop(registry, asyncio.get_running_loop())
        assert given.connection is session
        await asyncio.get_running_loop().run_in_executor(None, lambda: queue.enqueue(number, connection=given))
        for done in (session.commit() if number % 2 else session.rollback(), session.close()):
            if done is not None:
                await done

    async def main() -> None:
        for number in range(4):
            await asyncio.create_task(request(number))

    if is_async:
        async_engine = create_async_engine(sqlalchemy_url(url, ASYNC_DRIVER[engine]), poolclass=NullPool)
        registry: Any = async_scoped_session(async_sessionmaker(async_engine), scopefunc=asyncio.current_task)
    else:
        sync_engine = sqlalchemy.create_engine(sqlalchemy_url(url, DRIVER[engine]), poolclass=NullPool)
        registry = scoped_session(sessionmaker(sync_engine), scopefunc=scope.get)
    asyncio.run(main())
    assert [task.payload for task in queue.tasks()] == [3, 1]


@pytest.mark.one_engine("the connection is refused before it is used")
def test_an_async_session_needs_an_async_queue(queue: TaskQueue, url: str, engine: str) -> None:
    session = AsyncSession(create_async_engine(sqlalchemy_url(url, ASYNC_DRIVER[engine])))
    with pytest.raises(ConfigurationError, match=r"AsyncSession needs an event loop: use an AsyncTaskQueue"):
        queue.enqueue(1, connection=session)
    assert queue.tasks() == []


@pytest.mark.one_engine("the connection is refused before it is used")
def test_what_is_not_a_session(queue: TaskQueue, engine_of: Any) -> None:
    for wrong in (engine_of(), sessionmaker(engine_of()), text("SELECT 1")):
        with pytest.raises(ConfigurationError, match="a SQLAlchemy Session or Connection is needed here"):
            queue.enqueue(1, connection=wrong)


@pytest.mark.one_engine("the connection is refused before it is used")
def test_a_session_with_several_databases(queue: TaskQueue, engine_of: Any, tmp_path: Any) -> None:
    main, other = engine_of(), sqlalchemy.create_engine(f"sqlite:///{tmp_path}/invoices.sqlite")
    with Session(binds={Order: main, Invoice: other}) as session:
        with pytest.raises(ConfigurationError, match=r"pass the Connection, such as session\.connection\("):
            queue.enqueue(1, connection=session)
        task = queue.enqueue(2, connection=session.connection(bind_arguments={"mapper": Order}))
        session.commit()
    assert task.refresh().payload == 2
    with Session() as unbound, pytest.raises(ConfigurationError, match="or none"):
        queue.enqueue(1, connection=unbound)


def test_the_rows_of_a_session_are_flushed_by_its_owner(queue: TaskQueue, engine_of: Any) -> None:
    """Enqueueing flushes nothing, and uses the transaction that the session has."""
    engine = engine_of()
    Base.metadata.create_all(engine, [Order.__table__])  # type: ignore[list-item]
    try:
        with Session(engine) as session:
            order = Order()
            session.add(order)
            queue.enqueue("early", connection=session)
            assert order in session.new
            session.flush()
            queue.enqueue({"order": order.id}, connection=session)
            session.commit()
            number = order.id
        assert [task.payload for task in queue.tasks()] == [{"order": number}, "early"]
    finally:
        Base.metadata.drop_all(engine)


def test_a_session_in_an_outer_transaction_of_a_test(queue: TaskQueue, engine_of: Any) -> None:
    """As applications test: the session commits a savepoint only, and the test rolls back."""
    engine = engine_of()
    if engine.dialect.name == "sqlite":  # otherwise, the driver commits when the savepoint is released
        event.listen(engine, "begin", begin_immediately)
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            task = queue.enqueue(1, connection=session)
            session.commit()
            assert queue.get(task.id, connection=connection).payload == 1
        outer.rollback()
    assert queue.tasks() == []


@pytest.mark.one_engine("the session is refused before the database is used")
def test_a_session_whose_transaction_has_failed_says_so_itself(queue: TaskQueue, engine_of: Any) -> None:
    engine = engine_of()
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Order(id=1))
        session.commit()
        session.add(Order(id=1))
        with pytest.raises(exc.IntegrityError):
            session.flush()
        session.rollback()
        session.begin_nested()
        session.add(Order(id=1))
        with contextlib.suppress(exc.IntegrityError):
            session.flush()
        with contextlib.suppress(exc.PendingRollbackError):
            queue.enqueue("in a failed savepoint", connection=session)
        session.rollback()
        queue.enqueue("after it", connection=session)
        session.commit()
    assert [task.payload for task in queue.tasks()] == ["after it"]


@pytest.mark.engine("sqlite")
def test_a_database_that_cannot_be_opened(queue: TaskQueue) -> None:
    engine = sqlalchemy.create_engine("sqlite:////nowhere/at/all.sqlite")
    with Session(engine) as session, pytest.raises(StoreUnavailable, match="cannot be opened"):
        queue.enqueue(1, connection=session)


@pytest.mark.engine("sqlite")
def test_a_connection_of_another_thread(queue: TaskQueue, url: str) -> None:
    connection = Background(lambda: sqlite3.connect(url.removeprefix("sqlite:///"))).join()
    with pytest.raises(ConfigurationError, match="thread"):
        queue.enqueue(1, connection=connection)


@pytest.mark.engine("sqlite")
def test_a_transaction_that_sqlalchemy_begins_immediately(queue: TaskQueue, engine_of: Any) -> None:
    """The recipe of the documentation: a transaction that reads first can enqueue whatever others write."""
    engine = engine_of()
    event.listen(engine, "begin", begin_immediately)
    with Session(engine) as session:
        session.execute(text("SELECT count(*) FROM dbtaskqueue_task"))
        queue.enqueue("mine", connection=session)
        session.commit()
    assert [task.payload for task in queue.tasks()] == ["mine"]


WITHOUT_GREENLET = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "greenlet":
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import sqlalchemy
from sqlalchemy.orm import Session
from dbtaskqueue import TaskQueue
with TaskQueue(sys.argv[1]) as queue, Session(sqlalchemy.create_engine(sys.argv[1])) as session:
    queue.enqueue("without greenlet", connection=session)
    session.commit()
    print(queue.tasks()[0].payload)
"""


@pytest.mark.engine("sqlite")
def test_a_session_needs_no_greenlet(url: str) -> None:
    """Which SQLAlchemy 2.1 no longer installs."""
    assert run_python(WITHOUT_GREENLET, url) == "without greenlet\n"


@pytest.mark.engine("sqlite")
def test_flask_sqlalchemy(queue: TaskQueue, url: str) -> None:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app, db = Flask("shop"), SQLAlchemy()
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_BINDS"] = {"other": "sqlite:///:memory:"}
    db.init_app(app)
    with app.app_context():
        queue.enqueue("rolled back", connection=db.session)
        db.session.rollback()
        queue.enqueue("committed", connection=db.session)
        db.session.commit()
    assert [task.payload for task in queue.tasks()] == ["committed"]


@pytest.mark.parametrize("number", [1, 3])
def test_each_connection_is_checked_once(queue: TaskQueue, engine_of: Any, url: str, number: int) -> None:
    """After that, a task is as many statements as without a user's connection, and the check of MariaDB."""
    driver = {"sqlite": "aiosqlite", "postgresql": "psycopg2", "mariadb": "asyncmy"}[url.partition(":")[0]]
    seen: list[str] = []
    watch = {"before_cursor_execute": lambda *args: seen.append(" ".join(args[2].split()))}

    def per_enqueue(enqueue: Any) -> list[int]:
        counts = []
        for _ in range(number):
            seen.clear()
            enqueue()
            counts.append(len(seen))
        return counts

    if driver == "psycopg2":
        engine = engine_of(driver)
        event.listen(engine, *watch.popitem())
        with Session(engine) as session:
            counts = per_enqueue(lambda: queue.enqueue(1, connection=session))
    else:

        async def main() -> list[int]:
            async_engine = create_async_engine(sqlalchemy_url(url, driver))
            event.listen(async_engine.sync_engine, *watch.popitem())
            async with AsyncSession(async_engine) as session:
                given = OnLoop(session, asyncio.get_running_loop())
                counts = await asyncio.to_thread(per_enqueue, lambda: queue.enqueue(1, connection=given))
            await async_engine.dispose()
            return counts

        counts = asyncio.run(main())
    first, later = {
        "aiosqlite": (3, 2),  # which file it is, BEGIN IMMEDIATE
        "psycopg2": (3, 1),  # whether there is a queue, and which
        "asyncmy": (3, 2),  # the character set, and which queue: USE may have changed it
    }[driver]
    if driver == "psycopg2":
        first += 1  # a worker that waits is notified by a statement of its own
        later += 1
    assert counts == [first, *[later] * (number - 1)]

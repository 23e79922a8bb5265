"""Applications that have a transaction open: with sessions and connections of SQLAlchemy, and with drivers alone.

Each ``User`` has one transaction at a time, and ``connection``, which it passes to ``enqueue``. Those with an event
loop run it in a thread, as an AsyncTaskQueue expects.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiomysql
import aiosqlite
import asyncmy
import asyncpg
import psycopg
import psycopg2
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as new_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from dbtaskqueue._store.borrowed import OnLoop

AUTOCOMMIT = "AUTOCOMMIT"


class User:
    """An application with a transaction."""

    connection: Any

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in the transaction."""
        raise NotImplementedError

    def commit(self) -> None:
        """Commit the transaction."""
        raise NotImplementedError

    def rollback(self) -> None:
        """Roll the transaction back."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection, as the application does before it passes it by mistake."""
        raise NotImplementedError

    @contextlib.contextmanager
    def undone_savepoint(self) -> Iterator[None]:
        """Roll back to a savepoint at the end of the block."""
        self.execute("SAVEPOINT attempt")
        yield
        self.execute("ROLLBACK TO SAVEPOINT attempt")


def sqlalchemy_url(url: str, driver: str) -> str:
    """Return the URL for SQLAlchemy."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return url.replace("sqlite:", f"sqlite+{driver}:")
    return parts._replace(query="", scheme=f"{parts.scheme}+{driver}").geturl()


# -- SQLAlchemy without an event loop --------------------------------------------------------------


class SyncUser(User):
    """A Session, a scoped_session or a Connection."""

    def __init__(self, kind: str, url: str, driver: str, isolation_level: str | None = None) -> None:
        options = {} if isolation_level is None else {"isolation_level": isolation_level}
        self.engine = sqlalchemy.create_engine(sqlalchemy_url(url, driver), poolclass=NullPool, **options)
        if kind == "Connection":
            self.connection = self.engine.connect()
        elif kind == "scoped_session":
            self.connection = scoped_session(sessionmaker(self.engine))
        else:
            self.connection = Session(self.engine)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        result = self.connection.execute(sqlalchemy.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def close(self) -> None:
        self.connection.close()

    def end(self) -> None:
        self.connection.close()
        self.engine.dispose()

    @contextlib.contextmanager
    def undone_savepoint(self) -> Iterator[None]:
        savepoint = self.connection.begin_nested()
        yield
        savepoint.rollback()


# -- with an event loop ----------------------------------------------------------------------------


class LoopUser(User):
    """An application whose connection belongs to an event loop, which runs in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def own(self, connection: Any) -> None:
        """Make this the connection, as AsyncTaskQueue does in the coroutine that calls it."""

        async def wrap() -> OnLoop:
            return OnLoop(connection, asyncio.get_running_loop())

        self.raw = connection
        self.connection = self.run(wrap())

    def end(self) -> None:
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()

    async def _end(self) -> None:
        raise NotImplementedError


class AsyncUser(LoopUser):
    """An AsyncSession, an async_scoped_session or an AsyncConnection."""

    def __init__(self, kind: str, url: str, driver: str, isolation_level: str | None = None) -> None:
        super().__init__()
        options = {} if isolation_level is None else {"isolation_level": isolation_level}
        self.engine = new_async_engine(sqlalchemy_url(url, driver), poolclass=NullPool, **options)
        self.own(self.run(self._connect(kind)))

    async def _connect(self, kind: str) -> Any:
        if kind == "AsyncConnection":
            return await self.engine.connect()
        if kind == "async_scoped_session":
            # the scope is an object of the user's own here, since each step of the test is another asyncio.Task
            return async_scoped_session(async_sessionmaker(self.engine), scopefunc=lambda: 1)
        return AsyncSession(self.engine)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        result = self.run(self.raw.execute(sqlalchemy.text(statement)))
        return [tuple(row) for row in result] if result.returns_rows else []

    def commit(self) -> None:
        self.run(self.raw.commit())

    def rollback(self) -> None:
        self.run(self.raw.rollback())

    def close(self) -> None:
        self.run(self.raw.close())

    @contextlib.contextmanager
    def undone_savepoint(self) -> Iterator[None]:
        async def begin() -> Any:
            return await self.raw.begin_nested()

        savepoint = self.run(begin())
        yield
        self.run(savepoint.rollback())

    async def _end(self) -> None:
        await self.raw.close()
        await self.engine.dispose()


class DriverUser(LoopUser):
    """A connection of an async driver."""

    def __init__(self, kind: str, url: str, driver: str, isolation_level: str | None = None) -> None:
        super().__init__()
        self._driver, self._autocommit = driver, isolation_level == AUTOCOMMIT
        self._transaction: Any = None
        self._pool: Any = None
        self.own(self.run(self._connect(kind, url.partition("?")[0], driver)))

    async def _connect(self, kind: str, url: str, driver: str) -> Any:
        parts = urlsplit(url)
        if driver == "aiosqlite":
            options = {"isolation_level": None} if self._autocommit else {}
            return await aiosqlite.connect(url.removeprefix("sqlite:///"), **options)
        if driver == "psycopg":
            return await psycopg.AsyncConnection.connect(url, autocommit=self._autocommit)
        if driver == "asyncpg":
            if kind == "pool":
                self._pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
                connection = await self._pool.acquire()
            else:
                connection = await asyncpg.connect(url)
            if not self._autocommit:
                self._transaction = connection.transaction()
                await self._transaction.start()
            return connection
        library: Any = {"aiomysql": aiomysql, "asyncmy": asyncmy}[driver]
        options = {"host": parts.hostname, "port": parts.port, "user": parts.username, "autocommit": self._autocommit}
        return await library.connect(**options, db=parts.path[1:])

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.run(self._execute(statement))
        return rows

    async def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        if self._driver == "asyncpg":
            return [tuple(row) for row in await self.raw.fetch(statement)]
        if self._driver == "aiosqlite":
            return [tuple(row) for row in await self.raw.execute_fetchall(statement)]
        async with self.raw.cursor() as cursor:
            await cursor.execute(statement)
            return [tuple(row) for row in await cursor.fetchall()] if cursor.description else []

    def commit(self) -> None:
        self.run(self._finish("commit"))

    def rollback(self) -> None:
        self.run(self._finish("rollback"))

    async def _finish(self, method: str) -> None:
        if self._driver == "asyncpg":
            await getattr(self._transaction, method)()
            self._transaction = self.raw.transaction()
            await self._transaction.start()
        else:
            await getattr(self.raw, method)()

    def close(self) -> None:
        self.run(self._end())

    async def _end(self) -> None:
        if self._pool is not None:
            await self._pool.release(self.raw)
            await self._pool.close()
        elif self._driver == "asyncmy":
            await self.raw.ensure_closed()
        elif (done := self.raw.close()) is not None:
            await done


class Psycopg2User(User):
    """A connection of psycopg2."""

    def __init__(self, kind: str, url: str, driver: str, isolation_level: str | None = None) -> None:
        self.connection = psycopg2.connect(url.partition("?")[0])
        self.connection.autocommit = isolation_level == AUTOCOMMIT

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def close(self) -> None:
        self.connection.close()

    end = close


SYNC = {"sqlite": ["pysqlite"], "postgresql": ["psycopg", "psycopg2"], "mariadb": ["pymysql"]}
ASYNC = {"sqlite": ["aiosqlite"], "postgresql": ["psycopg_async", "asyncpg"], "mariadb": ["aiomysql", "asyncmy"]}
ALONE = {"sqlite": ["aiosqlite"], "postgresql": ["psycopg", "asyncpg"], "mariadb": ["aiomysql", "asyncmy"]}

Make = Callable[..., Any]

KINDS: dict[str, tuple[str, Make, str, str]] = {
    **{
        f"{driver} {kind}": (engine, SyncUser, kind, driver)
        for engine, drivers in SYNC.items()
        for driver in drivers
        for kind in ("Session", "Connection", "scoped_session")
    },
    **{
        f"{driver} {kind}": (engine, AsyncUser, kind, driver)
        for engine, drivers in ASYNC.items()
        for driver in drivers
        for kind in ("AsyncSession", "AsyncConnection", "async_scoped_session")
    },
    **{
        f"{driver} alone": (engine, DriverUser, "alone", driver)
        for engine, drivers in ALONE.items()
        for driver in drivers
    },
    "asyncpg pool": ("postgresql", DriverUser, "pool", "asyncpg"),
    "psycopg2 alone": ("postgresql", Psycopg2User, "alone", "psycopg2"),
}
"""For each kind of connection: the engine, the class of its user, and what that class needs to make it."""


@contextlib.contextmanager
def user_of(name: str, url: str, isolation_level: str | None = None) -> Iterator[Any]:
    """Open a connection of this kind; close it at the end of the block."""
    _, make, kind, driver = KINDS[name]
    user = make(kind, url, driver, isolation_level)
    try:
        yield user
    finally:
        with contextlib.suppress(Exception):  # the test may have closed it
            user.end()

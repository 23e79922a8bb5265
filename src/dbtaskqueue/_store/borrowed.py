"""Connections of users that are not the engine's own driver's: sessions, other drivers, and those of an event loop.

The engines use the connections of sqlite3, psycopg and PyMySQL directly. For any other object, ``lend`` imports the
module of ``dbtaskqueue.integrations`` for its library: the program that has such an object has the library. That
module has two functions:

    lend(connection, loop, work)    call ``work`` where the connection may be used, with the driver's own connection or
                                    a ``Foreign``, and return its result; ``loop`` is the ``OnLoop``, or None
    current(connection)             for registries such as scoped_session: return the connection that they now stand for
"""

from __future__ import annotations

import abc
import functools
import importlib
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import ConfigurationError
from .connections import NOTHING, Row

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

Values = Mapping[str, object] | Sequence[object]
"""The parameters of a statement, by name, or for SQLite also by position."""

_MODULES = {
    "sqlalchemy": "sqlalchemy",
    "django": "django_connections",
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "asyncpg": "asyncpg",
    "aiosqlite": "aiosqlite",
    "aiomysql": "aiomysql",
    "asyncmy": "aiomysql",
}
"""For the package that a connection's class is from: the module in ``dbtaskqueue.integrations``."""


class OnLoop:
    """A connection that only an event loop may use. Create it in the coroutine that has the connection.

    The coroutine waits while a thread of ours stores the task through the connection. The loop runs each statement.
    """

    def __init__(self, connection: object, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = _current(connection)
        self.loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop; called by another thread, which waits for its result."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def call(self, work: Callable[[Any], T], connection: object) -> T:
        """Call ``work`` in the thread of the loop: a connection that blocks belongs to the thread that uses it."""

        async def call() -> T:
            return work(connection)

        return self.run(call())


class ForeignError(Exception):
    """An error of a driver, on a user's connection. ``original`` is the driver's exception."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(*original.args)
        self.original = original

    def __str__(self) -> str:
        return str(self.original)


class Foreign(abc.ABC):
    """A user's connection that is not the engine's own driver's. It runs the engine's statements as a cursor does.

    Its methods raise ForeignError for errors of the driver.
    """

    def __init__(self, engine: str, driver: object) -> None:
        self.engine = engine
        self.driver = driver
        """The driver's own connection, which may be one that the engine uses directly."""
        self._rows: Sequence[Sequence[Any]] = ()

    @property
    @abc.abstractmethod
    def is_closed(self) -> bool:
        """Whether the user has closed the connection."""

    @property
    @abc.abstractmethod
    def commits_itself(self) -> bool:
        """Whether the next statement commits by itself."""

    @property
    def rowcount(self) -> int:
        """The number of rows that the last statement inserted, changed or deleted; -1 if the driver does not say."""
        return -1

    @property
    def lastrowid(self) -> int | None:
        """The id of the row that the last statement inserted; read for SQLite only."""
        return None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has started; read for SQLite only."""
        return False

    @abc.abstractmethod
    def execute(self, statement: str | bytes, values: Values = NOTHING) -> Foreign:
        """Run a statement with ``%(name)s`` parameters, or with those of SQLite."""

    def executemany(self, statement: str | bytes, values: Sequence[Values]) -> None:
        """Run a statement once for each element."""
        for each in values:
            self.execute(statement, each)

    def fetchone(self) -> Row | None:
        """Return the first row of the last statement, or None."""
        return tuple(self._rows[0]) if self._rows else None

    def fetchall(self) -> list[Row]:
        """Return all rows of the last statement."""
        return list(map(tuple, self._rows))


def lend(connection: object, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the driver's connection behind a user's one, or a ``Foreign``; return its result."""
    loop = connection if isinstance(connection, OnLoop) else None
    given = connection if loop is None else loop.connection
    module = _module_of(given)
    if module is not None:
        return cast(T, module.lend(given, loop, work))
    return work(given) if loop is None else loop.call(work, given)


def call_directly(connection: object, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with a connection that blocks: in this thread, or in that of the loop."""
    return work(connection) if loop is None else loop.call(work, connection)


def require_loop(connection: object, loop: OnLoop | None) -> OnLoop:
    """Return the loop of an async connection. Raises ConfigurationError without one."""
    if loop is None:
        raise ConfigurationError(f"connection: {_named(connection)} needs an event loop: use an AsyncTaskQueue")
    return loop


def identity_of(connection: object) -> int:
    """Return a number that is equal for the same connection."""
    return id(connection.connection if isinstance(connection, OnLoop) else connection)


def wrong_kind(needed: str, connection: object) -> ConfigurationError:
    """Return the error for a connection of another engine, or something that is not a connection."""
    given = connection.driver if isinstance(connection, Foreign) else connection
    return ConfigurationError(
        f"connection: a {needed} connection is needed here, or a session or connection of another library to the same"
        f" database, not {_named(given)}"
    )


def is_closed() -> ConfigurationError:
    """Return the error for a closed connection."""
    return ConfigurationError("connection: it is closed, by this program or by the server; pass an open one")


def in_autocommit() -> ConfigurationError:
    """Return the error for a connection without a transaction."""
    return ConfigurationError("connection: it is in autocommit; start a transaction that you commit")


def numbered(statement: str | bytes, values: Values) -> tuple[str, tuple[object, ...]]:
    """Return a statement with ``$1``, ``$2`` and so on in place of ``%(name)s``, and the values in this order."""
    text, names = _numbered(statement)
    return text, tuple(values[name] for name in names)  # type: ignore[call-overload]


def with_lists(text: str, values: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """Return a statement with a parameter for each element of a tuple: not every driver can bind a tuple."""
    bound: dict[str, object] = {}
    for name, value in values.items():
        each = {f"{name}_{at}": one for at, one in enumerate(value)} if isinstance(value, tuple) else {name: value}
        if isinstance(value, tuple):
            text = text.replace(f"%({name})s", f"({', '.join(f'%({one})s' for one in each)})")
        bound |= each
    return text, bound


_PARAMETER = re.compile(r"%\((\w+)\)s|%%")


@functools.lru_cache(maxsize=512)
def _numbered(statement: str | bytes) -> tuple[str, list[str]]:
    text = as_text(statement)
    names = list(dict.fromkeys(name for name in _PARAMETER.findall(text) if name))
    return _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}" if match[1] else "%", text), names


def as_text(statement: str | bytes) -> str:
    """Return a statement as text."""
    return statement.decode() if isinstance(statement, bytes) else statement


def _named(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _current(connection: object) -> object:
    module = _module_of(connection)
    return module.current(connection) if module is not None and hasattr(module, "current") else connection


def _module_of(connection: object) -> ModuleType | None:
    kind: Any = type(connection)
    return _module_for(kind)


@functools.lru_cache(maxsize=64)
def _module_for(kind: type) -> ModuleType | None:
    """Return the integration for a connection of this class, which may be the user's own subclass."""
    for base in kind.__mro__:
        if (name := _MODULES.get(base.__module__.partition(".")[0])) is not None:
            return importlib.import_module(f"{__package__.partition('.')[0]}.integrations.{name}")
    return None

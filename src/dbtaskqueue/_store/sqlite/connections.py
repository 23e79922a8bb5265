"""SQLite connections: opening, waiting for the write lock, transactions, transient errors, forks.

Three rules come from measurements or from SQLite's own documentation:

- SQLite's busy handler is unfair: single writers waited up to 0.9 s. Here every write takes the write lock first, by
  BEGIN IMMEDIATE or as a single statement in autocommit. While another connection has the lock, it tries again every
  100 µs (``bench/contention.py``).
- Threads that write at the same moment share one commit. A single thread does not wait.
- A connection must not cross a fork: a child that inherits one loses its commits. So connections are closed before a
  fork, under their locks, and each side opens its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TypeVar, TypeVarTuple
from urllib.parse import quote

from ..._formats.url import Target, refuse_unknown
from ...errors import ConfigurationError, StoreUnavailable
from ..borrowed import Foreign, ForeignError, in_autocommit, is_closed, wrong_kind
from ..connections import NOTHING, Connections, Row, Values, mark_done
from ..counting import counted
from ..group_commit import Request
from .files import identity, is_no_directory, refuse_network, remove_directory, unused_and_read_only
from .transaction import SQL, SqliteTransaction

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LOCK_PATIENCE = 60.0
"""Seconds to wait for a write lock that another program holds, before the call fails."""

_SYNCHRONOUS = {
    "NORMAL": "PRAGMA synchronous = NORMAL",
    "FULL": "PRAGMA synchronous = FULL",
    "EXTRA": "PRAGMA synchronous = EXTRA",
}
_OLDEST_SQLITE = (3, 38, 0)  # the first version with ->> for JSON; RETURNING is older
_CHECK_INTERVAL = 0.001
"""Seconds between two checks that the file still exists. A check at each write would make writes 5 % slower."""
_FIRST_PAUSE, _LAST_PAUSE = 0.0001, 0.0005
_BUSY = {"SQLITE_BUSY", "SQLITE_LOCKED"}
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL")
"""Errors that may be temporary. A wrong path is never their cause."""
_RIGHTS = "the user of this program must be able to read and write the file, its -wal and -shm files, and the directory"
_BROKEN_FILE = {"SQLITE_NOTADB", "SQLITE_CORRUPT"}
_OLD_SNAPSHOT = (
    "the transaction of this connection started with a read, and another connection has written since. SQLite does not"
    " let such a transaction write (SQLITE_BUSY_SNAPSHOT). Nothing was stored: roll back and run the transaction again."
    ' To avoid this, start it with BEGIN IMMEDIATE (sqlite3: isolation_level="IMMEDIATE"; Django: "transaction_mode":'
    ' "IMMEDIATE" in OPTIONS; SQLAlchemy: a listener for the event "begin" that executes BEGIN IMMEDIATE)'
)

_LOCKED_FOR_USER = (
    "another connection has kept the database locked for longer than the timeout of this one. Nothing was stored: roll"
    " back and run the transaction again"
)


class SqliteConnections(Connections):
    """The connections of one process to one SQLite file: one that writes and one that reads."""

    def __init__(self, target: Target) -> None:
        refuse_unknown(target, ["synchronous"])
        self.synchronous = target.options.get("synchronous", "FULL").upper()
        if self.synchronous not in _SYNCHRONOUS:
            known = ", ".join(_SYNCHRONOUS)
            raise ConfigurationError(f"{target.text}: synchronous must be one of {known}, not {self.synchronous!r}")
        self._target = target
        self._writer: SqliteTransaction | None = None
        self._reader: SqliteTransaction | None = None
        self._file: tuple[int, int] | None = None
        self._unused: tuple[int, int] | None = None
        """The state of a file that is read without locks, since no one can write it."""
        self._next_check = 0.0
        self._owner = os.getpid()
        self._is_temporary = target.database == ":memory:"
        self.path = self._temporary_file() if self._is_temporary else os.path.abspath(target.database)
        super().__init__()

    @property
    def is_open(self) -> bool:
        """Whether ``open`` has found or made the file; ``disconnect`` and ``close`` reset it."""
        return self._file is not None

    def open(self, *, create: bool) -> None:
        """Open the file for the first time; with ``create``, make it if it does not exist.

        Raises FileNotFoundError, ConfigurationError if this user may not open it, and StoreUnavailable if it is
        locked or its disk fails.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            needed = ".".join(map(str, _OLDEST_SQLITE))
            raise ConfigurationError(f"this Python's SQLite is {sqlite3.sqlite_version}; {needed} or later is needed")
        refuse_network(self.path)
        try:
            if not create:
                os.stat(self.path)
            with self._write_lock:
                self._writer = SqliteTransaction(self._connect("rwc" if create else "rw"))
                self._remember_file()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(self.path) from None
        except OSError as error:  # such as a directory without permission, or a loop of links
            raise ConfigurationError(f"{self.path}: {error.strerror}; {_RIGHTS}") from None
        except sqlite3.Error as error:
            if _code(error).startswith(_PASSING):
                raise self._unavailable(error) from error
            raise ConfigurationError(f"{self._target.text}: {_explain(error, self.path)}") from None

    def read(self, work: Callable[[SqliteTransaction], T]) -> T:
        """See the base class."""
        return self.converse(self._read, self._read_all, counted(work))

    def query(self, name: str, values: Values = NOTHING) -> list[Row]:
        """See the base class."""
        return self.converse(self._read, counted(_rows), name, values)

    def _read(self, act: Callable[[SqliteTransaction, *Ts], T], *values: *Ts) -> T:
        with self._read_lock:
            return self._retry_decoding(self._read_transaction(), act, *values)

    def ask(self, name: str) -> Row:
        """Return the first row of a query that reads no table."""
        return self.converse(self._ask, name)

    def _ask(self, name: str) -> Row:
        with self._read_lock, self.translated():
            row = self._read_transaction().row(name)
            assert row is not None
            return row

    def borrow(self, connection: object, *, reads: bool = False) -> SqliteTransaction:
        """Return a user's own connection. Unless it only reads, in a transaction that locks the file for writing."""
        if isinstance(connection, Foreign) and isinstance(connection.driver, sqlite3.Connection):
            connection = connection.driver
        if isinstance(connection, Foreign) and connection.engine == "sqlite":
            return self._borrow_foreign(connection, reads=reads)
        if not isinstance(connection, sqlite3.Connection):
            raise wrong_kind("sqlite3", connection)
        try:
            cursor = connection.cursor()
        except sqlite3.ProgrammingError as error:  # it is closed, or belongs to another thread
            raise ConfigurationError(f"connection: {error}") from None
        cursor.row_factory = None
        self._check_same_file(cursor.execute("PRAGMA database_list").fetchall())
        if not reads and not connection.in_transaction:
            if getattr(connection, "autocommit", -1) is True or connection.isolation_level is None:
                raise in_autocommit()
            cursor.execute("BEGIN IMMEDIATE")
        return SqliteTransaction(connection, cursor)

    def _borrow_foreign(self, connection: Foreign, *, reads: bool) -> SqliteTransaction:
        if connection.is_closed:
            raise is_closed()
        self._check_same_file(connection.execute("PRAGMA database_list").fetchall())
        if not reads and not connection.in_transaction:
            if connection.commits_itself:
                raise in_autocommit()
            connection.execute("BEGIN IMMEDIATE")
        return SqliteTransaction(connection, connection)

    def _check_same_file(self, databases: list[Row]) -> None:
        file = next((file for _, name, file in databases if name == "main"), "")
        if file != self.path and (not file or identity(file) != identity(self.path)):
            raise ConfigurationError(f"connection: belongs to a different database than {self.path}")

    @contextlib.contextmanager
    def own_transaction(self) -> Iterator[SqliteTransaction]:
        """See the base class. It holds the file's write lock from its start to its end."""
        self._check_file()
        transaction = self._reconnect()
        connection = transaction.connection
        try:
            with self.translated():
                _wait_for_lock(connection.execute, "BEGIN IMMEDIATE")
            yield transaction
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unavailable(error, maybe_done=_code(error).startswith("SQLITE_IOERR")) from error
        finally:
            _roll_back(connection)
            connection.close()

    def _close(self) -> None:
        """See the base class; a temporary file is removed."""
        with self._write_lock, self._read_lock:
            self._disconnect()
            if self._is_temporary and self._owner == os.getpid():
                self._cleanup()

    def _temporary_file(self) -> str:
        directory = tempfile.mkdtemp(prefix="dbtaskqueue-")
        self._cleanup = weakref.finalize(self, remove_directory, directory, os.getpid())
        return os.path.join(directory, "taskqueue.sqlite")

    # -- transactions ------------------------------------------------------------------------------

    def _write_all(self, batch: list[Request]) -> None:
        self._retry_decoding(self._write_transaction(), self._write_through, batch)

    def _write_through(self, writer: SqliteTransaction, batch: list[Request]) -> None:
        connection, committing = writer.connection, False
        alone = len(batch) == 1 and batch[0].alone
        if connection.in_transaction:  # a second interrupt left it open
            _roll_back(connection)
        try:  # the try includes the BEGIN: an interrupt right after it must not leave the file locked
            if alone:
                batch[0].result = _wait_for_lock(batch[0].work, writer)
            else:
                _wait_for_lock(connection.execute, "BEGIN IMMEDIATE")
                for request in batch:
                    request.result = request.work(writer)
                committing = True
                connection.execute("COMMIT")
            mark_done(batch)
        except sqlite3.Error as error:
            _roll_back(connection)
            if _is_undecodable(error):
                raise
            doubtful = (committing or alone) and _code(error).startswith("SQLITE_IOERR")
            raise self._unavailable(error, maybe_done=doubtful) from error
        except BaseException:
            # an interrupt may come right after the commit, and what is stored must not be stored again
            if committing and not connection.in_transaction:
                mark_done(batch)
            _roll_back(connection)
            raise

    def _read_all(self, reader: SqliteTransaction, work: Callable[[SqliteTransaction], T]) -> T:
        connection = reader.connection
        if connection.in_transaction:  # a second interrupt left it open
            _roll_back(connection)
        try:
            _wait_for_lock(connection.execute, "BEGIN")
            return work(reader)
        finally:
            if connection.in_transaction:
                _roll_back(connection)

    def _retry_decoding(
        self, transaction: SqliteTransaction, act: Callable[[SqliteTransaction, *Ts], T], *values: *Ts
    ) -> T:
        """Run ``act``. If a row has bytes that are not UTF-8, run it again with a lenient decoder.

        One such row must not stop all workers.
        """
        try:
            return act(transaction, *values)
        except sqlite3.Error as error:
            if not _is_undecodable(error):
                raise self._unavailable(error) from error
        transaction.connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return act(transaction, *values)

    # -- connections -------------------------------------------------------------------------------

    def _write_transaction(self) -> SqliteTransaction:
        self._check_file()
        if self._writer is None:
            self._writer = self._reconnect()
        return self._writer

    def _read_transaction(self) -> SqliteTransaction:
        self._check_file()
        if self._reader is None:
            self._reader = self._reconnect()
        return self._reader

    def _reconnect(self) -> SqliteTransaction:
        with self.translated():
            connection = self._connect("rw")
            if self._file is None:
                self._remember_file()
            return SqliteTransaction(connection)

    def _connect(self, mode: str) -> sqlite3.Connection:
        try:
            return self._connect_with(mode)
        except sqlite3.OperationalError:
            state = unused_and_read_only(self.path)
            if mode == "rwc" or state is None:
                raise
        # no one has it open, and this user may not make the files that WAL needs: read it as if it were on a CD
        connection = self._connect_with("ro&immutable=1")
        self._unused = state
        return connection

    def _connect_with(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        try:
            # opening another program's file must not change it
            if mode == "rwc" or _until_free(lambda: connection.execute(SQL["has_schema"]).fetchone()):
                _until_free(lambda: connection.execute("PRAGMA journal_mode = WAL"))
            connection.execute(_SYNCHRONOUS[self.synchronous])
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_file(self) -> None:
        """Raise StoreUnavailable if the file was deleted or replaced: what is written to it would be lost."""
        now = time.monotonic()
        if self._file is None or now < self._next_check:
            return
        self._next_check = now + _CHECK_INTERVAL
        if identity(self.path) != self._file:
            self._disconnect()
            raise StoreUnavailable(f"{self.path}: the database file was deleted or replaced")
        if self._unused is not None and unused_and_read_only(self.path) != self._unused:
            self._disconnect()  # another program uses it now

    def _remember_file(self) -> None:
        self._file = identity(self.path)

    def _disconnect(self) -> None:
        transactions = self._writer, self._reader
        self._writer = self._reader = self._file = self._unused = None
        for transaction in transactions:
            if transaction is not None:
                with contextlib.suppress(sqlite3.Error):
                    transaction.connection.close()

    def _disown(self) -> None:
        """Do nothing: ``before_fork`` has closed both connections."""

    def before_fork(self) -> None:
        """Close both connections: a child that inherits one loses its commits."""
        super().before_fork()
        self._disconnect()

    def _unavailable(self, error: BaseException, *, maybe_done: bool = False) -> StoreUnavailable:
        return StoreUnavailable(f"{self.path}: {_explain(error, self.path)}", maybe_done=maybe_done)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """See the base class."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @contextlib.contextmanager
    def translated_for_user(self) -> Iterator[None]:
        """See the base class."""
        try:
            yield
        except (sqlite3.Error, ForeignError) as error:
            original = error.original if isinstance(error, ForeignError) else error
            is_locked = _is_busy(original) and _code(original) != "SQLITE_BUSY_SNAPSHOT"
            why = _LOCKED_FOR_USER if is_locked else _explain(original, self.path)
            raise StoreUnavailable(f"{self.path}: {why}") from original


def _rows(transaction: SqliteTransaction, name: str, values: Values) -> list[Row]:
    return transaction.rows(name, values)


def _wait_for_lock(act: Callable[[*Ts], T], *values: *Ts) -> T:
    """Run a statement that takes a lock, again and again while another connection holds the lock."""
    pause, deadline = _FIRST_PAUSE, 0.0
    while True:
        try:
            return act(*values)
        except sqlite3.Error as error:
            deadline = deadline or time.monotonic() + LOCK_PATIENCE
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.02, _LAST_PAUSE)


def _until_free(act: Callable[[], T]) -> T:
    """Run a statement again while the file is locked: switching to WAL ignores the busy timeout."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(_LAST_PAUSE)


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _code(error: BaseException) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _is_busy(error: BaseException) -> bool:
    return any(_code(error).startswith(code) for code in _BUSY)


def _is_undecodable(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "Could not decode to UTF-8" in str(error)


def _explain(error: BaseException, path: str) -> str:
    """Return what went wrong, in SQLite's words, and what to check."""
    code = _code(error)
    directory = os.path.dirname(path)
    if code.startswith("SQLITE_CANTOPEN"):
        if is_no_directory(directory):
            return f"the directory {directory} does not exist"
        if os.path.isdir(path):
            return "this is a directory, not a file"
        return f"the file cannot be opened; {_RIGHTS}"
    if any(code.startswith(prefix) for prefix in _BROKEN_FILE):
        return f"{error}: not a SQLite database, or a damaged one"
    if code.startswith("SQLITE_READONLY"):
        return f"{error}; {_RIGHTS}"
    if code == "SQLITE_BUSY_SNAPSHOT":
        return _OLD_SNAPSHOT
    if _is_busy(error):
        return f"another program has kept the database locked for {LOCK_PATIENCE:.0f} s"
    return f"{error}" + (f" ({code})" if code else "")

"""SQLite connections: opening, waiting for the write lock, transactions, transient errors, forks.

Three rules come from measurements or from SQLite's own documentation:

- SQLite's busy handler is unfair: single writers waited up to 0.9 s. Here every write takes the write
  lock first, by BEGIN IMMEDIATE or as a single statement in autocommit, and tries again every 100 µs
  while another connection has it (``bench/contention.py``).
- Threads that write at the same moment share one commit; a thread that is alone waits for nobody.
- A connection must not cross a fork: a child that inherits one loses its commits. So connections are
  closed before a fork, under their locks, and each side opens its own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import random
import sqlite3
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from urllib.parse import quote

from ..._formats.url import Target, refuse_unknown
from ..._system.processes import system
from ...errors import ConfigurationError, StoreUnavailable
from .. import queries
from ..connections import NOTHING, Connections, Row, Transaction, Values, mark_done
from ..contract import NewTask
from ..group_commit import Request

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SQL = queries.load("sqlite")
_INSERT_ONE, _names = queries.positional(SQL["insert_next_task"])
_values_of = operator.attrgetter(*_names)
"""The values of a NewTask in the statement's order. Otherwise SQLite would look up each one by name at every call."""

_ROWS = 100, 10, 1
"""Numbers of rows that a statement over a list is prepared for; the prepared statements are cached."""

LOCK_PATIENCE = 60.0
"""Seconds to wait for a write lock that another program keeps before saying so."""

_SYNCHRONOUS = {
    "NORMAL": "PRAGMA synchronous = NORMAL",
    "FULL": "PRAGMA synchronous = FULL",
    "EXTRA": "PRAGMA synchronous = EXTRA",
}
_OLDEST_SQLITE = (3, 38, 0)  # RETURNING, and ->> on JSON
_CHECK_INTERVAL = 0.001
"""Seconds between two looks whether the file is still there; a look at each write would cost it a twentieth."""
_FIRST_PAUSE, _LAST_PAUSE = 0.0001, 0.0005
_BUSY = {"SQLITE_BUSY", "SQLITE_LOCKED"}
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL")
"""What is no fault of whoever gave the path, and may be over the next time."""
_RIGHTS = "the user of this program must be able to read and write the file, its -wal and -shm files, and the directory"
_BROKEN_FILE = {"SQLITE_NOTADB", "SQLITE_CORRUPT"}
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "ncpfs"),
    *("afpfs", "webdav"),  # macOS
}
_NETWORK_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph", "fuse.nfs"}


_OLD_SNAPSHOT = (
    "the transaction of this connection started with a read, and another connection has written since. SQLite does not"
    " let such a transaction write (SQLITE_BUSY_SNAPSHOT). Nothing was stored: roll back and run the transaction again."
    ' To avoid this, start it with BEGIN IMMEDIATE (sqlite3: isolation_level="IMMEDIATE"; Django: "transaction_mode":'
    ' "IMMEDIATE" in OPTIONS; SQLAlchemy: a listener for the event "begin" that executes BEGIN IMMEDIATE)'
)


class SqliteTransaction(Transaction):
    """The named queries on a SQLite connection."""

    __slots__ = ("_execute", "connection")

    def __init__(self, connection: sqlite3.Connection, cursor: sqlite3.Cursor | None = None) -> None:
        self.connection = connection
        self._execute = (cursor or connection).execute

    def rows(self, name: str, values: Values = NOTHING) -> list[Row]:
        return self._execute(SQL[name], values).fetchall()

    def row(self, name: str, values: Values = NOTHING) -> Row | None:
        row: Row | None = self._execute(SQL[name], values).fetchone()
        return row

    def change(self, name: str, values: Values = NOTHING) -> int:
        return self._execute(SQL[name], values).rowcount

    def change_each(self, name: str, values: Sequence[Values]) -> None:
        self.connection.executemany(SQL[name], values)

    def change_together(self, name: str, rows: Sequence[Sequence[object]], values: Values = NOTHING) -> int:
        """Run a statement with a list ``[[…]]`` for many rows at once; how many it changed.

        Each row is its values in the order of the list; ``values`` are those that come before the list.
        """
        changed = 0
        for some in _portions(rows):
            text, names = _over_rows(name, len(some))
            changed += self._execute(text, [*map(values.__getitem__, names), *chain.from_iterable(some)]).rowcount
        return changed

    def array(self, ids: Sequence[int]) -> str:
        return json.dumps(ids)

    @property
    def is_open(self) -> bool:
        return bool(self.connection.in_transaction)

    def insert(self, task: NewTask) -> int:
        """Store one task; its id."""
        return self._execute(_INSERT_ONE, _values_of(task)).lastrowid or 0


def _portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    at = 0
    for size in _ROWS:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@functools.cache
def _over_rows(name: str, times: int) -> tuple[str, list[str]]:
    """The statement for so many rows, and the names of the values that come before them."""
    text, _ = queries.positional(queries.repeated(SQL[name], times))
    _, names = queries.positional(SQL[name].partition("[[")[0])
    return text, names


class SqliteConnections(Connections):
    """The connections of one process to one SQLite file: one that writes and one that reads."""

    def __init__(self, target: Target) -> None:
        refuse_unknown(target, ["synchronous"])
        self.synchronous = target.options.get("synchronous", "FULL").upper()
        if self.synchronous not in _SYNCHRONOUS:
            known = ", ".join(_SYNCHRONOUS)
            raise ConfigurationError(f"{target.text}: synchronous is one of {known}, not {self.synchronous!r}")
        self._target = target
        self._writer: SqliteTransaction | None = None
        self._reader: SqliteTransaction | None = None
        self._file: tuple[int, int] | None = None
        self._next_check = 0.0
        self._owner = os.getpid()
        self._is_temporary = target.database == ":memory:"
        self.path = self._temporary_file() if self._is_temporary else os.path.abspath(target.database)
        super().__init__()

    @property
    def is_open(self) -> bool:
        """Whether ``open`` found or made the file; ``rest`` and ``close`` end that."""
        return self._file is not None

    def open(self, *, create: bool) -> None:
        """Open the file for the first time, with ``create`` making it.

        ConfigurationError if it cannot be; StoreUnavailable where it is locked or its disk fails.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            needed = ".".join(map(str, _OLDEST_SQLITE))
            raise ConfigurationError(f"this Python's SQLite is {sqlite3.sqlite_version}; {needed} or later is needed")
        _refuse_network(self.path)
        try:
            if not create:
                os.stat(self.path)
            with self._write_lock:
                self._writer = SqliteTransaction(self._connect("rwc" if create else "rw"))
                self._remember_file()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(self.path) from None
        except OSError as error:  # a directory without permission, a loop of links
            raise ConfigurationError(f"{self.path}: {error.strerror}; {_RIGHTS}") from None
        except sqlite3.Error as error:
            if _code(error).startswith(_PASSING):
                raise self._unavailable(error) from error
            raise ConfigurationError(f"{self._target.text}: {_explain(error, self.path)}") from None

    def read(self, work: Callable[[SqliteTransaction], T]) -> T:
        """See the base class."""
        return self.converse(self._read, self._read_all, work)

    def query(self, name: str, values: Values = NOTHING) -> list[Row]:
        """See the base class."""
        return self.converse(self._read, SqliteTransaction.rows, name, values)

    def _read(self, act: Callable[[SqliteTransaction, *Ts], T], *values: *Ts) -> T:
        with self._read_lock:
            return self._retry_decoding(self._read_transaction(), act, *values)

    def ask(self, name: str) -> Row:
        """The first row of a query that reads no table."""
        return self.converse(self._ask, name)

    def _ask(self, name: str) -> Row:
        with self._read_lock, self.translated():
            row = self._read_transaction().row(name)
            assert row is not None
            return row

    def borrow(self, connection: object) -> SqliteTransaction:
        """A user's own connection, in a transaction that locks the file for writing."""
        if not isinstance(connection, sqlite3.Connection):
            raise ConfigurationError(
                f"connection: a sqlite3.Connection is needed here, not {type(connection).__name__}"
            )
        cursor = connection.cursor()
        cursor.row_factory = None
        file = next((file for _, name, file in cursor.execute("PRAGMA database_list") if name == "main"), "")
        if not file or _identity(file) != _identity(self.path):
            raise ConfigurationError(f"connection: leads to another database than {self.path}")
        if not connection.in_transaction:
            commits_itself = getattr(connection, "autocommit", -1) is True or connection.isolation_level is None
            if commits_itself:
                raise ConfigurationError("connection: it is in autocommit; start a transaction that you commit")
            cursor.execute("BEGIN IMMEDIATE")
        return SqliteTransaction(connection, cursor)

    @contextlib.contextmanager
    def own_transaction(self) -> Iterator[SqliteTransaction]:
        """See the base class. It has the file's write lock from its start to its end."""
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
        self._cleanup = weakref.finalize(self, _remove_directory, directory, os.getpid())
        return os.path.join(directory, "taskqueue.sqlite")

    # -- transactions ------------------------------------------------------------------------------

    def _write_all(self, batch: list[Request]) -> None:
        self._retry_decoding(self._write_transaction(), self._write_through, batch)

    def _write_through(self, writer: SqliteTransaction, batch: list[Request]) -> None:
        connection, committing = writer.connection, False
        alone = len(batch) == 1 and batch[0].alone
        if connection.in_transaction:  # a second interrupt left it open
            _roll_back(connection)
        try:  # from the BEGIN on: an interrupt right behind it must not leave the lock to nobody
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
            # an interrupt may come right behind the commit: what is stored must not be stored again
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
        """A row with bytes that are not UTF-8 must not stop everybody: read it again, leniently."""
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
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        try:
            # a look at another program's file must not change it
            if mode == "rwc" or _until_free(lambda: connection.execute(SQL["has_schema"]).fetchone()):
                _until_free(lambda: connection.execute("PRAGMA journal_mode = WAL"))
            connection.execute(_SYNCHRONOUS[self.synchronous])
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_file(self) -> None:
        """Refuse to write into a file that was deleted or replaced a while ago: nobody would find it again."""
        now = time.monotonic()
        if self._file is None or now < self._next_check:
            return
        self._next_check = now + _CHECK_INTERVAL
        if _identity(self.path) != self._file:
            self._disconnect()
            raise StoreUnavailable(f"{self.path}: the database file was deleted or replaced")

    def _remember_file(self) -> None:
        self._file = _identity(self.path)

    def _disconnect(self) -> None:
        transactions = self._writer, self._reader
        self._writer = self._reader = self._file = None
        for transaction in transactions:
            if transaction is not None:
                with contextlib.suppress(sqlite3.Error):
                    transaction.connection.close()

    def _disown(self) -> None:
        """Nothing to forget: ``before_fork`` closed both connections."""

    def before_fork(self) -> None:
        """Close both connections: a child that inherits one loses its commits."""
        super().before_fork()
        self._disconnect()

    def _unavailable(self, error: Exception, *, maybe_done: bool = False) -> StoreUnavailable:
        return StoreUnavailable(f"{self.path}: {_explain(error, self.path)}", maybe_done=maybe_done)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """See the base class."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error


def _remove_directory(directory: str, owner: int) -> None:
    if os.getpid() == owner:
        for file in Path(directory).glob("*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wait_for_lock(act: Callable[[*Ts], T], *values: *Ts) -> T:
    """Run a statement that takes a lock; while another connection has the lock, run it again."""
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
    """Switching a new file to WAL fails under contention in spite of a busy timeout: ask again."""
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


def _code(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _is_busy(error: Exception) -> bool:
    return any(_code(error).startswith(code) for code in _BUSY)


def _is_undecodable(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "Could not decode to UTF-8" in str(error)


def _explain(error: Exception, path: str) -> str:
    """What went wrong, in words that help: SQLite's own, and what to look at."""
    code = _code(error)
    directory = os.path.dirname(path)
    if code.startswith("SQLITE_CANTOPEN"):
        if _is_no_directory(directory):
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


def _is_no_directory(path: str) -> bool:
    """Whether there is no such directory; False if this user may not know."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        return False
    except OSError:
        return True


def _refuse_network(path: str) -> None:
    """WAL needs shared memory between all users of the file: a network file system breaks it silently."""
    kind = system.file_system(path)
    if kind in _NETWORK or kind in _NETWORK_FUSE:
        raise ConfigurationError(f"{path} is on a network file system ({kind}), which SQLite cannot share safely")


def not_writable(path: str) -> list[str]:
    """Which of the file, its log, the log's index and their directory this user may not write; SQLite needs them all.

    SQLite gives the log and the index the mode of the file. They keep it when the file's is changed.
    """
    needed = (path, f"{path}-wal", f"{path}-shm", os.path.dirname(path))
    return [each for each in needed if os.path.lexists(each) and not os.access(each, os.W_OK)]

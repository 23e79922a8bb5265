"""MariaDB connections: opening them, the named queries on them, and what their errors mean."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Sequence
from typing import Any

import pymysql  # type: ignore[import-untyped]
from pymysql.constants import CLIENT, SERVER_STATUS  # type: ignore[import-untyped]
from pymysql.cursors import Cursor  # type: ignore[import-untyped]

from ..._formats.url import Target, refuse_unknown
from ...errors import ConfigurationError
from .. import queries
from ..borrowed import Foreign, ForeignError, in_autocommit, is_closed, with_lists, wrong_kind
from ..connections import NOTHING, Row, Values
from ..server import TIMEOUT, ErrorKind, Link, ServerConnections, is_readable
from .beat import ERRORS, dial, tls

OLDEST = (10, 6)
_SILENCE = TIMEOUT + 5
"""Seconds without an answer after which a server is presumed dead. A live one would have ended the statement."""
_LOCK_TIMEOUT = 10
_PACKET_OVERHEAD = 65_536

_DUPLICATE = {1022, 1062}
_AGAIN = {1020, 1205, 1213, 1412}
# the server ends or the connection broke (1053, 1152…1161, 1184, 1927); a COMMIT that failed half-way (1180, 1598); a
# statement that an administrator or the timeout interrupted, perhaps a COMMIT (1317, 1969)
_LOST = {1053, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1317, 1598, 1927, 1969}
_ELSEWHERE = {1047, 1290, 1792, 1836}
_FORBIDDEN = {1044, 1142, 1143, 1227}
_UNKNOWN_VARIABLE = 1193
_NO_TABLE = {1046, 1146}
"""No database is selected, or it has no such table."""

_TLS_FILES = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password")
_TLS_SWITCHES = ("ssl", "ssl_verify_cert", "ssl_verify_identity")
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_CONNECT_TIMEOUT = 10
_LONGEST_CONNECT_TIMEOUT = 3600
_PARAMETER = re.compile(r"%\((\w+)\)s")


class MariadbLink(Link):
    """One connection, ours or a user's own."""

    def __init__(self, connection: Any, fd: int | None, sql: dict[str, str]) -> None:
        self.connection = connection
        self._fd = fd
        self._sql = sql
        self._cursor: Any = connection if isinstance(connection, Foreign) else connection.cursor(Cursor)

    def rows(self, name: str, values: Values = NOTHING, *, times: int | None = None) -> list[Row]:
        """Return all rows of the query ``name``. ``times``: how often its ``[[…]]`` are repeated."""
        self._execute(name, values, times)
        return list(self._cursor.fetchall())

    def rows_where(self, name: str, conditions: queries.Conditions, values: Values) -> list[Row]:
        text = queries.composed(self._sql.__getitem__, name, conditions)
        self._cursor.execute(text, {used: values[used] for used in _PARAMETER.findall(text)})
        return list(self._cursor.fetchall())

    def change(self, name: str, values: Values = NOTHING, *, times: int | None = None) -> int:
        """Run the statement ``name``; return the number of rows that it inserted, deleted or found to change."""
        return self._execute(name, values, times)

    def _execute(self, name: str, values: Values, times: int | None) -> int:
        text = self._sql[name]
        if times is not None:
            self._cursor.execute(queries.repeated(text, times), values)
        else:
            # PyMySQL would escape all values, used or not
            needed = {used: values[used] for used in _PARAMETER.findall(text)}
            self._cursor.execute(
                *(with_lists(text, needed) if isinstance(self.connection, Foreign) else (text, needed))
            )
        return int(self._cursor.rowcount)

    def change_each(self, name: str, values: Sequence[Values]) -> None:
        self._cursor.executemany(self._sql[name], values)

    def rows_unless_taken(self, name: str, values: Values, *, times: int) -> list[Row]:
        """Return the rows of an INSERT, or none if the key is taken. Either way, the transaction continues."""
        try:
            return self.rows(name, values, times=times)
        except (pymysql.IntegrityError, ForeignError) as error:
            if error_code(error) in _DUPLICATE and not _is_of_id(error):
                return []
            raise

    def rows_if_allowed(self, name: str) -> list[Row] | None:
        """Return the rows of a query, None if the account lacks the right for it."""
        try:
            return self.rows(name)
        except pymysql.MySQLError as error:
            if error_code(error) in _FORBIDDEN:
                return None
            raise

    def change_if_known(self, name: str) -> None:
        """Run a statement that sets a variable; ignore it if the server does not have that variable."""
        try:
            self.change(name)
        except pymysql.MySQLError as error:
            if error_code(error) != _UNKNOWN_VARIABLE:
                raise

    def run(self, statement: str) -> None:
        """Run a statement that changes the schema."""
        self._cursor.execute(statement)

    def array(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(ids)

    def start(self) -> None:
        self.change("start_transaction")

    def start_reading(self) -> None:
        self.change("start_reading")

    def commit(self) -> None:
        self.connection.commit()

    def roll_back(self) -> None:
        self.connection.rollback()

    @property
    def is_open(self) -> bool:
        return bool(self.connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def has_hung_up(self) -> bool:
        # the server sends an unrequested message only when it closes the connection
        return not self.connection.open or self._fd is None or is_readable(self._fd)

    def close(self) -> None:
        if self.connection.open:
            self.connection.close()

    def disown(self) -> None:
        # closes this process's copy of the socket; unlike close(), it does not tell the server
        with contextlib.suppress(*ERRORS):
            self.connection._force_close()


class MariadbConnections(ServerConnections):
    """The connections of one process to one MariaDB database."""

    def __init__(self, target: Target, sql: dict[str, str]) -> None:
        super().__init__(target, ERRORS)
        self._sql = sql
        self.options = _options(target)
        self._verified: weakref.WeakSet[Any] = weakref.WeakSet()
        """The connections of users that have the right charset."""

    def _connect(self, *, reads: bool) -> MariadbLink:
        connection, fd = dial({**self.options, "addresses": self._addresses()})
        try:
            link = MariadbLink(connection, fd, self._sql)
            self._check(*link.rows("server")[0])
            link.change("settings_for_all", {"timeout": int(TIMEOUT), "lock_timeout": _LOCK_TIMEOUT})
            link.change("settings_for_reading" if reads else "settings_for_writing")
            if not reads:
                link.change_if_known("settings_for_galera")
        except BaseException:
            connection.close()
            raise
        return link

    def _addresses(self) -> list[list[Any]]:
        """Return the addresses to try, the other connection's first, so that this one reads what it has written."""
        links = [link for link in (self._writer, self._reader) if isinstance(link, MariadbLink)]
        used = [[link.connection.host, link.connection.port] for link in links if not link.has_hung_up()]
        return [*used, *(address for address in self.options["addresses"] if address not in used)]

    def _check(self, version: str, comment: str, max_packet: int) -> None:
        """Raise ConfigurationError for an unsuitable server."""
        name = self._target.text
        if "mariadb" not in f"{version} {comment}".lower():
            raise ConfigurationError(f"{name}: this is MySQL {version}, which is not supported: MariaDB is needed")
        numbers = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)", version)
        if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise ConfigurationError(f"{name}: MariaDB {version} is too old; 10.6 or later is needed")
        needed = 2 * self._target.max_payload + _PACKET_OVERHEAD
        if max_packet < needed:
            raise ConfigurationError(
                f"{name}: the server's max_allowed_packet is {max_packet} bytes; payloads of up to"
                f" {self._target.max_payload} bytes need {needed}: SET GLOBAL max_allowed_packet = {needed},"
                " or give the URL a smaller max_payload"
            )

    def borrow(self, connection: object, *, reads: bool = False) -> MariadbLink:
        """Return a user's own connection, in its transaction. One that only reads needs none."""
        if isinstance(connection, Foreign) and isinstance(connection.driver, pymysql.connections.Connection):
            connection = connection.driver
        if isinstance(connection, Foreign) and connection.engine == "mariadb":
            return self._borrow_foreign(connection, reads=reads)
        if not isinstance(connection, pymysql.connections.Connection):
            raise wrong_kind("pymysql", connection)
        if not connection.open:
            raise is_closed()
        started = connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
        if connection.get_autocommit() and not started and not reads:
            raise in_autocommit()
        _check_charset(connection.charset)
        return MariadbLink(connection, None, self._sql)

    def _borrow_foreign(self, connection: Foreign, *, reads: bool) -> MariadbLink:
        if connection.is_closed:
            raise is_closed()
        if not reads and connection.commits_itself:
            raise in_autocommit()
        link = MariadbLink(connection, None, self._sql)
        if connection.driver not in self._verified:
            _check_charset(link.rows("charset")[0][0])
            self._verified.add(connection.driver)
        return link

    def belongs_here(self, link: MariadbLink) -> bool:
        """Return whether a user's connection leads to this database now: it may have changed, by USE."""
        try:
            return self.is_identity(link.rows("identity"))
        except (pymysql.MySQLError, ForeignError) as error:
            if error_code(error) in _NO_TABLE:
                return False
            raise

    def is_forbidden(self, error: BaseException | None) -> bool:
        """See the base class."""
        return isinstance(error, pymysql.MySQLError) and error_code(error) in _FORBIDDEN

    def _trouble(self, error: Exception) -> ErrorKind:
        code = error_code(error)
        if code is None or 2000 <= code < 3000 or code in _LOST:
            return ErrorKind.LOST
        if code in _AGAIN or (code in _DUPLICATE and _is_of_id(error)):
            return ErrorKind.RETRY
        if code in _DUPLICATE:
            return ErrorKind.CONFLICT
        return ErrorKind.RECONNECT if code in _ELSEWHERE else ErrorKind.FATAL

    def explain(self, error: Exception) -> str:
        """See the base class."""
        code = error_code(error)
        return super().explain(error) if code is None else f"{' '.join(str(error.args[1]).split())} (error {code})"


def _check_charset(charset: str) -> None:
    if charset != "utf8mb4":
        raise ConfigurationError(f"connection: its charset is {charset}; utf8mb4 is needed")


def _is_of_id(error: Exception) -> bool:
    """Return whether an id is the duplicate. Two Galera nodes may assign the same one; the later commit fails."""
    return str(error.args[1]).endswith("'PRIMARY'")


def error_code(error: Exception) -> int | None:
    """Return the number of an error, the client library's from 2000 on; None if it has none."""
    if isinstance(error, pymysql.InterfaceError) or not isinstance(error, pymysql.MySQLError | ForeignError):
        return None
    number = error.args[0] if len(error.args) > 1 else None
    return number if isinstance(number, int) else None


def _options(target: Target) -> dict[str, Any]:
    """Return what ``dial`` needs, as JSON. Raises ConfigurationError for an unknown or invalid option."""
    refuse_unknown(target, [*_TLS_FILES, *_TLS_SWITCHES, "unix_socket", "connect_timeout", "charset"])
    if target.options.get("charset", "utf8mb4").lower() != "utf8mb4":
        raise ConfigurationError(f"{target.text}: charset is always utf8mb4, not {target.options['charset']!r}")
    parameters = {
        "user": target.user,
        "password": target.password,
        "database": target.database,
        "charset": "utf8mb4",
        "client_flag": CLIENT.FOUND_ROWS,  # count the rows that an UPDATE finds, even if it does not change them
        "read_timeout": _SILENCE,
        "write_timeout": _SILENCE,
        "program_name": "dbtaskqueue",
    }
    switches = {name: _boolean(target, name) for name in _TLS_SWITCHES if name in target.options}
    if switches.get("ssl") is False:
        parameters["ssl_disabled"] = True
    return {
        "addresses": [[host.name, host.port or 3306] for host in target.hosts] or [["localhost", 3306]],
        "unix_socket": target.options.get("unix_socket"),
        "parameters": {name: value for name, value in parameters.items() if value is not None},
        "connect_timeout": _connect_timeout(target),
        "tls": _tls(target, switches),
    }


def _tls(target: Target, switches: dict[str, bool]) -> dict[str, Any] | None:
    """Return the options of TLS; None: encrypt if both sides can, and verify nothing. A given CA is used to verify."""
    files = {name: target.options[name] for name in _TLS_FILES if name in target.options}
    if switches.get("ssl") is False or not (files or any(switches.values())):
        return None
    identity = switches.get("ssl_verify_identity", False)
    verify = identity or switches.get("ssl_verify_cert", "ssl_ca" in files)
    options = {**files, "identity": identity, "verify": verify}
    try:
        tls(options)
    except OSError as error:
        raise ConfigurationError(f"{target.text}: {error}") from None
    return options


def _connect_timeout(target: Target) -> int:
    digits = target.options.get("connect_timeout", str(_CONNECT_TIMEOUT))
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:9]) <= _LONGEST_CONNECT_TIMEOUT):
        raise ConfigurationError(
            f"{target.text}: connect_timeout must be a whole number of seconds from 1 to {_LONGEST_CONNECT_TIMEOUT},"
            f" not {digits!r}"
        )
    return int(digits)


def _boolean(target: Target, name: str) -> bool:
    value = target.options[name].lower()
    if value not in _BOOLEANS:
        raise ConfigurationError(f"{target.text}: {name} must be true or false, not {target.options[name]!r}")
    return _BOOLEANS[value]

"""The one statement that a heartbeat process sends to MariaDB, and how to reach a server that takes it.

Imports no package, since that process imports none.
"""

import contextlib
import encodings.idna  # noqa: F401  for host names; imported now, before sys.path is the user's
import functools
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pymysql  # type: ignore[import-untyped]

ERRORS = (pymysql.MySQLError, OSError, EOFError, struct.error, AssertionError)
"""What PyMySQL raises for errors of the server or the network."""

# a server that has vanished is noticed within half a minute, on an idle connection and during a statement
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}


def open_beat(options: dict[str, Any]) -> Callable[[int], bool]:
    """Return a function that stores a heartbeat; False if the worker's row is marked lost or does not exist."""
    connections: list[Any] = []

    def beat(worker: int) -> bool:
        if not connections:
            connections.append(dial(options)[0])
        try:
            with connections[0].cursor() as cursor:
                return bool(cursor.execute(options["statement"], {"worker": worker}) == 1)
        except ERRORS:
            with contextlib.suppress(*ERRORS):
                connections.pop().close()
            raise

    return beat


def dial(options: dict[str, Any]) -> tuple[Any, int]:
    """Connect to the first address that accepts writes, or else to the first that answers.

    Returns the connection and its file descriptor.
    """
    spare: tuple[Any, int] | None = None
    failure: Exception | None = None
    for address in options["addresses"]:
        try:
            found = _dial(address, options)
            if _takes_writes(found[0]):
                _hang_up(spare)
                return found
            spare = spare or found
        except ERRORS as error:
            failure = failure or error
    if spare is None:
        raise failure or pymysql.OperationalError(2003, "no address")
    return spare


def _dial(address: list[Any], options: dict[str, Any]) -> tuple[Any, int]:
    host, port = address
    parameters = {**options["parameters"], "host": host, "port": port}
    if "password" in parameters:
        parameters["password"] = parameters["password"].encode()
    if options["tls"] is not None:
        parameters["ssl"] = tls(options["tls"])
    connection = _Connection(**parameters, autocommit=True, defer_connect=True)
    sock = _socket(address, options)
    fd = sock.fileno()  # TLS keeps the same descriptor
    connection.connect(sock)
    return connection, fd


def _socket(address: list[Any], options: dict[str, Any]) -> socket.socket:
    seconds = options["connect_timeout"]
    if options["unix_socket"] is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(seconds)
        sock.connect(options["unix_socket"])
        return sock
    try:
        sock = socket.create_connection(tuple(address), seconds)
    except OSError as error:
        raise pymysql.OperationalError(2003, f"{address[0]}:{address[1]}: {error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def tls(options: dict[str, Any]) -> ssl.SSLContext:
    """Return the TLS context for the URL's options. PyMySQL's own would not check the host name without a CA."""
    if not (options["verify"] or "ssl_ca" in options or "ssl_cert" in options):
        return _unverified()
    context = ssl.create_default_context(cafile=options.get("ssl_ca"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # certificates made by MariaDB's tools would fail the strict check
    context.check_hostname = options["identity"]
    context.verify_mode = ssl.CERT_REQUIRED if options["verify"] else ssl.CERT_NONE
    if "ssl_cert" in options:
        context.load_cert_chain(options["ssl_cert"], options.get("ssl_key"), options.get("ssl_key_password"))
    return context


@functools.cache
def _unverified() -> ssl.SSLContext:
    """Return the context of all connections of this process that verify nothing.

    PyMySQL creates one for each connection and loads the system's CAs into it: 50 ms.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Connection(pymysql.connections.Connection):  # type: ignore[misc]
    """A connection that shares one TLS context with others in the default case: TLS if the server offers it."""

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        return super()._create_ssl_ctx(sslp) if sslp else _unverified()


def _takes_writes(connection: Any) -> bool:
    """Return whether the server takes writes. A node of a cluster that is not ready raises an error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@global.read_only")
        return str(cursor.fetchone()[0]) in ("0", "OFF")


def _hang_up(found: tuple[Any, int] | None) -> None:
    if found is not None:
        with contextlib.suppress(*ERRORS):
            found[0].close()

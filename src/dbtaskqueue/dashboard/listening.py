"""The sockets that ``dbtaskqueue dashboard`` listens on."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from ..errors import ConfigurationError

_SOCKET_MASK = 0o117
"""The owner and the group of the socket's file may connect, which lets a web server in the group in."""
_BACKLOG = 1024


@contextlib.contextmanager
def listen(host: str, port: int, path: str | None) -> Iterator[socket.socket]:
    """Listen on a port, or on a Unix socket. Raises OSError, and ConfigurationError for a socket that is in use."""
    if path is None:
        with _tcp(host, port) as listener:
            yield listener
        return
    with _unix(path) as listener:
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def address_of(listener: socket.socket) -> str:
    """Return the address at which a browser on this machine reaches a socket, such as ``127.0.0.1:8484``."""
    if listener.family == socket.AF_UNIX:
        return "localhost"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigurationError(f"--host: there is no address {host!r}") from None
    listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    # connections inherit it; without it, each answer in two parts waits 40 ms for the browser's delayed ACK
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _unix(path: str) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(_SOCKET_MASK)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that has ended. Raises ConfigurationError if it is in use or no socket."""
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise ConfigurationError(f"--socket: cannot use {path}: {error.strerror or error}") from None
    raise ConfigurationError(f"--socket: another program listens on {path}")

"""The commands dashboard, which serves pages and the API, and dashboard-user, which makes a line for its users."""

from __future__ import annotations

import getpass
import ipaddress
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import StoreUnavailable
from ..queue import TaskQueue
from .options import checked, url_option
from .output import escaped, note

if TYPE_CHECKING:
    import socket

    from ..dashboard import Dashboard
    from ..dashboard.ways import Doors, Network

_INSTALL = "the dashboard is not installed; install it with: pip install 'dbtaskqueue[dashboard]'"
_LONGEST_PASSWORD = 1000
_EXAMPLES = """
\b
Examples:
  dbtaskqueue dashboard                # for yourself: open the link it prints
  dbtaskqueue dashboard-user alice operate >> users.txt
  dbtaskqueue dashboard --host 0.0.0.0 --allowed-host tasks.example.com \\
      --users users.txt
  dbtaskqueue dashboard --socket /run/tasks.sock --user-header Remote-User
"""


def _networks(texts: tuple[str, ...]) -> list[Network]:
    return [ipaddress.ip_network(text) for text in texts]


def _hidden(texts: tuple[str, ...]) -> set[str]:
    names = {name.strip() for text in texts for name in text.split(",")}
    if unknown := names - {"payload", "result", "output"}:
        raise ValueError(f"{sorted(unknown)[0]!r} must be payload, result or output")
    return names


@click.command(epilog=_EXAMPLES)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8484, metavar="PORT", help="The port; 0: a free one.")
@click.option(
    "--socket",
    "path",
    metavar="PATH",
    envvar="DBTASKQUEUE_DASHBOARD_SOCKET",
    help="Listen on this Unix socket instead.",
)
@click.option(
    "--read-only", is_flag=True, help="No user can change anything. The database's account needs only SELECT."
)
@click.option("--users", metavar="FILE", help="Users with passwords: lines of dashboard-user.")
@click.option("--token-file", metavar="FILE", help="Tokens for programs: lines ROLE NAME SHA256HEX.")
@click.option("--user-header", metavar="NAME", help="The header in which a proxy says who has signed in there.")
@click.option(
    "--from",
    "networks",
    metavar="CIDR",
    envvar="DBTASKQUEUE_DASHBOARD_FROM",
    multiple=True,
    callback=checked(_networks),
    help="Addresses of that proxy, such as 10.0.0.0/8. Repeatable.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    envvar="DBTASKQUEUE_DASHBOARD_ALLOWED_HOST",
    multiple=True,
    help="A name under which browsers reach the dashboard, as behind a proxy. Repeatable.",
)
@click.option("--allow-commands", is_flag=True, help="Administrators may enqueue command lines.")
@click.option(
    "--hide",
    metavar="WORDS",
    multiple=True,
    callback=checked(_hidden),
    help="What is never shown: of payload,result,output.",
)
@click.option("--ready-file", metavar="FILE", help="A file to write the link to, once the dashboard answers.")
@url_option
@click.pass_obj
def dashboard(
    url: str | None,
    /,
    host: str,
    port: int,
    path: str | None,
    users: str | None,
    token_file: str | None,
    user_header: str | None,
    networks: list[Network],
    ready_file: str | None,
    **options: Any,
) -> None:
    """Serve pages and a JSON API about all queues of a database.

    It prints a link, with a token for an administrator, when it answers. On anything but this machine or a Unix socket,
    it needs --users, --token-file, or --user-header with --from.

    The roles: "look" may look. "operate" may also cancel, retry, reschedule, suspend, pause and run. "admin" may do
    everything.
    """
    _require_package()
    from .._formats.hosts import is_loopback
    from ..dashboard.listening import listen

    if user_header and not networks and path is None:
        raise click.UsageError("--user-header needs --from, the addresses of the proxy that sets it, or --socket")
    if networks and not user_header:
        raise click.UsageError("--from needs --user-header")
    if path is None and not is_loopback(host) and not (users or token_file or user_header):
        raise click.UsageError(
            f"--host {escaped(host)} is open to other machines: say who may use the dashboard,"
            " with --users, --token-file, or --user-header and --from"
        )
    token = secrets.token_urlsafe(32)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if host not in ("0.0.0.0", "::"):
        options["allowed_hosts"] = [*options["allowed_hosts"], host]
    with TaskQueue(url, create=False, open=False) as queue, listen(host, port, path) as listener:
        doors = _doors(token, listener, users, token_file, user_header, networks)
        _serve(_opened(queue), doors, listener, _announce(listener, path, token, ready_file), options)


def _require_package() -> None:
    try:
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError:
        raise click.ClickException(_INSTALL) from None


def _doors(
    token: str,
    listener: socket.socket,
    users: str | None,
    token_file: str | None,
    user_header: str | None,
    networks: list[Network],
) -> Doors:
    from ..dashboard.people import People
    from ..dashboard.ways import Doors, ProxyHeader

    name = listener.getsockname()
    return Doors(
        token,
        # cookies are shared by all ports of a machine, where there may be another dashboard
        cookie=f"dbtaskqueue_{name[1]}" if isinstance(name, tuple) else "dbtaskqueue_session",
        tokens=People(token_file, "tokens") if token_file else None,
        users=People(users, "users") if users else None,
        header=ProxyHeader(user_header, networks, trusts_socket=True) if user_header else None,
    )


def _opened(queue: TaskQueue) -> TaskQueue:
    """Open the database. If it is unavailable, the dashboard says so until it is available again."""
    try:
        return queue.open()
    except StoreUnavailable as error:
        note(f"the database is unavailable: {error}")
        return queue


def _announce(listener: socket.socket, path: str | None, token: str, ready_file: str | None) -> Callable[[], None]:
    from ..dashboard.listening import address_of

    link = f"http://{address_of(listener)}/?token={token}"

    def announce() -> None:
        click.echo(f"dashboard: {link}" + (f" on the socket {path}" if path else ""))
        sys.stdout.flush()
        if ready_file:
            _write(Path(ready_file), f"{link}\n")

    return announce


def _write(path: Path, text: str) -> None:
    """Write a file that only we can read, all at once: it has a token."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with open(handle, "w") as file:
        file.write(text)
    os.replace(name, path)


def _serve(
    queue: TaskQueue, doors: Doors, listener: socket.socket, announce: Callable[[], None], options: dict[str, Any]
) -> None:
    from ..dashboard import Dashboard
    from ..dashboard.server import serve

    app: Dashboard = Dashboard(queue, auth=doors, **options)
    try:
        serve(app, listener, announce)
    finally:
        app.close()


@click.command("dashboard-user")
@click.argument("name")
@click.argument("role", type=click.Choice(["look", "operate", "admin"]))
def dashboard_user(name: str, role: str) -> None:
    """Print the line of a user for "dashboard --users".

    The password is read from stdin, or asked for on a terminal. The line has its hash, not the password itself.
    """
    _require_package()
    from ..dashboard.passwords import hashed
    from ..dashboard.people import check_person

    try:
        check_person(name, role)
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not 0 < len(password) <= _LONGEST_PASSWORD:
        raise click.UsageError(f"give a password of 1 to {_LONGEST_PASSWORD} characters on stdin")
    click.echo(f"{role} {name} {hashed(password)}")

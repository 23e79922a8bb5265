"""Database URLs and DBI DSNs: which engine, which database, which options. Pure.

No message contains a password: errors and logs show a URL as ``mask`` returns it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from ..errors import ConfigurationError
from .payload import MAX_BYTES

DEFAULT_URL = "sqlite:///taskqueue.sqlite"

_SCHEMES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mariadb": "mariadb",
    "mysql": "mariadb",
}
_DRIVERS = {
    "sqlite": ("pysqlite", "aiosqlite"),
    "postgresql": ("psycopg", "psycopg_async", "psycopg2", "asyncpg"),
    "mariadb": ("pymysql", "mysqldb", "aiomysql", "asyncmy"),
}
"""Names of drivers as URLs of SQLAlchemy have them. They only mean the engine: each engine has its own driver here."""
_DBI_DRIVERS = {"sqlite": "sqlite", "pg": "postgresql", "mariadb": "mariadb", "mysql": "mariadb"}
_DBI = re.compile(r"dbi:(?P<driver>[a-z]+):(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_URL = re.compile(r"(?P<scheme>[a-z]+)(?:\+(?P<driver>[a-z0-9_]+))?:(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SERVER = re.compile(r"//(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?(?P<hosts>[^@/?#]*)/(?P<database>[^/?#]*)")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::(?P<port>\d{1,5}))?", re.ASCII)
_PORTS = {"postgresql": 5432, "mariadb": 3306}
_SECRET = re.compile(r"""(?i)((?:password|passwd|pwd|pass)\s*=\s*)('[^']*'|"[^"]*"|[^;&]*)""")
# up to the last '@', since a password may contain an '@', '/', '?' or '#' that should have been quoted
_USER_INFO = re.compile(r"(?is)^(?!sqlite(?:\+\w+)?:///|dbi:)([a-z][\w+.-]*:/*)([^:]*):.*@")
_LARGEST_PAYLOAD = 2**30


class Host(NamedTuple):
    """One address of a server; None for the engine's usual port."""

    name: str
    port: int | None


class Target(NamedTuple):
    """The parts of a URL or DSN.

    ``database`` is the SQLite file, "" for a temporary one that is removed at close, or the name of a server's
    database. ``hosts`` are tried in their order; none means the engine's default. The engine checks ``options``.
    ``max_payload`` is in bytes. ``text`` is the URL with its password masked, for messages.
    """

    engine: str
    database: str
    text: str
    max_payload: int
    options: dict[str, str]
    hosts: tuple[Host, ...] = ()
    user: str | None = None
    password: str | None = None


def parse(url: str) -> Target:
    """Return the target of a database URL or a DBI DSN. Raises ConfigurationError if it is unknown or malformed."""
    if not isinstance(url, str):
        raise ConfigurationError(f"a database URL must be a str, not {type(url).__name__}")
    if "\x00" in url:
        raise ConfigurationError("a database URL cannot contain U+0000")
    dsn = _DBI.fullmatch(url)
    target = _parse_dsn(url, dsn["driver"], dsn["rest"]) if dsn else _parse_url(url)
    if any("\x00" in text for text in (target.database, target.user or "", target.password or "")):
        raise ConfigurationError(f"{target.text}: a name cannot contain U+0000")
    return target


def mask(url: str) -> str:
    """Return ``url`` with its password, if any, replaced by ``***``."""
    return _USER_INFO.sub(r"\1\2:***@", _SECRET.sub(r"\1***", url))


def same_database(one: str, other: str) -> bool:
    """Return whether two URLs or DSNs name the same database, for any user and options. Raises ConfigurationError."""
    return database_of(one) == database_of(other)


def database_of(url: str) -> tuple[object, ...]:
    """Return what identifies the database of a URL or DSN: equal for all its spellings. Raises ConfigurationError."""
    target = parse(url)
    if target.engine == "sqlite":
        return target.engine, os.path.realpath(target.database)
    hosts = target.hosts or (Host("localhost", None),)
    ports = tuple((host.name, host.port or _PORTS[target.engine]) for host in hosts)
    return target.engine, ports, target.database, target.options.get("schema")


def refuse_unknown(target: Target, known: Iterable[str]) -> None:
    """Raise ConfigurationError for an option that is not one of ``known``."""
    unknown = sorted(set(target.options) - set(known))
    if unknown:
        names = ", ".join([*sorted(known), "max_payload"])
        raise ConfigurationError(f"{target.text}: unknown option {unknown[0]!r}; known are {names}")


def _parse_url(url: str) -> Target:
    match = _URL.fullmatch(url)
    engine = _SCHEMES.get(match["scheme"].lower()) if match else None
    if match is None or engine is None:
        raise ConfigurationError(
            f"{mask(url)}: not a database URL; it must be like sqlite:///file.sqlite, postgresql://user@host/database,"
            " mariadb://user@host/database or dbi:SQLite:dbname=file.sqlite"
        )
    if match["driver"] and match["driver"].lower() not in _DRIVERS[engine]:
        known = " or ".join((f"{engine}://", *(f"{engine}+{name}://" for name in _DRIVERS[engine])))
        raise ConfigurationError(f"{mask(url)}: the driver {match['driver']!r} is unknown; write {known}")
    # parsed by hand: urlsplit refuses several hosts with ports, and misreads '#' in the name of a file
    rest, _, query = match["rest"].partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    return _sqlite_url(url, rest, options) if engine == "sqlite" else _server_url(url, engine, rest, options)


def _sqlite_url(url: str, rest: str, options: dict[str, str]) -> Target:
    if not rest.startswith("///") or rest == "///":
        raise ConfigurationError(f"{mask(url)}: a SQLite URL has three slashes and a file, four for an absolute path")
    return _target(url, "sqlite", unquote(rest[3:]), options)


def _server_url(url: str, engine: str, rest: str, options: dict[str, str]) -> Target:
    match = _SERVER.fullmatch(rest)
    if match is None or not match["database"]:
        raise ConfigurationError(
            f"{mask(url)}: a server's URL is {engine}://user:password@host:port/database, with '@', ':', '/', '?' and"
            " '#' in a name or password written as %40, %3A, %2F, %3F and %23"
        )
    hosts = tuple(_host(url, text) for text in match["hosts"].split(",")) if match["hosts"] else ()
    user, password = (None if text is None else unquote(text) for text in (match["user"], match["password"]))
    return _target(url, engine, unquote(match["database"]), options, hosts, user or None, password)


def _host(url: str, text: str) -> Host:
    match = _HOST.fullmatch(text)
    if match is None or not match["name"] or int(match["port"] or 1) not in range(1, 65536):
        raise ConfigurationError(f"{mask(url)}: {mask(text)!r} is not a host; it must be name or name:port")
    return Host(unquote(match["name"]).strip("[]"), int(match["port"]) if match["port"] else None)


def _parse_dsn(url: str, driver: str, rest: str) -> Target:
    engine = _DBI_DRIVERS.get(driver.lower())
    if engine is None:
        known = "SQLite, Pg, MariaDB and mysql"
        raise ConfigurationError(f"{mask(url)}: the DBI driver {driver!r} is unknown; known are {known}")
    attributes: dict[str, str] = {}
    for part in filter(None, rest.split(";")):
        name, equals, value = part.partition("=")
        attributes[name.strip().lower() if equals else "dbname"] = value if equals else part
    names = [name for name in ("dbname", "database", "db") if name in attributes]
    if len(names) != 1 or not attributes[names[0]]:
        raise ConfigurationError(f"{mask(url)}: a DBI DSN must name one database, as in dbi:{driver}:dbname=NAME")
    database = attributes.pop(names[0])
    if engine == "sqlite":
        return _target(url, engine, database, attributes)
    user, password = (attributes.pop(name, None) for name in ("user", "password"))
    host, port = attributes.pop("host", ""), attributes.pop("port", "")
    hosts = (_host(url, f"{host or 'localhost'}:{port}" if port else host),) if host or port else ()
    return _target(url, engine, database, attributes, hosts, user, password)


def _target(
    url: str,
    engine: str,
    database: str,
    options: dict[str, str],
    hosts: tuple[Host, ...] = (),
    user: str | None = None,
    password: str | None = None,
) -> Target:
    shown = mask(url)
    digits = options.pop("max_payload", str(MAX_BYTES))
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:12]) <= _LARGEST_PAYLOAD):
        raise ConfigurationError(
            f"{shown}: max_payload must be a number of bytes from 1 to {_LARGEST_PAYLOAD}, not {digits!r}"
        )
    return Target(engine, database, shown, int(digits), options, hosts, user, password)

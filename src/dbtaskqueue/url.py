"""Database URLs and DBI DSNs: which engine, which database, which options. Pure.

A password never leaves this module in a message: ``mask`` is what errors and logs show.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from .errors import ConfigurationError
from .payload import MAX_BYTES

DEFAULT_URL = "sqlite:///taskqueue.sqlite"

_SYNCHRONOUS = ("NORMAL", "FULL", "EXTRA")
_SERVERS = {
    "postgresql": "PostgreSQL",
    "postgres": "PostgreSQL",
    "pg": "PostgreSQL",
    "mariadb": "MariaDB",
    "mysql": "MariaDB",
}
_DBI = re.compile(r"dbi:(?P<driver>[a-z]+):(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"""(?i)((?:password|passwd|pwd|pass)\s*=\s*)('[^']*'|"[^"]*"|[^;&]*)""")
# to the last '@', since a password may hold '@', '/', '?' or '#' that should have been quoted
_USER_INFO = re.compile(r"(?is)^(?!sqlite:///|dbi:)([a-z][a-z0-9+.-]*:/*)([^:]*):.*@")


class Target(NamedTuple):
    """What a URL or DSN points to.

    ``path`` is the SQLite file, "" for a temporary one that is removed at close. ``max_payload`` is
    in bytes. ``text`` is the URL as it may be shown, any password masked.
    """

    engine: str
    path: str
    synchronous: str
    max_payload: int
    text: str


def parse(url: str) -> Target:
    """The target of a database URL or a DBI DSN; ConfigurationError when it is unknown or broken."""
    if not isinstance(url, str):
        raise ConfigurationError(f"a database URL is a str, not {type(url).__name__}")
    if "\x00" in url:
        raise ConfigurationError("a database URL cannot hold U+0000")
    dsn = _DBI.fullmatch(url)
    return _parse_dsn(url, dsn["driver"], dsn["rest"]) if dsn else _parse_url(url)


def mask(url: str) -> str:
    """``url`` with its password, if any, replaced by ``***``."""
    return _USER_INFO.sub(r"\1\2:***@", _SECRET.sub(r"\1***", url))


def _parse_url(url: str) -> Target:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{mask(url)}: not a database URL ({error})") from None
    scheme = parts.scheme.partition("+")[0].lower()
    if scheme in _SERVERS:
        raise _not_yet(url, _SERVERS[scheme])
    if scheme != "sqlite":
        raise ConfigurationError(
            f"{mask(url)}: not a database URL; sqlite:///file.sqlite is one, as is dbi:SQLite:dbname=file.sqlite"
        )
    # urlsplit drops an empty fragment and misreads '#' in a file name; a SQLite URL has no fragment
    rest = url.partition(":")[2].partition("?")[0]
    if not rest.startswith("///") or rest == "///":
        raise ConfigurationError(f"{mask(url)}: a SQLite URL has three slashes and a file, four for an absolute path")
    path = unquote(rest[3:])
    options = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    return _sqlite(url, path, options)


def _parse_dsn(url: str, driver: str, rest: str) -> Target:
    if driver.lower() in _SERVERS:
        raise _not_yet(url, _SERVERS[driver.lower()])
    if driver.lower() != "sqlite":
        raise ConfigurationError(f"{mask(url)}: the DBI driver {driver!r} is unknown; SQLite is known")
    attributes: dict[str, str] = {}
    for part in filter(None, rest.split(";")):
        name, equals, value = part.partition("=")
        attributes[name.strip().lower() if equals else "dbname"] = value if equals else part
    names = [name for name in ("dbname", "database", "db") if name in attributes]
    if len(names) != 1 or not attributes[names[0]]:
        raise ConfigurationError(f"{mask(url)}: a DBI DSN for SQLite names one file, as in dbi:SQLite:dbname=FILE")
    path = attributes.pop(names[0])
    return _sqlite(url, path, attributes)


def _sqlite(url: str, path: str, options: dict[str, str]) -> Target:
    shown = mask(url)
    unknown = sorted(set(options) - {"synchronous", "max_payload"})
    if unknown:
        raise ConfigurationError(f"{shown}: unknown option {unknown[0]!r}; known are synchronous and max_payload")
    synchronous = options.get("synchronous", "FULL").upper()
    if synchronous not in _SYNCHRONOUS:
        raise ConfigurationError(f"{shown}: synchronous is one of {', '.join(_SYNCHRONOUS)}, not {synchronous!r}")
    digits = options.get("max_payload", str(MAX_BYTES))
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits[:12]) <= 2**30):
        raise ConfigurationError(f"{shown}: max_payload is a number of bytes from 1 to {2**30}, not {digits!r}")
    if not path or "\x00" in path:
        raise ConfigurationError(f"{shown}: no file name")
    return Target("sqlite", "" if path == ":memory:" else path, synchronous, int(digits), shown)


def _not_yet(url: str, name: str) -> ConfigurationError:
    return ConfigurationError(f"{mask(url)}: this version of dbtaskqueue speaks SQLite only, not yet {name}")

"""The URL of a database of Django's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import BaseDatabaseWrapper

_OF_DJANGO = {
    *("assume_role", "isolation_level", "pool", "server_side_binding"),
    *("service", "context", "cursor_factory", "prepare_threshold"),
}
"""Options of Django's PostgreSQL backend that libpq does not know, or that replace the name of the database."""
_TLS = {"ca": "ssl_ca", "cert": "ssl_cert", "key": "ssl_key"}


def url_of(connection: BaseDatabaseWrapper) -> str:
    """Return the URL of one of Django's databases. Raises ImproperlyConfigured if dbtaskqueue has no such engine."""
    build = _URLS.get(connection.vendor)
    if build is None:
        raise ImproperlyConfigured(
            f"dbtaskqueue cannot use the database {connection.alias!r}: its engine is {connection.vendor}; SQLite,"
            " PostgreSQL and MariaDB can be used, or give the backend a url in OPTIONS"
        )
    return build(connection.settings_dict)


def is_sqlite(connection: BaseDatabaseWrapper) -> bool:
    """Return whether one of Django's databases is a SQLite file, or is in memory."""
    return _URLS.get(connection.vendor) is _sqlite


def schema_of(connection: BaseDatabaseWrapper) -> str | None:
    """Return the name of the schema that has the tables of the queue; None if they are beside those of Django."""
    return "dbtaskqueue" if _URLS.get(connection.vendor) is _postgresql else None


def is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    """Return whether it is a SQLite database in memory, as in most test runs. Then our tasks are in a file."""
    return is_sqlite(connection) and connection.is_in_memory_db()


def _sqlite(settings: Mapping[str, Any]) -> str:
    name = str(settings["NAME"])
    if name == ":memory:" or "mode=memory" in name:
        return "sqlite:///:memory:"
    return f"sqlite:///{quote(name)}"


def _postgresql(settings: Mapping[str, Any]) -> str:
    options = {name: str(value) for name, value in settings.get("OPTIONS", {}).items() if name not in _OF_DJANGO}
    return _server("postgresql", settings, options)


def _mariadb(settings: Mapping[str, Any]) -> str:
    given = settings.get("OPTIONS", {})
    options = {_TLS[name]: str(value) for name, value in given.get("ssl", {}).items() if name in _TLS}
    host = settings.get("HOST") or ""
    if host.startswith("/"):
        return _server("mariadb", {**settings, "HOST": "", "PORT": ""}, {**options, "unix_socket": host})
    if "unix_socket" in given:
        options["unix_socket"] = given["unix_socket"]
    return _server("mariadb", settings, options)


def _server(scheme: str, settings: Mapping[str, Any], options: Mapping[str, str]) -> str:
    user, password, host, port = (str(settings.get(name) or "") for name in ("USER", "PASSWORD", "HOST", "PORT"))
    if not settings.get("NAME"):
        raise ImproperlyConfigured("dbtaskqueue needs the NAME of the database, or a url in OPTIONS of the backend")
    names = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else f"{quote(user, safe='')}@"
    hosts = host.split(",") if host else [""] if port else []
    ports = port.split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(
        f"{quote(name or 'localhost', safe=':[]')}{f':{number}' if number else ''}"
        for name, number in zip(hosts, ports, strict=False)
    )
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{names if user or password else ''}{places}/{quote(str(settings['NAME']), safe='')}{query}"


_URLS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mariadb,
}

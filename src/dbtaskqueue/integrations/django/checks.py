"""System checks: what cannot work, or works otherwise than expected, before the first task is enqueued.

``check_backend`` is what ``DatabaseBackend.check`` returns, since Django runs the checks of an app only if it is
installed. The app itself registers ``check_sqlite_files``, which has only warnings: Django's own tests expect of a
backend that the default settings have no messages.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 (Django's name)
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.tasks import task_backends

from dbtaskqueue import ConfigurationError
from dbtaskqueue._executors.lookup import place_of
from dbtaskqueue._formats.url import parse

from .database import is_sqlite, url_of

if TYPE_CHECKING:
    from .backend import DatabaseBackend

APP = "dbtaskqueue.integrations.django"
_ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB"}
"""The names of engines that the queue supports, by Django's word for them."""


def check_backend(backend: DatabaseBackend) -> list[CheckMessage]:
    """Return what is wrong with a backend. Nothing is read from a database."""
    where = f"TASKS[{backend.alias!r}]"
    found: list[CheckMessage] = []
    if not apps.is_installed(APP):
        hint = f"Add {APP!r} to INSTALLED_APPS, and run manage.py migrate."
        found.append(
            Error(f"{where} uses dbtaskqueue, but its app is not installed.", hint=hint, id="dbtaskqueue.E001")
        )
    found += _check_modules(backend.modules, where)
    if "url" in backend.options:
        return found + _check_url(backend.options["url"], where)
    return found + _check_database(backend.options.get("database", "default"), where)


def _check_modules(modules: Sequence[str], where: str) -> Iterator[CheckMessage]:
    """Import the modules as a worker does: each has to say itself what is wrong with it."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            why = f"{type(error).__name__}: {error}{place_of(error)}"
            what = f"{where}: OPTIONS['modules'] has {name!r}, which cannot be imported: {why}"
            yield Error(what, id="dbtaskqueue.E004")


def _check_url(url: Any, where: str) -> list[CheckMessage]:
    try:
        parse(url)
    except ConfigurationError as error:
        return [Error(f"{where}: {error}", id="dbtaskqueue.E002")]
    return []


def _check_database(alias: Any, where: str) -> list[CheckMessage]:
    if alias not in settings.DATABASES:
        known = ", ".join(sorted(settings.DATABASES))
        return [
            Error(
                f"{where} names the database {alias!r}, which is not in DATABASES.",
                hint=f"There are: {known}. Or set OPTIONS['url'].",
                id="dbtaskqueue.E002",
            )
        ]
    try:
        connection: Any = connections[alias]
    except ImproperlyConfigured as error:
        return [Error(f"{where}: the database {alias!r} cannot be used: {error}", id="dbtaskqueue.E002")]
    place = f"DATABASES[{alias!r}]"
    if connection.vendor not in _ENGINES:
        return [
            Error(
                f"{where}: a queue cannot be stored in {connection.display_name}, the engine of {place}.",
                hint=f"Use {', '.join(_ENGINES.values())}, or set OPTIONS['url'] to another database.",
                id="dbtaskqueue.E002",
            )
        ]
    try:
        parse(url_of(connection))
    except (ConfigurationError, ImproperlyConfigured) as error:
        return [Error(f"{where}: {place} cannot be used: {error}", id="dbtaskqueue.E002")]
    check = _CHECKS.get(connection.vendor)
    return [] if check is None else check(connection, place)


def check_sqlite_files(app_configs: object = None, **kwargs: object) -> list[CheckMessage]:
    """Return warnings about the SQLite databases of all backends."""
    from .backend import DatabaseBackend

    backends = [backend for backend in task_backends.all() if isinstance(backend, DatabaseBackend)]
    aliases = {alias for backend in backends if (alias := backend.database) is not None and alias in settings.DATABASES}
    return [message for alias in sorted(aliases) for message in _warnings(connections[alias])]


def _warnings(connection: Any) -> list[CheckMessage]:
    place = f"DATABASES[{connection.alias!r}]"
    if not is_sqlite(connection):
        return []
    if connection.is_in_memory_db():
        return [
            Warning(
                f"{place} is in memory. The queue uses a temporary file instead, and tasks are not part of your"
                " transactions.",
                hint=f"Set {place}['TEST'] = {{'NAME': 'test.sqlite'}}, or use the ImmediateBackend in tests.",
                id="dbtaskqueue.W002",
            )
        ]
    mode = connection.settings_dict["OPTIONS"].get("transaction_mode") or "DEFERRED"
    if mode.upper() == "DEFERRED":
        return [
            Warning(
                f"Transactions of {place} start as DEFERRED. One that has read cannot enqueue if another program has"
                " written since.",
                hint=f"Set {place}['OPTIONS'] = {{'transaction_mode': 'IMMEDIATE'}}.",
                id="dbtaskqueue.W001",
            )
        ]
    return []


def _check_postgresql(connection: Any, place: str) -> list[CheckMessage]:
    if connection.Database.__name__ == "psycopg":
        return []
    return [
        Error(
            f"{place} uses psycopg2. A transaction that enqueues tasks needs psycopg.",
            hint="pip install 'psycopg[binary]'. Django uses it if both are installed.",
            id="dbtaskqueue.E003",
        )
    ]


def _check_mysql(connection: Any, place: str) -> list[CheckMessage]:
    if _is_pymysql(connection.Database):
        return []
    return [
        Error(
            f"{place} uses mysqlclient. A transaction that enqueues tasks needs PyMySQL.",
            hint="pip install pymysql, and add to the settings: import pymysql; pymysql.install_as_MySQLdb()",
            id="dbtaskqueue.E003",
        )
    ]


def _is_pymysql(driver: Any) -> bool:
    try:
        pymysql = importlib.import_module("pymysql")
    except ImportError:
        return False
    return driver is pymysql


_CHECKS = {"postgresql": _check_postgresql, "mysql": _check_mysql}

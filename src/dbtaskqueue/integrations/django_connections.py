"""Tasks in the transaction of a Django connection: ``enqueue(connection=connections["default"])``.

Inside ``atomic()``, a task is part of the transaction, and of the savepoint. Nothing needs to be imported from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._store.borrowed import ForeignError, OnLoop, call_directly
from .._store.borrowed import lend as lend_driver
from ..errors import ConfigurationError
from . import missing

try:
    from django.db import Error, connections
    from django.db.backends.base.base import BaseDatabaseWrapper
except ImportError as error:
    raise missing("django", error) from None

T = TypeVar("T")


def current(connection: Any) -> object:
    """Return the connection of this thread that ``django.db.connection`` stands for; another object as it is."""
    return connection if isinstance(connection, BaseDatabaseWrapper) else connections[connection.alias]


def lend(connection: Any, loop: OnLoop | None, work: Callable[[Any], T]) -> T:
    """Call ``work`` with the driver's connection, inside ``atomic()``."""
    return call_directly(connection, loop, lambda given: _lend(current(given), work))


def _lend(connection: Any, work: Callable[[Any], T]) -> T:
    connection.validate_thread_sharing()
    try:
        connection.ensure_connection()
    except Error as error:
        raise ForeignError(error.__cause__ or error) from error
    if not connection.in_atomic_block and connection.get_autocommit():
        raise ConfigurationError(
            f"connection: Django's connection {connection.alias!r} is in autocommit; enqueue inside"
            f" transaction.atomic(using={connection.alias!r})"
        )
    if connection.in_atomic_block:
        connection.validate_no_broken_transaction()
    return lend_driver(connection.connection, work)

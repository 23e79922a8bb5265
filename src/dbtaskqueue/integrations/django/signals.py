"""What happens after ``migrate`` and ``flush``, which both send ``post_migrate``."""

from __future__ import annotations

import contextlib
from typing import Any

from django.db import connections
from django.tasks import task_backends

from ... import SchemaError, TaskQueue
from ...states import FINAL
from .backend import DatabaseBackend
from .database import is_sqlite


def heed_migration(using: str, plan: object = None, **kwargs: Any) -> None:
    """After ``migrate``, open a queue in an SQLite file. After ``flush``, which passes no ``plan``, empty the queues.

    Opening a queue switches its file to the write-ahead log. That must not wait until the first ``enqueue``, which
    may be in a transaction of Django's that keeps the file locked. Tests that commit are followed by a flush, which
    empties only tables of managed models.
    """
    for backend in task_backends.all():
        if isinstance(backend, DatabaseBackend) and backend.database == using:
            with contextlib.suppress(SchemaError):  # a router does not allow our tables in this database
                if plan is None:
                    empty(backend.queue)
                    backend.queue.store.disconnect()  # Django removes the file of a test database without its -wal
                elif is_sqlite(connections[using]):
                    backend.queue  # noqa: B018 (the first use opens it)


def empty(queue: TaskQueue) -> None:
    """Delete all tasks of all queues of the database, except those that a worker holds."""
    for info in queue.queues():
        lane = queue.lane(info.name)
        lane.purge()
        lane.prune(0, states=FINAL)

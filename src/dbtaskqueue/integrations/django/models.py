"""Models of the queue's tables, for lists in the admin. They are unmanaged, and nothing is written through them.

They have only the columns that a list filters and sorts by. Everything else comes from the queue itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connections, models
from django.db.migrations.operations import CreateModel
from django.db.migrations.state import ModelState
from django.utils.module_loading import import_string

from dbtaskqueue import TaskState

from .backend import DatabaseBackend
from .database import schema_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def database() -> str | None:
    """Return the alias of the database whose tasks the admin shows.

    It is that of the backend ``default``, or else that of the first backend with a database of ``DATABASES``. None: all
    of them have a URL, or none is ours.
    """
    found = shown_backend()
    return None if found is None else found[1]


def shown_backend() -> tuple[str, str] | None:
    """Return the aliases of the backend that the admin shows, and of its database, or None."""
    tasks: dict[str, Any] = settings.TASKS
    for alias in sorted(tasks, key=lambda alias: alias != "default"):
        options = tasks[alias].get("OPTIONS", {})
        name = options.get("database", "default")
        if "url" not in options and name in settings.DATABASES and _is_ours(tasks[alias].get("BACKEND", "")):
            return alias, name
    return None


def _is_ours(path: str) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django reports it
    return isinstance(found, type) and issubclass(found, DatabaseBackend)


def table(name: str) -> str:
    """Return the name of a table as Django quotes it. On PostgreSQL, the tables have a schema of their own."""
    alias = database()
    if alias is not None and schema_of(connections[alias]):
        return f'"{schema_of(connections[alias])}"."{name}"'
    return name


class MomentField(models.Field):
    """An aware datetime, stored as microseconds since 1970."""

    def get_internal_type(self) -> str:
        """See Django."""
        return "BigIntegerField"

    def from_db_value(self, value: int | None, expression: object, connection: object) -> datetime | None:
        """See Django."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)

    def get_prep_value(self, value: Any) -> Any:
        """See Django."""
        value = super().get_prep_value(value)
        return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


class Task(models.Model):
    """A row of ``dbtaskqueue_task``."""

    id = models.BigIntegerField(primary_key=True)
    queue = models.CharField(max_length=128)
    state = models.CharField(max_length=9, choices=[(str(state), str(state)) for state in TaskState])
    function = models.CharField(max_length=500, null=True)
    key = models.CharField(max_length=255, null=True)
    created_at = MomentField("enqueued")
    started_at = MomentField("started", null=True)
    finished_at = MomentField("finished", null=True)

    class Meta:
        managed = False
        app_label = "dbtaskqueue"
        db_table = table("dbtaskqueue_task")
        ordering = ("-id",)
        default_permissions = ("view",)
        permissions = (("retry_task", "Can retry task"), ("cancel_task", "Can cancel task"))

    def __str__(self) -> str:
        return f"{self.function or 'task'} #{self.pk}"


class Worker(models.Model):
    """A row of ``dbtaskqueue_worker``."""

    id = models.BigIntegerField(primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.BigIntegerField()
    executor = models.CharField(max_length=20, null=True)
    created_at = MomentField("started")

    class Meta:
        managed = False
        app_label = "dbtaskqueue"
        db_table = table("dbtaskqueue_worker")
        ordering = ("-id",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"worker {self.pk}, process {self.pid} on {self.host}"


def creations() -> list[CreateModel]:
    """Return the operations of a migration that make these models known, as they are now.

    They create no table. Without them, ``makemigrations`` would add a migration to this app.
    """
    states = [ModelState.from_model(model) for model in (Task, Worker)]
    return [CreateModel(state.name, list(state.fields.items()), state.options, state.bases) for state in states]

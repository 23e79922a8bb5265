"""The operation of the app's migrations, which upgrades the schema of the queue."""

from __future__ import annotations

import contextlib
from typing import Any

from django.db import router, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.utils import DatabaseError

from ..._store import open_store
from .database import url_of


class UpgradeSchema(Operation):
    """Upgrade the schema of the queue to at least ``version``. It cannot be reversed.

    ``since``: the version of the migration before.

    The statements run on Django's connection, so that ``sqlmigrate`` shows them and test databases get the tables.
    """

    reversible = False
    reduces_to_sql = True

    def __init__(self, version: int, since: int) -> None:
        self.version = version
        self.since = since

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Run the statements that are missing, in the migration's transaction if the database has such."""
        if not router.allow_migrate(schema_editor.connection.alias, app_label):
            return
        connection = schema_editor.connection
        shows = schema_editor.collect_sql  # for sqlmigrate, whatever the database has
        statements = missing_statements(connection, self.since if shows else None)
        is_one = connection.features.can_rollback_ddl and not shows
        with transaction.atomic(using=connection.alias) if is_one else contextlib.nullcontext():
            for statement in statements:
                schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Never called: the operation is not reversible."""
        raise DatabaseError("the schema of dbtaskqueue cannot be downgraded")

    def describe(self) -> str:
        """Return what ``migrate --plan`` shows."""
        return f"Upgrade the schema of dbtaskqueue to version {self.version}"


def missing_statements(connection: Any, since: int | None) -> list[str]:
    """Return the statements that lead from the schema of one of Django's databases to this program's.

    ``since``: the version from which they lead, in place of that of the database.
    """
    store = open_store(url_of(connection))
    try:
        return store.missing_statements(since)
    finally:
        store.close()

"""The schema and the connections of a SQL database."""

from __future__ import annotations

import abc
import shlex

from ...errors import SchemaError
from ..contract import Database, Finding
from .base import SqlFacet

IMPORTING = 2_000_000_000
"""Stored as "oldest" during an import: no program knows this version, so none may use the database."""


class SqlDatabase(SqlFacet, Database):
    """See Database. Each engine reads the versions and runs the migrations in its own way."""

    schema_version = 5
    """The version of the schema that this program creates and knows."""
    oldest = 4
    """Programs that know at least this version of the schema may use a schema that this program has created."""

    @abc.abstractmethod
    def _versions(self) -> tuple[int, int]:
        """Return the schema's version, and the oldest version whose programs may use it; zeros without a schema."""

    @abc.abstractmethod
    def upgrade(self, version: int) -> list[str]:
        """Return the statements that lead from that version of the schema, 0 for none, to this program's."""

    def missing_statements(self, since: int | None = None) -> list[str]:
        return self.upgrade(self._versions()[0] if since is None else since)

    def disconnect(self) -> None:
        self._connections.disconnect()

    def close(self) -> None:
        self.wakeups.close()  # type: ignore[attr-defined]
        self._connections.close()

    def _check_schema(self, name: str) -> None:
        version, oldest = self._versions()
        if version < self.schema_version:
            what, verb = "no dbtaskqueue schema", "create"
            if version:
                what, verb = f"schema version {version}, this program needs {self.schema_version}", "upgrade"
            problem = f"{name} has {what}"
            raise SchemaError(f"{problem}; {verb} it with: {self._migrate_command}", problem)
        if oldest == IMPORTING:
            raise SchemaError(f"{name} is being filled by: dbtaskqueue copy; if that was interrupted, run it again")
        if oldest > self.schema_version:
            raise self._too_new(name, version, oldest)

    def _may_not_create(self, name: str, account: str, grant: str) -> SchemaError:
        return SchemaError(
            f"{name}: {account} may not create the schema; let an administrator run: {grant};"
            f" or run what this prints: {self._migrate_command} --sql"
        )

    @property
    def _migrate_command(self) -> str:
        return shlex.join(["dbtaskqueue", "--url", self._target.text, "migrate"])

    def _too_new(self, name: str, version: int, oldest: int) -> SchemaError:
        return SchemaError(
            f"{name} has schema version {version}, which needs a program that knows version {oldest};"
            f" this one knows {self.schema_version}: upgrade it with: pip install --upgrade dbtaskqueue"
        )

    def _schema_finding(self) -> Finding:
        version, oldest = self._versions()
        return Finding("schema", f"version {version}, for programs that know {oldest} or later")

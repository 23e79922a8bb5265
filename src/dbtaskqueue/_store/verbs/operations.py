"""What operators do with single tasks and with many, and the audit log of it, on a SQL database."""

from __future__ import annotations

from ..contract import Operations
from .tasks import SqlTasks


class SqlOperations(SqlTasks, Operations):
    """See Operations."""

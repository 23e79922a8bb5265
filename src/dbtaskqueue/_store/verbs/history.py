"""What attempts did and how queues were, by time, and retention, on a SQL database."""

from __future__ import annotations

from ..contract import History
from .tasks import SqlTasks


class SqlHistory(SqlTasks, History):
    """See History."""

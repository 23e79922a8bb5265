"""Finding tasks by filters, on a SQL database."""

from __future__ import annotations

from ..contract import Search
from .base import SqlFacet


class SqlSearch(SqlFacet, Search):
    """See Search."""

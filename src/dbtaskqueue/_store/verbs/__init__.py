"""The verbs of the contract on a SQL database, a module for each facet: which queries, in which order.

``sql/FACET.sql`` has the queries of a facet. An engine adds what it does in its own way: how tasks get their ids, how a
claim finds and takes its tasks, how the ends of a batch are stored together, and how waiting workers are woken.
"""

from __future__ import annotations

from ..contract import Store
from .claims import SqlClaims
from .copying import SqlCopying
from .history import SqlHistory
from .listing import SqlListing
from .operations import SqlOperations
from .queues import SqlQueues
from .schedules import SqlSchedules
from .search import SqlSearch
from .workers import SqlWorkers


class SqlStore(
    SqlCopying,
    SqlOperations,
    SqlHistory,
    SqlSchedules,
    SqlClaims,
    SqlWorkers,
    SqlQueues,
    SqlListing,
    SqlSearch,
    Store,
):
    """A store on a SQL database."""

    def address(self, url: str) -> str:
        """Return the URL by which another process reaches what this one reaches by ``url``."""
        return url

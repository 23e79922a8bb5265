"""Finding tasks by filters: ``TaskQueue.find``, and what the command line and others search with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ._formats.filters import Filters, check_sort, parse
from ._store.contract import SearchRequest, Store
from ._system import clock
from .checks import MOST, is_count, shown
from .overdue import overdue_ids
from .task import Task

Arguments = Mapping[str, Sequence[str]]
"""The names of the positional arguments of task functions, by the functions' names."""


class Found(NamedTuple):
    """Tasks that match, and how far the search has come.

    ``next``: the ``cursor`` with which the search continues; None exactly if it is ``complete``. ``scanned``: how many
    tasks this call has looked at. ``back_to``: the lowest id of those, or None if there were none. A search that no
    index serves looks at 20,000 tasks, or for 150 ms. So ``tasks`` may be empty although more tasks match.
    """

    tasks: list[Task]
    next: str | None
    scanned: int
    back_to: int | None
    complete: bool


def find_tasks(
    store: Store,
    filters: Filters,
    *,
    sort: str = "newest",
    limit: int = 100,
    cursor: str | None = None,
    arguments: Arguments | None = None,
) -> Found:
    """Return the next tasks of any queue that match: see ``TaskQueue.find``."""
    page = store.search(request_for(store, filters, sort=sort, limit=limit, cursor=cursor, arguments=arguments))
    tasks = [Task(store, record) for record in page.tasks]
    return Found(tasks, page.next, page.scanned, page.back_to, page.next is None)


def request_for(
    store: Store,
    filters: Filters,
    *,
    sort: str = "newest",
    limit: int = 100,
    cursor: str | None = None,
    highest: int | None = None,
    arguments: Arguments | None = None,
) -> SearchRequest:
    """Return the request to the store for a search, checked. It has the ids of overdue tasks if a filter needs them."""
    if not is_count(limit):
        raise ValueError(f"limit must be a whole number of at least 1, not {shown(limit)}")
    is_overdue = filters.flag("overdue")
    overdue = [] if is_overdue is None else overdue_ids(store, filters.texts("queue") or None)
    return SearchRequest(
        filters,
        check_sort(sort),
        min(limit, MOST),
        cursor,
        highest,
        overdue if is_overdue else None,
        overdue if is_overdue is False else (),
        arguments or {},
    )


def check_filters(given: Mapping[str, Any], queue: str, *, all_queues: bool = False) -> Filters:
    """Return filters as users pass them, checked, with relative times fixed now. Raises ValueError.

    They mean ``queue`` unless they name one, or ``all_queues``.
    """
    filters = parse(given, clock.now())
    return filters if all_queues else filters.with_queues(queue)

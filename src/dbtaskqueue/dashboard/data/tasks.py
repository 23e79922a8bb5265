"""Lists of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..._formats import words
from ..._formats.filters import SORTS, Filters, SortName, parse
from ..._store.contract import TaskRecord
from ..._system import clock
from ...finding import request_for
from ...queue import TaskQueue
from ..words import error_line
from .sources import Sources

LIMITS = (50, 100, 200)
TABS: tuple[tuple[str, dict[str, object]], ...] = (
    ("All", {}),
    ("Running", {"state": "running", "sort": "longest"}),
    ("Waiting", {"state": "pending"}),
    ("Blocked", {"blocked": "true"}),
    ("Failed", {"state": "failed"}),
    ("Abandoned", {"state": "abandoned"}),
    ("Done", {"state": "done"}),
    ("Cancelled", {"state": "cancelled"}),
)
"""Searches that one often wants."""


class Row(NamedTuple):
    """A task in a list."""

    id: int
    queue: str
    state: str
    function: str | None
    what: str
    error: str
    attempt: int
    max_attempts: int | None
    blocked: bool
    suspended: bool
    created_at: int
    started_at: int | None
    finished_at: int | None
    due: int
    is_due_later: bool


class Chip(NamedTuple):
    """One value of a filter. ``rest``: the pairs of the query without it."""

    name: str
    value: str
    rest: list[tuple[str, str]]


class Page(NamedTuple):
    """Tasks that match, and how far the search has come: see ``Found``."""

    tasks: list[Row]
    next: str | None
    scanned: int
    back_to: int | None


class Search(NamedTuple):
    """What a URL asks for."""

    filters: Filters
    pairs: list[tuple[str, str]]
    sort: SortName
    limit: int
    cursor: str | None

    @property
    def words(self) -> str:
        """The filters as the search box has them."""
        return words.to_words(self.filters)

    def chips(self) -> list[Chip]:
        """Return the values of the filters, each to be taken away."""
        return [Chip(name, value, [pair for pair in self.pairs if pair != (name, value)]) for name, value in self.pairs]

    def value(self, name: str) -> str:
        """Return the value of a filter for a field of the form."""
        return next((value for each, value in self.pairs if each == name), "")

    def values(self, name: str) -> list[str]:
        """Return the values of a filter."""
        return [value for each, value in self.pairs if each == name]

    def tab(self) -> str:
        """Return the name of the tab that asks for the same."""
        wanted = sorted(self.pairs)
        for name, query in TABS:
            if sorted((key, str(value)) for key, value in query.items() if key != "sort") == wanted:
                return name
        return ""


def search_of(pairs: Sequence[tuple[str, str]], sort: str, limit: int, cursor: str | None) -> Search:
    """Return what a query string asks for. Raises ValueError that names the filter."""
    filters = parse(words.from_pairs(pairs), clock.now())
    found = next(each for each in SORTS if each == sort)
    return Search(filters, filters.pairs(), found, limit, cursor)


def read(sources: Sources, queue: TaskQueue, search: Search) -> Page:
    """Read a page of a list."""
    filters = parse(words.from_pairs(search.pairs), clock.now())  # relative times move on
    request = request_for(queue.store, filters, sort=search.sort, limit=search.limit, cursor=search.cursor)
    found = queue.store.search(request)
    return Page([row(sources, record) for record in found.tasks], found.next, found.scanned, found.back_to)


def row(sources: Sources, record: TaskRecord) -> Row:
    """Return a task as a list shows it."""
    return Row(
        record.id,
        record.queue,
        record.state,
        record.function,
        sources.what(record),
        error_line(record.error) if record.error and record.state != "done" else "",
        record.attempt,
        record.max_attempts,
        bool(record.blocked) and record.finished_at is None,
        bool(record.suspended),
        record.created_at,
        record.started_at,
        record.finished_at,
        record.due,
        record.due > clock.now(),
    )

"""Finding tasks by filters, on a SQL database.

A search looks at candidates in the order of its sort, in steps. Each step reads one snapshot: the candidates come from
an index, and the conditions are tested on these rows only. It ends when it has found enough, or has used up its bounds,
and says where to continue. So no filter reads more than the bounds allow, whatever the database holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from ..._formats.filters import HIGHEST
from ..candidates import Candidates, Position, Step, candidates_for, needs_all_queues, parse_cursor, to_cursor
from ..conditions import Tested, has_paths, to_tested
from ..connections import Connections, Transaction
from ..contract import Queues, Search, SearchPage, SearchRequest, TaskRecord
from .base import CHUNK, SqlFacet, records

_FIRST_STEP = 128
"""Rows of the first step, which is enough for a page if most of them match. Later steps grow."""
_GROWTH = 4
_SECONDS_AGAIN = 1.0
"""How long a search may look at a window again. If the machine is too busy for it, a task may come twice."""


class SqlSearch(SqlFacet, Queues, Search):
    """See Search."""

    def search(self, request: SearchRequest) -> SearchPage:
        return self._search(request, with_tasks=True)

    def search_ids(self, request: SearchRequest) -> SearchPage:
        return self._search(request, with_tasks=False)

    def newest(self) -> tuple[int, int] | None:
        rows = self._connections.query("newest")
        return (rows[0][0], rows[0][1]) if rows else None

    def _search(self, request: SearchRequest, *, with_tasks: bool) -> SearchPage:
        queues = self.queues() if needs_all_queues(request) else request.filters.texts("queue")
        kind = _EndedSearch if request.sort == "ended" else _Search
        return kind(self._connections, request, queues).page(with_tasks=with_tasks)


class _Search:
    """One call of a search."""

    def __init__(
        self,
        connections: Connections,
        request: SearchRequest,
        queues: Sequence[str],
        floor: int | None = None,
        *,
        has_ended: bool = False,
    ) -> None:
        self._connections = connections
        self._request = request
        self._queues = queues
        self._floor = floor
        self._tested = to_tested(request.filters, request.arguments, has_ended=has_ended)
        self._without = frozenset(request.without)
        self._deadline: float | None = None
        self._size = max(_FIRST_STEP, min(request.limit, CHUNK))
        self._candidates: Candidates | None = None
        self._ids: list[int] = []
        self._tasks: list[TaskRecord] = []
        self._scanned = 0
        self._back_to: int | None = None
        self._is_complete = False

    def page(self, *, with_tasks: bool) -> SearchPage:
        """Search until there is enough, or the bounds are used up."""
        position = parse_cursor(self._request.sort, self._request.cursor)
        while True:
            position = self._connections.read(partial(self._look, position, with_tasks))
            if self._is_complete or self._has_enough():
                break
        following = None if self._is_complete else to_cursor(self._request.sort, position)
        return SearchPage(self._ids, self._tasks, following, self._scanned, self._back_to)

    def _has_enough(self) -> bool:
        request = self._request
        is_full = len(self._ids) >= request.limit or self._scanned >= request.rows
        return is_full or self._seconds_left() <= 0

    def _seconds_left(self) -> float:
        if self._deadline is None:  # from the first look: connecting does not count
            self._deadline = time.monotonic() + self._request.seconds
        return self._deadline - time.monotonic()

    def _look(self, position: Position | None, with_tasks: bool, tx: Transaction) -> Position | None:
        """Look at the next step; return the position of its last candidate."""
        started = self._seconds_left()
        if self._candidates is None:
            self._candidates = candidates_for(tx, self._request, self._queues, self._floor)
        size = max(1, min(self._size, self._request.rows - self._scanned))
        step = self._candidates.step(tx, position, size)
        found = self._matches(tx, step)
        step = self._cut(tx, step, found)
        ids = found[: self._request.limit - len(self._ids)]
        self._ids += ids
        if with_tasks:
            self._tasks += _records(ids, tx)
        self._scanned += step.scanned
        if step.lowest is not None:
            self._back_to = step.lowest if self._back_to is None else min(self._back_to, step.lowest)
        self._is_complete = step.is_last
        self._grow(step.scanned, started - self._seconds_left())
        return step.last or position

    def _cut(self, tx: Transaction, step: Step, found: list[int]) -> Step:
        """Return the part of a step up to the last task that the page has room for."""
        room = self._request.limit - len(self._ids)
        assert self._candidates is not None
        return step if len(found) < room else self._candidates.up_to(tx, step, found[room - 1])

    def _matches(self, tx: Transaction, step: Step) -> list[int]:
        """Return the candidates of a step that match, in the step's order."""
        found = _matches(tx, self._tested, step, self._request.limit - len(self._ids) + len(self._without))
        return [id for id in found if id not in self._without]

    def _grow(self, rows: int, seconds: float) -> None:
        """Choose the size of the next step: at most a third of the remaining time."""
        left = max(0.0, self._seconds_left())
        possible = int(rows / seconds * left / 3) if seconds > 0 else self._size * _GROWTH
        self._size = max(64, min(self._size * _GROWTH, possible))


class _EndedSearch(_Search):
    """A search whose tasks are sorted by their ends, the latest first.

    No index has that order. So the search looks at a window of ids, sorts what matches there, and returns it page by
    page. The cursor names the window, which each page looks at again.
    """

    def page(self, *, with_tasks: bool) -> SearchPage:
        """Search one window of ids, and return the next tasks in it."""
        position = parse_cursor("ended", self._request.cursor) or (HIGHEST,)
        top, floor = position[0], position[1] if position[1:] else None
        request = self._request._replace(cursor=to_cursor("newest", (top,)), limit=10**9)
        if floor is not None:  # the page before came down to it within its bounds
            request = request._replace(rows=2 * request.rows, seconds=_SECONDS_AGAIN)
        window = _Window(self._connections, request, self._queues, floor)
        found = window.page(with_tasks=False)
        if found.next is not None:
            (floor,) = parse_cursor("newest", found.next) or (0,)
        ends = sorted(window.ends, reverse=True)
        if position[1:]:
            ends = [end for end in ends if end < position[2:]]
        some = ends[: self._request.limit]
        following = to_cursor("ended", (floor,)) if floor else None
        if len(ends) > len(some):
            following = to_cursor("ended", (top, floor or 0, *some[-1]))
        ids = [id for _, id in some]
        tasks = self._connections.read(partial(_records, ids)) if with_tasks else []
        return SearchPage(ids, tasks, following, found.scanned, found.back_to)


class _Window(_Search):
    """A search for the ends of tasks in a window of ids. ``ends``: the end and the id of each."""

    def __init__(
        self, connections: Connections, request: SearchRequest, queues: Sequence[str], floor: int | None
    ) -> None:
        super().__init__(connections, request._replace(sort="newest"), queues, floor, has_ended=True)
        self.ends: list[tuple[int, int]] = []

    def _matches(self, tx: Transaction, step: Step) -> list[int]:
        if self._tested.wanted:
            step = step._replace(ids=super()._matches(tx, step))
        if step.ids is not None and not step.ids:
            return []
        query = "ends_between" if step.ids is None else "ends_among"
        rows = tx.rows_where(query, self._tested.conditions, {**self._tested.values, **_place(tx, step)})
        found = [(end, id) for id, end in rows if id not in self._without]
        self.ends += found
        return [id for _, id in found]


def _matches(tx: Transaction, tested: Tested, step: Step, most: int) -> list[int]:
    """Return the candidates of a step that match, in the step's order; perhaps not more than the first ``most``."""
    if step.ids is not None and not step.ids:
        return []
    values = {**tested.values, **_place(tx, step), "limit": most}
    if tested.wanted:
        query = "payloads_between" if step.ids is None else "payloads_among"
        rows = tx.rows_where(query, tested.conditions, values)
        found = [id for id, *row in rows if has_paths(tested, *row)]
    else:
        query = "matches_between" if step.ids is None else "matches_among"
        found = [row[0] for row in tx.rows_where(query, tested.conditions, values)]
    if step.ids is None:
        return found
    matching = set(found)
    return [id for id in step.ids if id in matching]


def _place(tx: Transaction, step: Step) -> dict[str, object]:
    """Return the values that say which candidates a query tests."""
    return {"top": step.top, "floor": step.floor} if step.ids is None else {"ids": tx.array(step.ids)}


def _records(ids: Sequence[int], tx: Transaction) -> list[TaskRecord]:
    """Return tasks in the order of their ids, without those that no longer exist."""
    parts = [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
    found = {record.id: record for part in parts for record in records(tx, "tasks", {"ids": tx.array(part)})}
    return [found[id] for id in ids if id in found]

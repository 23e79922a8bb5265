"""Finding tasks by filters, on a SQL database.

A search looks at candidates in the order of its sort, in steps. Each step reads one snapshot: the candidates come from
an index, and the conditions are tested on these rows only. It ends when it has found enough, or has used up its bounds,
and says where to continue. So no filter reads more than the bounds allow, whatever the database holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..._formats.filters import HIGHEST
from ..candidates import Candidates, Position, Step, candidates_for, needs_all_queues, parse_cursor, to_cursor
from ..conditions import Tested, has_paths, tested
from ..connections import Connections, Transaction
from ..contract import Queues, Search, SearchPage, SearchRequest, TaskRecord
from .base import CHUNK, SqlFacet, records

_FIRST_STEP, _FIRST_HEAVY_STEP = 1024, 128
"""Rows of the first step; later ones grow up to a third of the remaining time."""
_GROWTH = 4


class SqlSearch(SqlFacet, Queues, Search):
    """See Search."""

    def search(self, request: SearchRequest) -> SearchPage:
        return self._search(request, with_tasks=True)

    def search_ids(self, request: SearchRequest) -> SearchPage:
        return self._search(request, with_tasks=False)

    def _search(self, request: SearchRequest, *, with_tasks: bool) -> SearchPage:
        queues = self.queues() if needs_all_queues(request) else request.filters.texts("queue")
        kind = _EndedSearch if request.sort == "ended" else _Search
        return kind(self._connections, request, queues).page(with_tasks=with_tasks)


class _Search:
    """One call of a search."""

    def __init__(
        self, connections: Connections, request: SearchRequest, queues: Sequence[str], floor: int | None = None
    ) -> None:
        self._connections = connections
        self._request = request
        self._queues = queues
        self._floor = floor
        self._tested = tested(request.filters, request.arguments)
        self._without = frozenset(request.without)
        self._deadline = time.monotonic() + request.seconds
        self._size = _FIRST_HEAVY_STEP if self._tested.is_heavy else _FIRST_STEP
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
        return is_full or time.monotonic() >= self._deadline

    def _look(self, position: Position | None, with_tasks: bool, tx: Transaction) -> Position | None:
        """Look at the next step; return the position of its last candidate."""
        if self._candidates is None:
            self._candidates = candidates_for(tx, self._request, self._queues, self._floor)
        started = time.monotonic()
        size = max(1, min(self._size, self._request.rows - self._scanned))
        step = self._candidates.step(tx, position, size)
        found = self._matches(tx, step)
        step = self._cut(tx, step, found)
        ids = found[: self._request.limit - len(self._ids)]
        self._ids += ids
        if with_tasks:
            by_id = {record.id: record for record in _records(tx, ids)}
            self._tasks += [by_id[id] for id in ids]
        self._scanned += step.scanned
        if step.lowest is not None:
            self._back_to = step.lowest if self._back_to is None else min(self._back_to, step.lowest)
        self._is_complete = step.is_last
        self._grow(step.scanned, time.monotonic() - started)
        return step.last or position

    def _cut(self, tx: Transaction, step: Step, found: list[int]) -> Step:
        """Return the part of a step up to the last task that the page has room for."""
        room = self._request.limit - len(self._ids)
        assert self._candidates is not None
        return step if len(found) < room else self._candidates.up_to(tx, step, found[room - 1])

    def _matches(self, tx: Transaction, step: Step) -> list[int]:
        """Return the candidates of a step that match, in the step's order."""
        found = matches(tx, self._tested, step, self._request.limit - len(self._ids) + len(self._without))
        return [id for id in found if id not in self._without]

    def _grow(self, rows: int, seconds: float) -> None:
        """Choose the size of the next step: at most a third of the remaining time."""
        left = max(0.0, self._deadline - time.monotonic())
        possible = int(rows / seconds * left / 3) if seconds > 0 else self._size * _GROWTH
        self._size = max(64, min(self._size * _GROWTH, possible))


class _EndedSearch(_Search):
    """A search whose tasks are sorted by their ends, the latest first.

    No index has that order. So the search looks at a window of ids, sorts what matches there, and returns it page by
    page. The cursor names the window, which each page looks at again.
    """

    def page(self, *, with_tasks: bool) -> SearchPage:
        """Search one window of ids, and return the next tasks in it."""
        request = self._request
        cursor = parse_cursor("ended", request.cursor)
        top, floor, *after = (*cursor, *(None,) * (4 - len(cursor))) if cursor else (None,) * 4
        inner = request._replace(sort="newest", cursor=None, limit=10**9)
        if top is not None:
            inner = inner._replace(cursor=to_cursor("newest", (top,)))
        if floor is not None:
            inner = inner._replace(rows=10**9, seconds=60.0)
        window = _Search(self._connections, inner, self._queues, floor).page(with_tasks=False)
        return self._sorted(window, top, floor, after, with_tasks=with_tasks)

    def _sorted(
        self, window: SearchPage, top: int | None, floor: int | None, after: list[Any], *, with_tasks: bool
    ) -> SearchPage:
        limit = self._request.limit
        following = window.next if floor is None else to_cursor("newest", (floor,))
        low = None if following is None else parse_cursor("newest", following)
        ends = self._connections.read(lambda tx: _ends(tx, window.ids))
        if after and after[0] is not None:
            ends = [each for each in ends if each < (after[0], after[1])]
        page, rest = ends[:limit], ends[limit:]
        ids = [id for _, id in page]
        tasks = self._connections.read(lambda tx: {each.id: each for each in _records(tx, ids)}) if with_tasks else {}
        cursor = None if low is None or low[0] <= 0 else to_cursor("ended", low)
        if rest:
            bottom = low[0] if low else 0
            cursor = to_cursor("ended", (HIGHEST if top is None else top, bottom, *page[-1]))
        return SearchPage(ids, [tasks[id] for id in ids if id in tasks], cursor, window.scanned, window.back_to)


def matches(tx: Transaction, tested: Tested, step: Step, most: int) -> list[int]:
    """Return the candidates of a step that match, in the step's order; perhaps not more than the first ``most``."""
    ids = step.ids
    if ids is not None and not ids:
        return []
    place = {"top": step.top, "floor": step.floor, "limit": most} if ids is None else {"ids": tx.array(ids)}
    where = "between" if ids is None else "among"
    values = {**tested.values, **place}
    if tested.paths:
        rows = tx.rows_where(f"payloads_{where}", tested.conditions, values)
        found = [id for id, *row in rows if has_paths(tested, *row)]
    else:
        found = [row[0] for row in tx.rows_where(f"matches_{where}", tested.conditions, values)]
    if ids is None:
        return found
    matching = set(found)
    return [id for id in ids if id in matching]


def _ends(tx: Transaction, ids: list[int]) -> list[tuple[int, int]]:
    """Return the end and the id of tasks that have ended, the latest first."""
    parts = [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
    rows = [row for part in parts for row in tx.rows("ends_among", {"ids": tx.array(part)})]
    return sorted(((end, id) for id, end in rows if end is not None), reverse=True)


def _records(tx: Transaction, ids: list[int]) -> list[TaskRecord]:
    parts = [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
    return [record for part in parts for record in records(tx, "tasks", {"ids": tx.array(part)})]

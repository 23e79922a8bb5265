"""Where a search looks for tasks: candidates in the order of its sort, in steps that an index serves.

A position says how far a search has come, as whole numbers: an id for ``newest``, and so on. A cursor is a position as
text.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from .._formats.filters import HIGHEST, LOWEST, Filters
from ..checks import shown
from ..states import FAILED, FINAL, PENDING, RESERVED, RUNNING, UNFINISHED, TaskState
from .conditions import Tested, to_tested
from .connections import Transaction, Values
from .contract import SearchRequest

Position = tuple[int, ...]

_LENGTHS = {"newest": (1,), "line": (3,), "longest": (2,), "due": (2,), "ended": (1, 4)}
_CURSOR = re.compile(r"([a-z]+)((?:[.]-?\d{1,19}){1,4})", re.ASCII)
_FEW = 10_000
"""Waiting tasks that may be sorted by their ids. If more wait, a search walks down the primary key instead."""
_MOST_SCANS = 100
"""Index scans that a step may merge: one for each state and queue."""
_SHORT_WALK = 2000
"""A search decides after each step of fewer rows whether to turn to the indexes."""
_DENSE = 8
"""A walk takes less time than index scans if one of so many tasks is of the right state and queue."""
_SERVED = ("queue", "state")
"""Filters that the index scans serve."""
_MARGIN = 1000
"""Ids that are searched beyond a time: ids rise with the time of creation, but for clocks and open transactions."""
_WORTH_PROBES = 20_000
"""The number of ids from which a time is turned into ids."""


class Step(NamedTuple):
    """Candidates: those in ``ids``, in order, or all rows with ids from ``top`` down to ``floor``.

    ``last``: the position of the last one. ``lowest``: their lowest id. ``is_last``: nothing follows.
    """

    scanned: int
    last: Position | None
    lowest: int | None
    is_last: bool
    ids: list[int] | None = None
    top: int = HIGHEST
    floor: int = 0


class Candidates(abc.ABC):
    """What a search looks at, in the order of its sort."""

    @abc.abstractmethod
    def step(self, tx: Transaction, after: Position | None, size: int) -> Step:
        """Return the next candidates after a position, about ``size`` of them."""

    @abc.abstractmethod
    def up_to(self, tx: Transaction, step: Step, id: int) -> Step:
        """Return the part of a step that ends with this candidate."""


def needs_all_queues(request: SearchRequest) -> bool:
    """Return whether a search needs the names of all queues: their indexes serve it."""
    filters = request.filters
    if filters.get("queue") or request.among is not None:
        return False
    is_waiting = bool(filters.flag("blocked")) or request.sort in ("line", "due")
    return is_waiting or (request.sort != "longest" and len(_states(filters)) < len(TaskState))


def candidates_for(
    tx: Transaction, request: SearchRequest, queues: Sequence[str], floor: int | None = None
) -> Candidates:
    """Return what a search looks at.

    ``queues``: those of the filters, or all if it needs them. ``floor``: the lowest id, for a search that walks by id.
    """
    filters = request.filters
    bounds = _bounds(tx, request, floor)
    if request.among is not None or request.sort not in ("newest", "ended"):
        return _in_order(tx, request, queues, bounds)
    states = _states(filters)
    if ids := _named_ids(tx, filters, queues, states):
        return Listed([(id,) for id in sorted(ids[0], reverse=True) if bounds[0] <= id <= bounds[1]], falling=True)
    find_scans = partial(_scans, filters=filters, queues=queues, states=states)
    is_served = all(term.name in _SERVED for term in filters.terms) and PENDING not in states
    if is_served or filters.flag("blocked") or set(states) <= {RESERVED, RUNNING}:
        scans = find_scans(tx)
        return Walk(bounds) if scans is None else Merged(scans, bounds)
    place = Filters(tuple(term for term in filters.terms if term.name in _SERVED))
    return WalkOrMerged(bounds, find_scans, to_tested(place, {}))


def parse_cursor(sort: str, cursor: str | None) -> Position | None:
    """Return the position of a cursor. Raises ValueError if it is not one of this sort."""
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    position = tuple(map(int, match[2][1:].split("."))) if match else ()
    if match is None or match[1] != sort or len(position) not in _LENGTHS[sort]:
        raise ValueError(f"cursor must be the next of a search with the same sort, not {shown(cursor)}")
    return tuple(max(LOWEST, min(number, HIGHEST)) for number in position)


def to_cursor(sort: str, position: Position | None) -> str:
    """Return a position as text."""
    return ".".join([sort, *map(str, position or (HIGHEST,))])


# -- by id -----------------------------------------------------------------------------------------


class Walk(Candidates):
    """All tasks, the newest first: down the primary key."""

    def __init__(self, bounds: tuple[int, int]) -> None:
        self._floor, self._top = bounds

    def step(self, tx: Transaction, after: Position | None, size: int) -> Step:
        """See the base class."""
        top = self._top if after is None else min(self._top, after[0] - 1)
        return self._down(tx, top, self._floor, size)

    def _down(self, tx: Transaction, top: int, floor: int, size: int) -> Step:
        number, lowest = tx.rows("step_down", {"top": top, "floor": floor, "limit": size})[0]
        if not number:
            return Step(0, None, None, True, [])
        is_last = number < size or lowest <= floor
        return Step(number, (lowest,), lowest, is_last, None, top, lowest)

    def up_to(self, tx: Transaction, step: Step, id: int) -> Step:
        """See the base class."""
        if id == step.lowest:
            return step
        return self._down(tx, step.top, id, step.scanned)._replace(is_last=False)


Scan = Callable[[Transaction, int, int], list[int]]
"""Returns ids below one, the highest first, at most a number of them."""


class Merged(Candidates):
    """Tasks of some states and queues, the newest first: from several indexes at once."""

    def __init__(self, scans: Sequence[Scan], bounds: tuple[int, int]) -> None:
        self._scans = scans
        self._floor, self._top = bounds

    def step(self, tx: Transaction, after: Position | None, size: int) -> Step:
        """See the base class."""
        before = min(self._top, HIGHEST - 1) + 1 if after is None else min(self._top + 1, after[0])
        found = {id for scan in self._scans for id in scan(tx, before, size)}
        ids = [id for id in sorted(found, reverse=True)[:size] if id >= self._floor]
        return _step_of([(id,) for id in ids], is_last=len(ids) < size)

    def up_to(self, tx: Transaction, step: Step, id: int) -> Step:
        """See the base class."""
        ids = step.ids or []
        kept = ids[: ids.index(id) + 1]
        return _step_of([(id,) for id in kept], is_last=step.is_last and kept == ids)


class WalkOrMerged(Candidates):
    """The same, but down the primary key while most tasks there are of these states and queues: it takes less time.

    ``find_scans`` is called only if a short walk was not enough.
    """

    def __init__(
        self, bounds: tuple[int, int], find_scans: Callable[[Transaction], list[Scan] | None], place: Tested
    ) -> None:
        self._bounds = bounds
        self._find_scans = find_scans
        self._place = place
        self._walked: Step | None = None
        self._walk = Walk(bounds)
        self._current: Candidates = self._walk

    def step(self, tx: Transaction, after: Position | None, size: int) -> Step:
        """See the base class."""
        if self._walked is not None and self._current is self._walk and self._walked.scanned < _SHORT_WALK:
            self._current = self._choose(tx, self._walked)
        step = self._current.step(tx, after, size)
        self._walked = step if self._current is self._walk else None
        return step

    def _choose(self, tx: Transaction, walked: Step) -> Candidates:
        values = {**self._place.values, "top": walked.top, "floor": walked.floor}
        number = tx.rows_where("count_between", self._place.conditions, values)[0][0]
        if number * _DENSE >= walked.scanned:
            return self._walk
        scans = self._find_scans(tx)
        return self._walk if scans is None else Merged(scans, self._bounds)

    def up_to(self, tx: Transaction, step: Step, id: int) -> Step:
        """See the base class."""
        return self._current.up_to(tx, step, id)


class Listed(Candidates):
    """A known list of positions, the last number of each being the id."""

    def __init__(self, positions: Sequence[Position], *, falling: bool = False) -> None:
        self._positions = positions
        self._falling = falling

    def step(self, tx: Transaction, after: Position | None, size: int) -> Step:
        """See the base class."""
        rest = (each for each in self._positions if after is None or self._follows(each, after))
        some = list(islice(rest, size + 1))
        return _step_of(some[:size], is_last=len(some) <= size)

    def _follows(self, position: Position, after: Position) -> bool:
        return position < after if self._falling else position > after

    def up_to(self, tx: Transaction, step: Step, id: int) -> Step:
        """See the base class."""
        return _up_to(step, id, {each[-1]: each for each in self._positions})


def _step_of(positions: Sequence[Position], *, is_last: bool) -> Step:
    ids = [each[-1] for each in positions]
    return Step(len(ids), positions[-1] if positions else None, min(ids, default=None), is_last, ids)


def _up_to(step: Step, id: int, positions: dict[int, Position]) -> Step:
    ids = step.ids or []
    kept = ids[: ids.index(id) + 1]
    return _step_of([positions[each] for each in kept], is_last=step.is_last and kept == ids)


# -- in another order ------------------------------------------------------------------------------


class Waiting(Candidates):
    """Waiting tasks of some queues, in the order of a claim (rank, due, id), or by their due times."""

    def __init__(self, queues: Sequence[str], *, by_rank: bool) -> None:
        self._queues = queues
        self._by_rank = by_rank
        self._positions: dict[int, Position] = {}

    def step(self, tx: Transaction, after: Position | None, size: int) -> Step:
        """See the base class."""
        found: list[Position] = []
        for queue in self._queues:
            of_queue = self._of_queue(tx, queue, after, size)
            found += islice(of_queue, size) if self._by_rank else of_queue
        some = sorted(found)[:size]
        self._positions = {each[-1]: each for each in some}
        return _step_of(some, is_last=len(found) < size)

    def _of_queue(self, tx: Transaction, queue: str, after: Position | None, size: int) -> Iterator[Position]:
        for rank in self._ranks(tx, queue, after):
            due, id = (LOWEST, LOWEST) if after is None else after[-2:]
            if self._by_rank and after is not None and rank > after[0]:
                due, id = LOWEST, LOWEST
            values = {"queue": queue, "rank": rank, "due": due, "id": id, "limit": size}
            for row in tx.rows("waiting_by_due", values):
                yield (rank, *row) if self._by_rank else (row[0], row[1])

    def _ranks(self, tx: Transaction, queue: str, after: Position | None) -> Iterator[int]:
        rank = -(2**31)
        if self._by_rank and after is not None:
            rank = max(rank, after[0] - 1)
        while row := tx.row("next_rank", {"queue": queue, "rank": rank, "below": 2**31 - 1}):
            rank = row[0]
            yield rank

    def up_to(self, tx: Transaction, step: Step, id: int) -> Step:
        """See the base class."""
        return _up_to(step, id, self._positions)


def _in_order(tx: Transaction, request: SearchRequest, queues: Sequence[str], bounds: tuple[int, int]) -> Candidates:
    floor, top = bounds
    among = None if request.among is None else frozenset(request.among)
    if request.sort in ("line", "due"):
        if among is not None:  # the tasks that a caller knows of are running
            return Listed([])
        return Waiting(queues, by_rank=request.sort == "line")
    found: list[Position] = [(id,) for id in among or ()]
    if request.sort == "longest":
        found = [(row[0], row[1]) for row in tx.rows("running_by_start") if among is None or row[1] in among]
    falling = request.sort != "longest"
    return Listed(sorted((each for each in found if floor <= each[-1] <= top), reverse=falling), falling=falling)


# -- which indexes serve ---------------------------------------------------------------------------


def _bounds(tx: Transaction, request: SearchRequest, floor: int | None) -> tuple[int, int]:
    """Return the lowest and the highest id of what can match, by the filters of ids and times."""
    filters = request.filters
    low = 1 if floor is None else floor
    high = HIGHEST if request.highest is None else request.highest
    if ids := filters.spans("id"):
        low, high = max(low, min(span.low for span in ids)), min(high, max(span.high for span in ids))
    created = filters.spans("created")
    first = min((span.low for span in created), default=LOWEST)
    lasts = [
        max(span.high for span in spans) for name in ("created", "started", "ended") if (spans := filters.spans(name))
    ]
    last = min(lasts, default=HIGHEST)
    if first == LOWEST and last == HIGHEST:
        return low, high
    highest = min(high, tx.rows("highest_id")[0][0])
    lowest = max(low, tx.rows("lowest_id")[0][0])
    if highest - lowest < _WORTH_PROBES:
        return low, high
    if first != LOWEST:
        low = max(low, _id_at(tx, lowest, highest, first) - _MARGIN)
    if last != HIGHEST:
        high = min(high, _id_at(tx, lowest, highest, last + 1) + _MARGIN)
    return low, high


def _id_at(tx: Transaction, low: int, high: int, moment: int) -> int:
    """Return the first id that was created at a moment or later, by a binary search."""
    while low < high:
        middle = (low + high) // 2
        row = tx.row("created_from", {"id": middle})
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return low


def _states(filters: Filters) -> list[TaskState]:
    """Return the states in which tasks can match."""
    states = [state for state in TaskState if state in filters.texts("state")] or list(TaskState)
    if filters.flag("suspended") or filters.get("runs"):
        states = [state for state in states if state == RUNNING]
    if filters.flag("blocked"):
        states = [state for state in states if state in (PENDING, FAILED)]
    return states


def _named_ids(
    tx: Transaction, filters: Filters, queues: Sequence[str], states: Iterable[TaskState]
) -> tuple[list[int]] | None:
    """Return the ids of a short list, or of unfinished tasks with a key, in a tuple; None if neither is given."""
    spans = filters.spans("id")
    if spans and sum(max(0, span.high - span.low + 1) for span in spans) <= _FEW // 10:
        return (sorted({id for span in spans for id in range(span.low, span.high + 1)}),)
    keys = filters.texts("key")
    if keys and queues and set(states) <= set(UNFINISHED):
        rows = [tx.rows("unfinished_with_key", {"queue": queue, "key": key}) for queue in queues for key in keys]
        return ([row[0] for found in rows for row in found],)
    return None


def _scans(tx: Transaction, filters: Filters, queues: Sequence[str], states: Sequence[TaskState]) -> list[Scan] | None:
    """Return the index scans that have all tasks in these states; None if there are too many, or no index has them."""
    if (not queues and len(states) == len(TaskState)) or len(queues) * len(states) > _MOST_SCANS:
        return None
    scans: list[Scan] = []
    for queue in queues:
        if filters.flag("blocked"):
            scans.append(_scan("blocked_ids", queue, None))
            continue
        for state in states:
            if state == PENDING:
                if tx.row("more_wait", {"queue": queue, "number": _FEW}):
                    return None
                scans += [_scan("pending_ids", queue, state), _scan("blocked_ids", queue, state)]
            else:
                has_ended = state in FINAL or state == FAILED
                scans.append(_scan("ended_ids" if has_ended else "held_ids", queue, state))
    return scans


def _scan(query: str, queue: str, state: TaskState | None) -> Scan:
    def scan(tx: Transaction, before: int, limit: int) -> list[int]:
        values: Values = {"queue": queue, "state": state, "before": before, "limit": limit}
        return [row[0] for row in tx.rows(query, values)]

    return scan

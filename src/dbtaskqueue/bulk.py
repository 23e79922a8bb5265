"""Bulk actions: the same verb for all tasks that filters match, in short transactions.

``search`` finds the ids in steps, newest first. Every task then takes the same guarded transition as by hand.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from ._formats.filters import Filters
from ._store.contract import NO_CHANGE, BulkStep, BulkVerb, Change, NewAction, SearchRequest, Store
from ._system import clock
from .checks import check_priority, check_queue, check_seconds
from .finding import Arguments, request_for

STEP = 500
"""The most tasks that one transaction changes."""
_REST = 4.0
"""While workers are alive, a bulk action rests this many times as long as it works."""
_LONGEST_REST = 0.25
Progress = Callable[[int, int], object]


class Bulk(NamedTuple):
    """What a bulk action has done: the number of tasks that it changed, and of those that it refused, by reason."""

    changed: int
    refused: dict[str, int]


class Ids(NamedTuple):
    """The ids of one step of a search: ``scanned`` tasks were read, and ``next`` is where the search continues."""

    ids: list[int]
    next: str | None
    scanned: int


def to_change(
    start_in: float | timedelta | None,
    start_at: datetime | None,
    priority: int | None,
    queue: str | None,
    now: int,
) -> Change:
    """Return what a reschedule sets. Raises ValueError for invalid values, and if nothing is given."""
    if start_in is not None and start_at is not None:
        raise ValueError("give start_in or start_at, not both")
    due = None
    if start_in is not None:
        due = clock.after(now, start_in, "start_in")
    elif start_at is not None:
        due = clock.from_datetime(start_at)
    rank = None if priority is None else -check_priority(priority)
    change = Change(due, rank, None if queue is None else check_queue(queue))
    if change == NO_CHANGE:
        raise ValueError("give what to change: start_in, start_at, priority or queue")
    return change


def to_spread(spread: float | timedelta) -> int:
    """Return a spread in microseconds. Raises ValueError unless it is finite and at least 0."""
    return round(check_seconds(spread, "spread", finite=True) * 1e6)


def searched(
    store: Store, filters: Filters, *, highest: int, position: str | None = None, arguments: Arguments | None = None
) -> Iterator[Ids]:
    """Yield the ids of all tasks up to ``highest`` that match, in steps. Raises ValueError for an empty filter."""
    if not filters:
        raise ValueError("give at least one filter; an empty filter would mean every task")
    request: SearchRequest = request_for(
        store, filters, limit=STEP, cursor=position, highest=highest, arguments=arguments
    )
    while True:
        page = store.search_ids(request)
        yield Ids(page.ids, page.next, page.scanned)
        if page.next is None:
            return
        request = request._replace(cursor=page.next)


def carry_out(
    store: Store,
    verb: BulkVerb,
    filters: Filters,
    *,
    change: Change = NO_CHANGE,
    spread: int = 0,
    action: NewAction | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    arguments: Arguments | None = None,
    highest: int | None = None,
) -> Bulk:
    """Do something to all tasks that match and exist now, or up to ``highest``: see ``TaskQueue.cancel_many``."""
    highest = newest_task(store) if highest is None else highest
    now = clock.now()
    total = 0
    if progress is not None:
        total = sum(len(found.ids) for found in searched(store, filters, highest=highest, arguments=arguments))
        progress(0, total)
    changed, done, refused = 0, 0, Counter[str]()
    act = store.preview if dry_run else store.act
    for found in searched(store, filters, highest=highest, arguments=arguments):
        started = time.monotonic()
        if found.ids:
            recorded = None if dry_run else action
            acted = act(BulkStep(verb, found.ids, now, change, spread, recorded, states=filters.texts("state")))
            changed += acted.changed
            refused.update(acted.refused)
            done += len(found.ids)
        if progress is not None:
            progress(done, max(done, total))
        if found.next is not None and found.ids and not dry_run:
            rest(store, time.monotonic() - started)
    if action is not None and not dry_run and not done:
        store.log_action(action, 0, "no task matched")
    if changed and not dry_run:
        store.wakeups.ring()
    return Bulk(changed, dict(refused))


def rest(store: Store, seconds: float) -> None:
    """Let workers have the database, if there are any, after this many seconds of work."""
    if any(worker.lost_at is None for worker in store.workers()):
        time.sleep(min(_REST * seconds, _LONGEST_REST))


def newest_task(store: Store) -> int:
    """Return the highest id of a task, or 0."""
    newest = store.newest()
    return 0 if newest is None else newest[0]

"""What operators have done: the audit log, and operations, which act on all tasks that match."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast

from ..._formats.filters import Filters, from_json
from ..._store.contract import BulkVerb, OperationRecord, Store
from ..._system import clock
from ...operations import find_operation
from ...queue import TaskQueue

PAGE = 50
"""The rows of a page."""


class Operation(NamedTuple):
    """An operation. ``where``: its filters as they were given. ``refused``: the number of tasks by reason."""

    id: int
    verb: BulkVerb
    where: dict[str, list[str]]
    options: dict[str, Any]
    state: str
    changed: int
    refused: dict[str, int]
    scanned: int
    who: str
    via: str
    created_at: datetime | None
    ended_at: datetime | None


class Page(NamedTuple):
    """Rows, newest first, and the id before which the next page starts; None if there is none."""

    rows: list[Any]
    next: int | None


def as_operation(record: OperationRecord) -> Operation:
    """Return an operation as programs and pages show it."""
    return Operation(
        record.id,
        cast(BulkVerb, record.verb),
        filters_of(record).where(),
        json.loads(record.options),
        record.state,
        record.changed,
        json.loads(record.refused),
        record.scanned,
        record.who,
        record.via,
        clock.to_datetime(record.created_at),
        clock.to_datetime(record.ended_at),
    )


def filters_of(record: OperationRecord) -> Filters:
    """Return the filters of an operation."""
    return from_json(record.filters)


def actions(queue: TaskQueue, wanted: Mapping[str, Any], before: int | None, limit: int = PAGE) -> Page:
    """Read a page of the audit log."""
    return _page(queue.audit(limit=limit + 1, before=before, **wanted), limit)


def operations(store: Store, before: int | None, limit: int = PAGE) -> Page:
    """Read a page of operations."""
    return _page([as_operation(record) for record in store.operations(limit + 1, before)], limit)


def operation(store: Store, id: int) -> Operation:
    """Read an operation. Raises OperationNotFound."""
    return as_operation(find_operation(store, id))


def value(store: Store, id: int) -> dict[str, Any]:
    """Read an operation, as programs get it."""
    return operation(store, id)._asdict()


def _page(rows: list[Any], limit: int) -> Page:
    return Page(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)

"""What operators have done: the audit log, and operations, which act on all tasks that match."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..._formats.filters import Filters, from_json
from ..._store.contract import ActionRecord, OperationRecord, Store
from ..._system import clock
from ..auth import Refused

PAGE = 50
"""The rows of a page."""


class Action(NamedTuple):
    """A row of the audit log. ``count``: how many tasks or other things it changed."""

    id: int
    at: int
    who: str
    via: str
    verb: str
    queue: str | None
    task: int | None
    detail: dict[str, Any] | None
    count: int
    outcome: str


class Operation(NamedTuple):
    """An operation. ``where``: its filters as they were given. ``refused``: the number of tasks by reason."""

    id: int
    verb: str
    where: dict[str, list[str]]
    options: dict[str, Any]
    state: str
    changed: int
    refused: dict[str, int]
    scanned: int
    who: str
    via: str
    created_at: int
    ended_at: int | None


class Page(NamedTuple):
    """Rows, newest first, and the id before which the next page starts; None if there is none."""

    rows: list[Any]
    next: int | None


def as_action(record: ActionRecord) -> Action:
    """Return a row of the audit log as programs and pages show it."""
    detail = None if record.detail is None else json.loads(record.detail)
    return Action(record.id, record.at, *record[2:7], detail, record.changed, record.outcome)


def as_operation(record: OperationRecord) -> Operation:
    """Return an operation as programs and pages show it."""
    return Operation(
        record.id,
        record.verb,
        filters_of(record).where(),
        json.loads(record.options),
        record.state,
        record.changed,
        json.loads(record.refused),
        record.scanned,
        record.who,
        record.via,
        record.created_at,
        record.ended_at,
    )


def filters_of(record: OperationRecord) -> Filters:
    """Return the filters of an operation."""
    return from_json(record.filters)


def actions(store: Store, wanted: Mapping[str, str | int], before: int | None, limit: int = PAGE) -> Page:
    """Read a page of the audit log."""
    found = store.actions(limit + 1, before, wanted)
    return _page([as_action(record) for record in found], limit)


def operations(store: Store, before: int | None, limit: int = PAGE) -> Page:
    """Read a page of operations."""
    return _page([as_operation(record) for record in store.operations(limit + 1, before)], limit)


def operation(store: Store, id: int) -> Operation:
    """Read an operation. Raises Refused if it does not exist."""
    found = store.operations(1, id + 1)
    if not found or found[0].id != id:
        raise Refused(404, f"there is no operation {id}", name="OperationNotFound")
    return as_operation(found[0])


def as_json(row: Action | Operation) -> dict[str, Any]:
    """Return a row as programs get it, with its times as datetimes."""
    times = ("at", "created_at", "ended_at")
    return {name: clock.to_datetime(value) if name in times else value for name, value in row._asdict().items()}


def _page(rows: list[Any], limit: int) -> Page:
    return Page(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)

"""The audit log: who did what to which task or queue, and what was refused.

An action's row is stored in the transaction of the change, by the verb of the store that makes the change.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from ._store.contract import ActionRecord, NewAction, Store
from ._system import clock
from .checks import MOST, is_count, shown

MOST_OF_A_NAME = 255
"""The most characters of an actor's name."""


class Actor(NamedTuple):
    """Who acts, and through what: "python", "cli", "dashboard", "api" or "admin" (of Django)."""

    name: str
    via: str = "python"


class Action(NamedTuple):
    """A row of the audit log.

    ``at``: an aware datetime in UTC. ``queue`` and ``task``: what it was done to, None for neither. ``detail``: what
    else is known, such as the filters of a bulk action; never a payload. ``count``: how many tasks or other things it
    changed. ``outcome``: "done", or why it was refused.
    """

    id: int
    at: datetime
    who: str
    via: str
    verb: str
    queue: str | None
    task: int | None
    detail: dict[str, Any] | None
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    outcome: str


def new_action(
    actor: str | Actor | None, verb: str, *, queue: str | None = None, task: int | None = None, **detail: object
) -> NewAction | None:
    """Return what is to be stored about an action; None without an actor. Details that are None are left out.

    Raises ValueError for an actor without a name.
    """
    if actor is None:
        return None
    who = actor if isinstance(actor, Actor) else Actor(actor)
    if not isinstance(who.name, str) or not 0 < len(who.name) <= MOST_OF_A_NAME:
        raise ValueError(f"actor must be a name of 1 to {MOST_OF_A_NAME} characters, not {shown(who.name)}")
    known = {name: value for name, value in detail.items() if value is not None}
    return NewAction(clock.now(), who.name, who.via, verb, queue, task, known or None)


def actions(
    store: Store,
    *,
    limit: int = 100,
    before: int | None = None,
    who: str | None = None,
    verb: str | None = None,
    queue: str | None = None,
    task: int | None = None,
) -> list[Action]:
    """Return the latest actions, newest first: see ``TaskQueue.audit``."""
    if not is_count(limit):
        raise ValueError(f"limit must be a whole number of at least 1, not {shown(limit)}")
    given = {"who": who, "verb": verb, "queue": queue, "task": task}
    wanted = {name: value for name, value in given.items() if value is not None}
    return [_action(record) for record in store.actions(min(limit, MOST), before, wanted)]


def _action(record: ActionRecord) -> Action:
    at = clock.to_datetime(record.at)
    assert at is not None
    detail = None if record.detail is None else json.loads(record.detail)
    return Action(record.id, at, *record[2:7], detail, record.changed, record.outcome)

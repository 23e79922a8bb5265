"""The states of a task and the one table of transitions. Pure: no database, no clock.

The guards in ``_store/sql`` repeat this table in SQL; ``tests/conformance/test_transitions.py`` is
generated from it and tries every verb in every state on every engine.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class TaskState(enum.StrEnum):
    """Where a task stands. ``str(state)`` is the word, and ``TaskState.DONE == "done"``."""

    PENDING = "pending"
    RESERVED = "reserved"
    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


PENDING, RESERVED, RUNNING, FAILED, DONE, CANCELLED, ABANDONED = TaskState

FINAL = frozenset({DONE, CANCELLED, ABANDONED})
UNFINISHED = frozenset(TaskState) - FINAL


class Transition(NamedTuple):
    """One arrow: ``verb`` takes a task from ``source`` to one of ``targets``.

    ``by_holder``: only the holder of the claim may. ``new_token``: the token rises, so a late holder
    is fenced. An empty ``targets`` means that the state stays and only a request is stored.
    """

    verb: str
    source: TaskState
    targets: frozenset[TaskState]
    by_holder: bool
    new_token: bool


def _arrow(verb: str, sources: str, targets: str, *, by_holder: bool, new_token: bool) -> list[Transition]:
    goals = frozenset(TaskState(word) for word in targets.split())
    return [Transition(verb, TaskState(word), goals, by_holder, new_token) for word in sources.split()]


TRANSITIONS: tuple[Transition, ...] = (
    *_arrow("fetch", "pending failed", "reserved", by_holder=False, new_token=True),
    *_arrow("start", "reserved", "running", by_holder=True, new_token=False),
    *_arrow("finish", "running", "done", by_holder=True, new_token=False),
    *_arrow("fail", "running", "failed abandoned cancelled", by_holder=True, new_token=False),
    *_arrow("release", "reserved", "pending", by_holder=True, new_token=False),
    *_arrow("release", "running", "pending cancelled", by_holder=True, new_token=False),
    *_arrow("cancel", "pending failed reserved", "cancelled", by_holder=False, new_token=True),
    *_arrow("cancel", "running", "", by_holder=False, new_token=False),
    *_arrow("rescue", "reserved", "pending", by_holder=False, new_token=True),
    *_arrow("rescue", "running", "failed abandoned cancelled", by_holder=False, new_token=True),
    *_arrow("retry", "failed abandoned cancelled done", "pending", by_holder=False, new_token=True),
    *_arrow("purge", "pending reserved running failed", "abandoned", by_holder=False, new_token=True),
)


def sources(verb: str) -> frozenset[TaskState]:
    """The states from which ``verb`` is allowed."""
    return frozenset(arrow.source for arrow in TRANSITIONS if arrow.verb == verb)

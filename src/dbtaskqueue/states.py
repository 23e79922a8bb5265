"""The states of a task, and the table of transitions between them. Pure: no database, no clock.

Some transitions need more than a state. ``expire``: the task's expiry time has passed; a reserved task expires when its
holder starts it too late. ``disappoint``: the task is blocked, and a parent has not ended as the task wants. ``block``:
a parent of the task was done, and is retried. If a task is retried, its disappointed children are retried with it.

The guards in ``_store/sql`` repeat this table in SQL. ``tests/conformance/test_transitions.py`` is generated from it
and tries every verb in every state on every engine.
"""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple

StateName = Literal["pending", "reserved", "running", "failed", "done", "cancelled", "abandoned"]
"""The states as plain words."""


class TaskState(enum.StrEnum):
    """The state of a task. ``str(state)`` is the word, and ``TaskState.DONE == "done"``."""

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
    """One transition: ``verb`` takes a task from ``source`` to one of ``targets``.

    ``by_holder``: only the holder of the claim may do it. ``new_token``: the token rises, so that writes of a former
    holder are refused. With empty ``targets``, there is no new state: only a request is stored, or the task is deleted.
    """

    verb: str
    source: TaskState
    targets: frozenset[TaskState]
    by_holder: bool
    new_token: bool


def _transitions(verb: str, sources: str, targets: str, *, by_holder: bool, new_token: bool) -> list[Transition]:
    goals = frozenset(TaskState(word) for word in targets.split())
    return [Transition(verb, TaskState(word), goals, by_holder, new_token) for word in sources.split()]


TRANSITIONS: tuple[Transition, ...] = (
    *_transitions("fetch", "pending failed", "reserved", by_holder=False, new_token=True),
    *_transitions("start", "reserved", "running", by_holder=True, new_token=False),
    *_transitions("finish", "running", "done", by_holder=True, new_token=False),
    *_transitions("fail", "running", "failed abandoned cancelled", by_holder=True, new_token=False),
    *_transitions("release", "reserved", "pending", by_holder=True, new_token=False),
    *_transitions("release", "running", "pending cancelled", by_holder=True, new_token=False),
    *_transitions("cancel", "pending failed reserved", "cancelled", by_holder=False, new_token=True),
    *_transitions("cancel", "running", "", by_holder=False, new_token=False),
    *_transitions("rescue", "reserved", "pending", by_holder=False, new_token=True),
    *_transitions("rescue", "running", "failed abandoned cancelled", by_holder=False, new_token=True),
    *_transitions("retry", "failed abandoned cancelled done", "pending", by_holder=False, new_token=True),
    *_transitions("reschedule", "pending", "pending", by_holder=False, new_token=False),
    *_transitions("reschedule", "failed", "failed", by_holder=False, new_token=False),
    *_transitions("delete", "done cancelled abandoned", "", by_holder=False, new_token=False),
    *_transitions("purge", "pending reserved running failed", "abandoned", by_holder=False, new_token=True),
    *_transitions("expire", "pending failed", "abandoned", by_holder=False, new_token=True),
    *_transitions("expire", "reserved", "abandoned", by_holder=True, new_token=True),
    *_transitions("disappoint", "pending", "cancelled", by_holder=False, new_token=True),
    *_transitions("block", "reserved", "pending", by_holder=False, new_token=True),
)


def sources(verb: str) -> frozenset[TaskState]:
    """Return the states from which ``verb`` is allowed."""
    return frozenset(each.source for each in TRANSITIONS if each.verb == verb)

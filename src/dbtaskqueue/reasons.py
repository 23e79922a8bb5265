"""Why a task does not run: ``TaskQueue.why``, and the words for a task's parents.

This module only reads, and at most a fixed number of rows. If the database changes between two reads, a reason may be
out of date, but no error is raised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ._store.contract import BY_PARENTS, Position, Store, Summary, TaskRecord, WorkerRecord
from ._system import clock
from .checks import counted, escaped
from .overview import functions_of, live_workers, queues_of, serves
from .states import FAILED, PENDING, RUNNING

MOST_COUNTED = 10_000
"""The most tasks before a task that are counted."""
_NAMED_PARENTS = 5
_BUSY_WORKERS = 100
"""The most workers whose held tasks are counted."""

ReasonCode = Literal[
    "due_later",
    "queue_paused",
    "no_worker",
    "parents",
    "behind",
    "function_unknown",
    "commands_not_allowed",
]


class Reason(NamedTuple):
    """A reason why a task does not run now.

    ``code`` is for programs: due_later, queue_paused, no_worker, parents, behind, function_unknown, or
    commands_not_allowed. ``text`` is for people, in one line.
    """

    code: ReasonCode
    text: str


def why(store: Store, task: TaskRecord) -> list[Reason]:
    """Return all reasons why a task does not run now; none for a task that is held or has ended."""
    if task.state not in (PENDING, FAILED):
        return []
    now = clock.now()
    alive = live_workers(store)
    serving = [worker for worker in alive if serves(worker, task.queue)]
    found = [
        *_parents(store, task, now),
        *_due_later(store, task, now),
        *_queue_paused(store, task),
        *_no_worker(task, alive, serving),
        *_commands_not_allowed(task, serving),
        *_function_unknown(task, serving),
        *_behind(store, task, now, serving),
    ]
    return found or list(_busy_workers(store, task, serving))


# -- the reasons -----------------------------------------------------------------------------------


def _parents(store: Store, task: TaskRecord, now: int) -> Iterator[Reason]:
    if not task.blocked & BY_PARENTS:
        return
    gate = store.gate(task.id)
    if gate is None or not gate.open:
        return
    found = [edge.parent for edge in store.open_parents(task.id, _NAMED_PARENTS)]
    parents = store.summaries(found)
    words = [parent_words(id, parents.get(id), now) for id in found]
    if gate.open > len(words) > 0:
        words.append(f"and {gate.open - len(words):,} more")
    have = "has" if gate.open == 1 else "have"
    text = f"{gate.open:,} of {gate.total:,} {'parent' if gate.total == 1 else 'parents'} {have} not ended"
    yield Reason("parents", f"{text}: {'; '.join(words)}" if words else text)


def _due_later(store: Store, task: TaskRecord, now: int) -> Iterator[Reason]:
    gate = store.gate(task.id) if task.blocked & BY_PARENTS else None
    if gate is not None and gate.delay is not None:
        if gate.delay > 0:
            yield Reason("due_later", f"due {time_span(gate.delay)} after its parents have ended")
    elif task.due > now:
        expires = task.expires is not None and task.expires <= task.due
        text = f"due in {time_span(task.due - now)}{', but it expires earlier' if expires else ''}"
        yield Reason(
            "due_later", f"attempt {task.attempt} failed, the next one is {text}" if task.state == FAILED else text
        )


def _queue_paused(store: Store, task: TaskRecord) -> Iterator[Reason]:
    if store.is_paused(task.queue):
        yield Reason("queue_paused", f"the queue {task.queue} is paused")


def _no_worker(task: TaskRecord, alive: Sequence[WorkerRecord], serving: Sequence[WorkerRecord]) -> Iterator[Reason]:
    if serving:
        return
    text = f"no live worker serves the queue {task.queue}"
    unknown = sum(queues_of(worker) is None for worker in alive)
    if unknown:
        programs = "a program that calls fetch() is" if unknown == 1 else f"{unknown} programs that call fetch() are"
        text += f"; {programs} alive, and may serve it"
    yield Reason("no_worker", text)


def _commands_not_allowed(task: TaskRecord, serving: Sequence[WorkerRecord]) -> Iterator[Reason]:
    if task.command and serving and not any(worker.commands for worker in serving):
        yield Reason(
            "commands_not_allowed",
            f"it is a command line, and no live worker of the queue {task.queue} runs them (--allow-commands)",
        )


def _function_unknown(task: TaskRecord, serving: Sequence[WorkerRecord]) -> Iterator[Reason]:
    known = [functions_of(worker) for worker in serving]
    if task.command or not serving or any(names is None or task.function in names for names in known):
        return
    if task.function is None:
        text = f"it has no function, and no live worker of the queue {task.queue} has a callback"
    else:
        text = f"no live worker of the queue {task.queue} knows the function {escaped(task.function)}"
    yield Reason("function_unknown", text)


def _behind(store: Store, task: TaskRecord, now: int, serving: Sequence[WorkerRecord]) -> Iterator[Reason]:
    if task.blocked or task.due > now:
        return
    position = Position(task.queue, task.rank, task.due, task.id)
    commands = bool(task.command) or not serving or any(worker.commands for worker in serving)
    higher, same = store.count_before(position, now, MOST_COUNTED + 1, commands=commands)
    if higher + same:
        yield Reason("behind", _behind_words(higher, same))


def _busy_workers(store: Store, task: TaskRecord, serving: Sequence[WorkerRecord]) -> Iterator[Reason]:
    """Report that the task is next, and how many tasks its workers hold: they may have no free slot."""
    if task.blocked:
        return
    if held := sum(len(store.held(worker.id)) for worker in serving[:_BUSY_WORKERS]):
        workers = "live worker of the queue holds" if len(serving) == 1 else "live workers of the queue hold"
        yield Reason("behind", f"it is the next one; the {workers} {counted(held)}")


def _behind_words(higher: int, same: int) -> str:
    number = higher + same
    come = "task comes" if number == 1 else "tasks come"
    text = f"more than {MOST_COUNTED:,}" if number > MOST_COUNTED else f"{number:,}"
    if not higher:
        return f"{text} {come} before it"
    if not same:
        return f"{text} {come} before it, of a higher priority"
    return f"{text} {come} before it, {higher:,} of a higher priority"


# -- words -----------------------------------------------------------------------------------------


def parent_words(id: int, task: Summary | None, now: int) -> str:
    """Return in words which task a parent is, and what it does now."""
    return f"{id} no longer exists" if task is None else f"{id} {state_words(task, now)}"


def state_words(task: Summary, now: int) -> str:
    """Return in words what a task does now: ``running for 3 min``, ``failed, due in 60 s``, ``pending, blocked``."""
    if task.state == RUNNING:
        suspended = ", suspended" if task.suspended else ""
        return f"running for {time_span(now - (task.started_at or now), up=False)}{suspended}"
    if task.state in (PENDING, FAILED):
        if task.blocked:
            return f"{task.state}, blocked"
        if task.due > now:
            return f"{task.state}, due in {time_span(task.due - now)}"
        return "failed, due now" if task.state == FAILED else task.state
    return task.state


def time_span(microseconds: int, *, up: bool = True) -> str:
    """Return a time in words, rounded up or down: ``40 s``, ``5 min``, ``3 h 20 min``, ``9 d 4 h``."""
    seconds = max(0, microseconds) / 1e6
    whole = math.ceil(seconds) if up else math.floor(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = math.ceil(whole / 60) if up else whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"

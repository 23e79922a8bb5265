"""Operations: bulk actions that are stored, carried out step by step, and continued by another program if theirs ends.

A step changes at most 500 tasks, and its transaction also stores how far the operation has come. So a task is neither
left out nor counted twice, whenever a program is killed.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

from ._formats.filters import Filters, from_json
from ._store.contract import BulkStep, BulkVerb, Change, NewAction, OperationRecord, OperationStep, Store
from ._system import clock
from ._system.log import event
from .audit import Actor, new_action
from .bulk import rest, searched, to_change, to_spread
from .errors import StoreUnavailable, TaskQueueError

_AT_ITS_END = "end"
"""The position of an operation whose last step is done."""
_EVERY = 5.0
"""Seconds between two checks while another program carries out an operation: it may die."""
_MOST_OPEN = 100


class OperationNotFound(TaskQueueError, LookupError):
    """There is no operation with this id."""


# -- for those who ask -----------------------------------------------------------------------------


def create_operation(
    store: Store,
    verb: BulkVerb,
    filters: Filters,
    options: Mapping[str, Any],
    actor: str | Actor,
    *,
    highest: int | None = None,
) -> int:
    """Store an operation for the tasks that match and exist now; return its id. A runner carries it out.

    ``highest``: tasks with higher ids are not meant either, such as those enqueued since somebody was asked.

    ``options``: ``spread`` in seconds for a retry; ``start_in`` in seconds, ``start_at``, ``priority`` and ``queue``
    for a reschedule. Relative times are fixed here. Raises ValueError for invalid options, and for an empty filter.
    """
    if not filters:
        raise ValueError("give at least one filter; an empty filter would mean every task")
    now = clock.now()
    queues = filters.texts("queue")
    action = new_action(actor, verb, queue=queues[0] if len(queues) == 1 else None, where=filters.where())
    assert action is not None
    record = OperationRecord(
        id=0,
        verb=verb,
        filters=filters.to_json(),
        options=json.dumps(_fixed(verb, options, now)),
        who=action.who,
        via=action.via,
        created_at=now,
        highest=highest or 0,
        state="running",
        position=None,
        scanned=0,
        changed=0,
        refused="{}",
        runner=None,
        step_at=now,
        ended_at=None,
    )
    return store.create_operation(record, action)


def find_operation(store: Store, id: int) -> OperationRecord:
    """Return an operation. Raises OperationNotFound."""
    found = store.operations(1, id + 1) if 0 < id < 2**62 else []
    if not found or found[0].id != id:
        raise OperationNotFound(f"there is no operation {id}")
    return found[0]


def stop_operation(store: Store, id: int, actor: str | Actor) -> bool:
    """Stop an operation between two steps; return False if it has ended. Raises OperationNotFound."""
    find_operation(store, id)
    action = new_action(actor, "stop", operation=id)
    return store.set_operation(id, runner="", now=clock.now(), end="stopped", action=action)


def _fixed(verb: str, options: Mapping[str, Any], now: int) -> dict[str, Any]:
    """Return options as they are stored: times are absolute, in microseconds."""
    if verb == "retry":
        return {"spread": to_spread(options["spread"]) / 1e6} if options.get("spread") else {}
    if verb != "reschedule":
        return {}
    names = ("start_in", "start_at", "priority", "queue")
    start_in, start_at, priority, queue = (options.get(name) for name in names)
    change = to_change(start_in, start_at, priority, queue, now)
    found = {"start_at": change.due, "priority": options.get("priority"), "queue": change.queue}
    return {name: value for name, value in found.items() if value is not None}


# -- for those who carry them out ------------------------------------------------------------------


class OperationRunner:
    """A thread that carries out the operations of a database, one after the other, as long as there are any.

    It starts at the first ``wake`` and ends when no operation is open, so that it costs nothing then.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_wanted = False
        self._changed = threading.Event()
        self._is_closed = False
        self._failed: set[int] = set()

    def wake(self) -> None:
        """Look for operations now."""
        with self._lock:
            if self._is_closed:
                return
            self._is_wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="operations", daemon=True)
                self._thread.start()
        self._changed.set()

    def close(self) -> None:
        """Stop after the current step. Another program continues what is open."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._changed.set()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._is_closed or not self._is_wanted:
                    self._thread = None
                    return
                self._is_wanted = False
            self._changed.clear()
            try:
                is_open = self._turn()
            except StoreUnavailable:
                is_open = True
            except TaskQueueError:
                is_open = False  # the queue is closed
            if is_open:
                self._changed.wait(_EVERY)
                self._is_wanted = True

    def _turn(self) -> bool:
        """Carry out what this program may; return whether other operations are open."""
        while not self._is_closed:
            records = [
                each for each in self._store.operations(_MOST_OPEN, open_only=True) if each.id not in self._failed
            ]
            mine = next((each for each in reversed(records) if self._take(each.id)), None)
            if mine is None:
                return bool(records)
            try:
                self._carry_out(find_operation(self._store, mine.id))
            except StoreUnavailable:
                raise
            except Exception as error:
                self._failed.add(mine.id)
                event(logging.ERROR, "an operation failed", exc_info=error, operation=mine.id, verb=mine.verb)
        return False

    def _take(self, id: int) -> bool:
        return self._store.set_operation(id, runner=self._name, now=clock.now())

    def _carry_out(self, record: OperationRecord) -> None:
        store, filters = self._store, from_json(record.filters)
        change, spread = _change_of(record)
        action = _action_of(record, filters)
        verb = cast(BulkVerb, record.verb)
        pages = (
            ()
            if record.position == _AT_ITS_END
            else searched(store, filters, highest=record.highest, position=record.position)
        )
        for page in pages:
            if self._is_closed:
                return
            started = time.monotonic()
            step = OperationStep(record.id, self._name, page.next or _AT_ITS_END, page.scanned)
            states = filters.texts("state")
            acted = store.act(BulkStep(verb, page.ids, clock.now(), change, spread, action, step, states))
            if not acted.is_current:
                return  # it was stopped, or taken over
            if acted.changed:
                store.wakeups.ring()
            if page.ids and page.next is not None:
                rest(store, time.monotonic() - started)
        store.set_operation(record.id, runner=self._name, now=clock.now(), end="done")


def _change_of(record: OperationRecord) -> tuple[Change, int]:
    options = json.loads(record.options)
    priority = options.get("priority")
    change = Change(options.get("start_at"), None if priority is None else -priority, options.get("queue"))
    return change, round(options.get("spread", 0) * 1e6)


def _action_of(record: OperationRecord, filters: Filters) -> NewAction:
    queues = filters.texts("queue")
    queue = queues[0] if len(queues) == 1 else None
    return NewAction(clock.now(), record.who, record.via, record.verb, queue, None, {"operation": record.id})

"""Waiting for tasks to end, with one thread for each database and one query for each change of it.

The thread runs while any task is waited for. It sleeps until the database may have changed, reads the states of all
these tasks in one query, and calls the callbacks of those that have ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from ._store.contract import Store
from ._system.log import event
from .states import FINAL, TaskState

Callback = Callable[[TaskState | None], object]

_LONGEST_SLEEP = 5.0
"""Seconds after which states are read even if no change of the database was noticed."""
_REST, _LONGEST_REST = 9.0, 0.1
"""Reading takes at most a tenth of the time: between two reads is this many times what one takes, or these seconds."""


class Waiting:
    """The tasks of one database that this process waits for. Safe to share between threads."""

    _all: ClassVar[weakref.WeakKeyDictionary[Store, Waiting]] = weakref.WeakKeyDictionary()

    @classmethod
    def on(cls, store: Store) -> Waiting:
        """Return the one ``Waiting`` of this process for a store."""
        return cls._all.get(store) or cls._all.setdefault(store, cls(store))

    def __init__(self, store: Store) -> None:
        self._store = weakref.ref(store)  # weak, since a strong reference would keep the key of _all alive
        self._start_over()

    def _start_over(self) -> None:
        self._lock = threading.RLock()  # reentrant, since a signal handler may wait, too
        self._callbacks: dict[int, list[Callback]] = {}
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def add(self, task: int, callback: Callback) -> None:
        """Call ``callback`` once, in another thread, when the task with this id has ended.

        It gets the final state, or None if the task does not exist or the database cannot be read. To find out which,
        read the task. The callback must return quickly.
        """
        if os.getpid() != self._pid:  # after a fork, the thread and the callbacks stay with the parent
            self._start_over()
        with self._lock:
            self._callbacks.setdefault(task, []).append(callback)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=[self._store()], name="dbtaskqueue-waiting", daemon=True
                )
                self._thread.start()
        self._bell.put(None)

    def discard(self, task: int, callback: Callback) -> None:
        """Forget a callback that was added, unless it has been called."""
        with self._lock:
            callbacks = self._callbacks.get(task, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks and self._callbacks.pop(task, None) is not None:
                self._bell.put(None)  # the thread ends if this was the last task

    def wait(self, tasks: Sequence[int], deadline: float | None) -> None:
        """Block until each of these tasks has ended, does not exist, or cannot be read.

        ``deadline`` is a time of the monotonic clock, at which it returns anyway. None: no limit.
        """
        called: queue.SimpleQueue[TaskState | None] = queue.SimpleQueue()
        callback = called.put
        try:
            for task in tasks:
                self.add(task, callback)
            with contextlib.suppress(queue.Empty):
                for _ in tasks:
                    called.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            for task in tasks:
                self.discard(task, callback)

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self, store: Store) -> None:
        while tasks := self._wanted():
            with store.wakeups.waiting() as ticket:
                started = time.monotonic()
                self._call_back(self._read(store, tasks))
                took = time.monotonic() - started
                if self._callbacks:
                    store.wakeups.wait_on(self._bell, ticket, _LONGEST_SLEEP)
            if self._callbacks:
                rest = min(_REST * took, _LONGEST_REST)
                time.sleep(max(0.0, started + took + rest - time.monotonic()))

    def _wanted(self) -> list[int]:
        """Return the tasks that are waited for. If there is none, the thread ends."""
        while not self._bell.empty():
            self._bell.get()
        with self._lock:
            if not self._callbacks:
                self._thread = None
            return list(self._callbacks)

    @staticmethod
    def _read(store: Store, tasks: Sequence[int]) -> Mapping[int, TaskState | None]:
        """Return the states of those tasks that have ended, and None for those that do not exist or cannot be read."""
        try:
            found = store.standings(tasks)
        except Exception:  # each caller then reads its own task, and gets the error
            return dict.fromkeys(tasks)
        states = {task: found[task].state if task in found else None for task in tasks}
        return {task: state for task, state in states.items() if state is None or state in FINAL}

    def _call_back(self, ended: Mapping[int, TaskState | None]) -> None:
        for task, state in ended.items():
            with self._lock:
                callbacks = self._callbacks.pop(task, [])
            for callback in callbacks:
                try:
                    callback(state)
                except Exception as error:
                    event(logging.ERROR, "a callback for the end of a task failed", task_id=task, exc_info=error)

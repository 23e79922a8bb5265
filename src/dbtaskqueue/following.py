"""Following tasks: one thread for each database reads the progress of all tasks that are followed, in one query."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from ._formats import progress
from ._store.contract import Store, Summary
from ._system.log import event

_INTERVAL = 0.5
"""Seconds between two reads. Workers store progress once a second."""


class Seen(NamedTuple):
    """What a follower has seen of a task."""

    state: str
    attempt: int
    progress: progress.Progress | None


class _Follower(NamedTuple):
    seen: Seen
    callback: Callable[[], object]


class Following:
    """The tasks of one database that this process follows. Safe to share between threads."""

    _all: ClassVar[weakref.WeakKeyDictionary[Store, Following]] = weakref.WeakKeyDictionary()

    @classmethod
    def after_fork_in_child(cls) -> None:
        """The thread and the callbacks are the parent's."""
        for following in list(cls._all.values()):
            following._start_over()

    @classmethod
    def on(cls, store: Store) -> Following:
        """Return the one ``Following`` of this process for a store."""
        return cls._all.get(store) or cls._all.setdefault(store, cls(store))

    def __init__(self, store: Store) -> None:
        self._store = weakref.ref(store)  # weak, since a strong reference would keep the key of _all alive
        self._start_over()

    def _start_over(self) -> None:
        self._lock = threading.RLock()
        self._followers: dict[int, list[_Follower]] = {}
        self._thread: threading.Thread | None = None

    def add(self, task: int, seen: Seen, callback: Callable[[], object]) -> None:
        """Call ``callback`` once, in another thread, when the task is no longer as it was seen.

        It is also called if the task does not exist or the database cannot be read. It must return quickly.
        """
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, args=[self._store()], name="dbtaskqueue-following", daemon=True
                )
                thread.start()  # this may raise: then the next call tries it again
                self._thread = thread
            self._followers.setdefault(task, []).append(_Follower(seen, callback))

    def discard(self, task: int, callback: Callable[[], object]) -> None:
        """Forget a callback that was added, unless it has been called."""
        with self._lock:
            left = [each for each in self._followers.get(task, []) if each.callback is not callback]
            if left:
                self._followers[task] = left
            else:
                self._followers.pop(task, None)

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self, store: Store) -> None:
        while tasks := self._wanted():
            try:
                found = self._read(store, tasks)
                for task in tasks:
                    self._call_back(task, found.get(task))
            except Exception as error:  # if the thread ended here, all followers would wait forever
                event(logging.ERROR, "tasks that are followed cannot be read, they are read again", exc_info=error)
            time.sleep(_INTERVAL)

    def _wanted(self) -> list[int]:
        """Return the tasks that are followed. If there is none, the thread ends."""
        with self._lock:
            if not self._followers:
                self._thread = None
            return list(self._followers)

    @staticmethod
    def _read(store: Store, tasks: Sequence[int]) -> dict[int, Summary]:
        with contextlib.suppress(Exception):
            return store.summaries(tasks)
        return {}  # each follower then reads its own task, and gets the error

    def _call_back(self, task: int, summary: Summary | None) -> None:
        now = None if summary is None else _seen(summary)
        with self._lock:
            followers = self._followers.pop(task, [])
            if same := [each for each in followers if each.seen == now]:
                self._followers[task] = same
        for each in followers:
            if each.seen != now:
                each.callback()


def _seen(task: Summary) -> Seen:
    return Seen(task.state, task.attempt, progress.read(task.progress))


os.register_at_fork(after_in_child=Following.after_fork_in_child)

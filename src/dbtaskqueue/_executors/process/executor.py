"""Runs each task in a child process. One thread talks to the fork server and to the children.

``submit``, ``take_back`` and what a ``TaskRun`` offers (``stop``, ``suspend``, ``stacks``) may be called in any thread.
They queue a call for the executor's own thread, which does the rest. ``children`` manages each child, and
``server_handle`` keeps the fork server running. This module decides which child gets which task.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..._system.log import event
from ...errors import TaskCancelled, TaskQueueError
from ..lookup import Late
from ..task_run import Callbacks, Settings, TaskRun, take_all
from .child_handle import order_for
from .children import HANG_UP, Children
from .resources import Shortage, make_room
from .server_handle import Server, ServerHandle

_MOST_AT_ONCE = 32
"""The most short tasks that a child is given together."""
_FORKS_AT_ONCE = 16
"""The most unanswered requests for a child: the kernel limits the descriptors in flight."""
_START_TIME = 120.0
"""Seconds that importing the code may take."""
_LONGEST_PAUSE = 5.0


class ProcessExecutor:
    """Up to ``settings.concurrency`` children, forked by a server that has imported the code.

    Raises TaskQueueError if the server could not import the code.
    """

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        if not hasattr(os, "fork"):
            raise TaskQueueError("executor='process' needs a system that can fork")
        self.grace = settings.cancel_grace + HANG_UP + 2.0
        self.most = settings.concurrency
        self._settings = settings
        self._callbacks = callbacks
        self._waiting: deque[TaskRun] = deque()
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._waker = os.pipe()
        for fd in (self._wakeup, self._waker):
            os.set_blocking(fd, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._empty_wakeup)
        self._shortage = Shortage(settings.concurrency)
        origin, open_files = settings.runner.lookup.origin(), make_room(settings.concurrency)
        self._server = Server(
            lambda: ServerHandle(settings, origin, open_files), self._selector, self._shortage, callbacks.broken
        )
        self._children = Children(
            settings,
            self._selector,
            self._server,
            self._shortage,
            soon=self._soon,
            ended=callbacks.ended,
            take_back=self._waiting.appendleft,
        )
        self._loaded: set[str] = set()
        self._closing = False
        self._last_turn = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="dbtaskqueue-children", daemon=True)
        self._thread.start()
        if not self._server.is_decided.wait(_START_TIME) or self._server.broken is not None:
            self.close()
            raise TaskQueueError(self._server.broken or f"the fork server was not ready after {_START_TIME:.0f} s")

    # -- in any thread -----------------------------------------------------------------------------

    def submit(self, runs: Sequence[TaskRun]) -> None:
        """Run these tasks as soon as there is room."""
        self._waiting.extend(runs)
        self._wake()

    def is_drained(self) -> bool:
        """Return whether all tasks have started."""
        return not self._waiting

    def take_back(self) -> list[TaskRun]:
        """Return the tasks that have not started. They will not."""
        return take_all(self._waiting)

    def drain(self) -> None:
        """Notify running tasks that the worker is stopping."""
        self._soon(self._children.drain)

    def last_turn(self) -> float:
        """Return when its thread last turned, in monotonic time. It turns at least every 5 seconds."""
        return self._last_turn

    def close(self) -> None:
        """End all children and the fork server, whatever they do."""
        self._closing = True
        self._wake()
        self._thread.join(_START_TIME)

    def _soon(self, act: Callable[[], object]) -> None:
        """Call ``act`` in the executor's thread."""
        self._inbox.put(act)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # the pipe is full, so the thread wakes anyway; or it is closed
            os.write(self._waker, b"!")

    # -- the loop ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._turn()
            self._end_children()
        except Exception as error:
            event(logging.CRITICAL, "the process executor failed", exc_info=error)
            self._server.decide(f"{type(error).__name__}: {error}")
            self._callbacks.broken(error)
        finally:
            self._close()

    def _turn(self) -> None:
        self._last_turn = time.monotonic()
        self._server.start_if_due(self._children)
        for key, mask in self._selector.select(self._pause()):
            key.data(mask)
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()
        self._children.check_deadlines()
        self._fill()
        self._probe()
        self._count()

    def _pause(self) -> float:
        times = self._children.deadlines()
        if not self._server.is_running:
            times.append(self._server.next_try)
        elif self._shortage.next_try > time.monotonic():
            times.append(self._shortage.next_try)
        return min(_LONGEST_PAUSE, max(0.0, min(times, default=math.inf) - time.monotonic()))

    def _empty_wakeup(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)

    def _end_children(self) -> None:
        """End the children that run nothing, and wait until each has ended or was killed, if that takes time."""
        if self._children.end_idle():
            deadline = time.monotonic() + self._children.time_to_end
            while self._server.is_running and self._children.are_ending and time.monotonic() < deadline:
                self._turn()

    def _close(self) -> None:
        self._server.close()
        self._children.close()
        self._selector.close()
        for fd in (self._wakeup, self._waker):
            os.close(fd)

    # -- which child gets which task ---------------------------------------------------------------

    def _fill(self) -> None:
        """Give waiting tasks to children."""
        if not self._server.is_ready or self._children.is_draining:
            return
        concurrency = self._settings.concurrency
        idle = self._children.idle()
        while self._waiting and (idle or self._may_fork()):
            room = concurrency - len(self._children) + len(idle)
            runs = self._next_runs(room, self._settings.tasks_per_child - (idle[-1].tasks if idle else 0))
            if not runs:
                continue
            try:
                order = order_for(runs, self._late(runs))
            except TaskQueueError as error:  # the stored command line is invalid
                self._children.fail_unstarted(runs[0], error)
                continue
            is_command = runs[0].record.command
            if is_command and idle and len(self._children) >= concurrency:
                self._children.end(idle.pop())  # a command takes the place of a child that has nothing to do
            child = idle.pop() if idle and not is_command else self._children.fork()
            if child is None:
                self._waiting.extendleft(reversed(runs))
                return
            self._children.give(child, runs, order)

    def _late(self, runs: list[TaskRun]) -> list[Late]:
        """Return the functions of these tasks that the fork server did not know at its start, and let it load them."""
        found = {run.record.function: self._settings.runner.lookup.late(run.record) for run in runs}
        late = [each for each in found.values() if each is not None]
        for each in late:
            if each.name not in self._loaded:
                self._loaded.add(each.name)
                self._server.ask({"do": "load", "late": each._asdict()})  # so that later children need not import it
        return late

    def _next_runs(self, room: int, most: int) -> list[TaskRun]:
        """Take the tasks for one child: one task, or several if they are so short that many are waiting."""
        count = min(_MOST_AT_ONCE, most, math.ceil(len(self._waiting) / (2 * room)))
        if len(self._waiting) <= room:
            count = 1
        runs: list[TaskRun] = []
        with contextlib.suppress(IndexError):  # taken back meanwhile
            while len(runs) < count:
                if runs and self._waiting[0].record.command:
                    break
                run = self._waiting.popleft()
                if run.cancelled:
                    error = TaskCancelled(f"task {run.record.id}: cancellation was requested before it started")
                    self._children.fail_unstarted(run, error)
                    continue
                runs.append(run)
                if run.record.command:
                    break
        return runs

    def _may_fork(self) -> bool:
        """Return whether to request another child now."""
        return (
            len(self._children) < self._settings.concurrency
            and self._shortage.next_try <= time.monotonic()
            and self._children.forking < _FORKS_AT_ONCE
        )

    def _probe(self) -> None:
        """Keep one child ready during a shortage: a task is claimed only if a child is free."""
        if (
            self._shortage.is_on
            and self._server.is_ready
            and not (self._waiting or self._children.is_draining)
            and not self._children.idle()
            and self._may_fork()
        ):
            self._children.fork()

    def _count(self) -> None:
        """Limit the number of running tasks to the number of children during a shortage."""
        most = self._children.usable if self._shortage.is_on else self._settings.concurrency
        if most != self.most:
            self.most = most
            self._callbacks.room_changed()

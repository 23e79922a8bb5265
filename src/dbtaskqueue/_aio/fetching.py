"""``AsyncTaskQueue.fetch``: one thread for each queue claims tasks for all the coroutines that wait for them.

A blocked call of ``TaskQueue.fetch`` in a thread could not be cancelled, and each would take a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from .._system import clock
from .._worker.due import wait_until_due
from .._worker.served import ServedQueues
from ..checks import check_count
from ..errors import TaskQueueError
from ..queue import TaskQueue
from ..task import Task
from .threads import Threads, until_done

_LONGEST_WAIT = 5.0
"""Seconds after which the thread also checks for tasks of dead workers."""


@dataclass(eq=False, slots=True)
class _Request:
    """A call that waits. ``answer`` belongs to ``loop``; ``is_over``: its caller no longer waits.

    ``is_closed`` returns whether the database is closed in which it waits: see ``Handle.closing``.
    """

    max_items: int
    deadline: float | None
    is_closed: Callable[[], bool]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[Task]]
    is_over: bool = False


class Fetches:
    """The calls that wait for tasks of one queue, in order."""

    def __init__(self, source: TaskQueue, threads: Threads) -> None:
        self._queue = source
        self._threads = threads
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._claiming = threading.Lock()
        """The thread has it while it claims and answers."""
        self._requests: list[_Request] = []
        self._served: _Request | None = None
        self._rings = 0
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def closing(self) -> Callable[[], bool]:
        """Return a function that returns whether the database is closed that the queue uses now."""
        return self._queue._handle.closing()

    async def fetch(
        self, max_items: int, timeout: float | timedelta | None, is_closed: Callable[[], bool] | None = None
    ) -> list[Task]:
        """Reserve tasks as ``TaskQueue.fetch`` does. If this is cancelled, nothing is reserved when it ends."""
        check_count(max_items, "max_items")
        deadline = clock.deadline_of(timeout)
        loop = asyncio.get_running_loop()
        request = _Request(max_items, deadline, is_closed or self.closing(), loop, loop.create_future())
        self._add(request)
        try:
            return await asyncio.shield(request.answer)
        except asyncio.CancelledError:
            if not self._withdraw(request):
                await until_done(request.answer)
                if request.answer.exception() is None and request.answer.result():
                    await self._threads.settle(_release, request.answer.result())
            raise

    def stop(self) -> None:
        """End all calls that wait: they return no tasks. When this returns, the thread holds none for them."""
        if self._pid != os.getpid():
            return
        with self._lock:
            requests, served = list(self._requests), self._served
            for request in requests:
                request.is_over = True
            self._requests = [each for each in requests if each is served]
            self._ring()
        for request in requests:
            if request is not served:
                self._answer(request, [])
        with self._claiming:  # the claim that was in progress has ended
            pass

    def _add(self, request: _Request) -> None:
        if self._pid != os.getpid():  # the thread is that of the parent
            self._start_over()
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="dbtaskqueue-fetching", daemon=True)
                thread.start()  # this may raise: then nothing was added
                self._thread = thread
            self._requests.append(request)
            self._ring()

    def _withdraw(self, request: _Request) -> bool:
        """Remove a request. Return False if it has an answer, or will get one soon."""
        with self._lock:
            request.is_over = True
            is_waiting = request in self._requests and request is not self._served
            if is_waiting:
                self._requests.remove(request)
            self._ring()
            return is_waiting

    def _ring(self) -> None:
        self._rings += 1
        self._bell.put(None)

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while (request := self._next()) is not None:
            try:
                rings = self._rings
                with self._claiming:
                    is_answered = self._serve(request, self._claim(request))
                if not is_answered:
                    self._sleep(rings, request.is_closed)
            except BaseException as error:
                self._fail(request, error)

    def _next(self) -> _Request | None:
        """Return the first request. If there is none, the thread ends."""
        with self._lock:
            while not self._bell.empty():
                self._bell.get()
            self._served = self._requests[0] if self._requests else None
            if self._served is None:
                self._thread = None
            return self._served

    def _claim(self, request: _Request) -> list[Task]:
        if request.is_over:
            return []
        return self._queue._fetch(request.max_items, time.monotonic(), request.is_closed)

    def _serve(self, request: _Request, tasks: list[Task]) -> bool:
        """Answer what can be answered after a claim, and return whether that includes the request."""
        with self._lock:
            self._served = None
            is_over = request.is_over
            if tasks or is_over:
                self._requests.remove(request)
            ended = [] if tasks else [each for each in self._requests if self._has_ended(each)]
            self._requests = [each for each in self._requests if each not in ended]
        if is_over:
            _release(tasks)
        if tasks or is_over:
            self._answer(request, [] if is_over else tasks)
        for each in ended:
            self._answer(each, [])
        return bool(tasks) or is_over or request in ended

    @staticmethod
    def _has_ended(request: _Request) -> bool:
        return request.is_closed() or clock.has_passed(request.deadline)

    def _fail(self, request: _Request, error: BaseException) -> None:
        with self._lock:
            self._served = None
            if request in self._requests:
                self._requests.remove(request)
        self._answer(request, error)

    def _sleep(self, rings: int, is_closed: Callable[[], bool]) -> None:
        """Sleep until a task may be due, or the requests have changed. Takes no write lock."""
        with self._lock:
            deadlines = [each.deadline for each in self._requests if each.deadline is not None]
        until = min([time.monotonic() + _LONGEST_WAIT, *deadlines])
        if is_closed():
            return
        store = self._queue.store
        queues = ServedQueues(store, [self._queue.name])
        while self._rings == rings and not is_closed() and (left := until - time.monotonic()) > 0:
            if wait_until_due(store, queues, left, commands=False, bell=self._bell):
                return

    def _answer(self, request: _Request, answer: list[Task] | BaseException) -> None:
        try:
            request.loop.call_soon_threadsafe(_set, request.answer, answer)
        except RuntimeError:  # the loop is closed
            if not isinstance(answer, BaseException):
                _release(answer)


def _set(future: asyncio.Future[list[Task]], answer: list[Task] | BaseException) -> None:
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _release(tasks: Iterable[Task]) -> None:
    for task in tasks:
        with contextlib.suppress(TaskQueueError):  # if it cannot be stored now, its membership does so later
            task.release()

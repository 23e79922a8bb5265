"""What an executor and its threads share: its worker, and the futures that are not done.

One thread sets the results of futures, and ends the worker. It hears of ends from the worker of this executor, which
knows exceptions themselves, and from the database, since workers of other processes may run the tasks.
"""

from __future__ import annotations

import contextlib
import queue as queues
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor
from functools import partial
from typing import Any, NamedTuple

from ..._executors.lookup import refer
from ...errors import StoreUnavailable, TaskNotFound, TaskQueueError
from ...events import WorkerJoined
from ...extension import Extension
from ...options import ExecutorName
from ...queue import TaskQueue
from ...states import CANCELLED, FINAL, TaskState
from ...task import Task
from ...waiting import Waiting
from ...worker import Worker
from .calls import InitializerFailed, Known
from .future import TaskFuture

_TURN = 0.1
"""Seconds between two checks whether the main thread has ended."""
_WATCHED = 500
"""The most tasks whose states are read while this executor has a worker of its own, which reports what it ends."""
_PATIENCE = 5.0
"""Seconds for which an end that the own worker has stored may still be reported, with the exception itself."""


class _Ended(NamedTuple):
    """The worker of this executor has stored how an attempt ended."""

    task: Task[Any]
    outcome: str
    error: BaseException | None


class _Ends(Extension):
    """Tells an executor what its worker has stored."""

    def __init__(self, notices: queues.SimpleQueue[_Ended | int | None]) -> None:
        self._notices = notices

    def ended(self, task: Task[Any], outcome: str, error: BaseException | None) -> None:
        """See Extension."""
        self._notices.put(_Ended(task, outcome, error))


class Pool:
    """What an executor and its threads share. A thread of it sets the results of futures, and ends the worker."""

    def __init__(self, queue: TaskQueue, known: Known, max_workers: int, executor: ExecutorName) -> None:
        self.queue = queue
        self.known = known
        self.has_worker = max_workers > 0
        self._worker = Worker(queue, concurrency=max_workers, executor=executor) if self.has_worker else None
        self._executor = executor
        self._lock = threading.RLock()
        self._futures: dict[int, list[TaskFuture[Any]]] = {}
        self._unwatched: deque[int] = deque()
        self._watched: dict[int, Callable[[TaskState | None], object]] = {}
        self._expected: dict[int, float] = {}
        self._submitting = 0
        self._early: dict[int, _Ended] = {}
        self._own_workers: set[int] = set()
        self._waking: list[threading.Thread] = []
        self._is_shut = False
        self._is_stopping = False
        self._is_closing = False
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._notices: queues.SimpleQueue[_Ended | int | None] = queues.SimpleQueue()
        queue.use(_Ends(self._notices))
        queue.functions = known
        queue.events.listen(WorkerJoined, lambda fact: self._own_workers.add(fact.worker))

    # -- in any thread -----------------------------------------------------------------------------

    def add(self, function: Callable[..., Any]) -> str:
        """Make a function known, and return its name. Raises TypeError if a worker could not find it."""
        with self._lock:
            self._require_open()
        name, is_new = self.known.add(function)
        if is_new and self._executor == "process" and not _has_file() and (refer(function) or "")[0] == "__main__":
            raise TypeError(f"{function!r} is not in a file, so a child process cannot find it")
        if is_new:
            self.wake_left([name])
        return name

    def wake_left(self, names: Iterable[str]) -> None:
        """Let tasks of these functions run now that an executor without them has released for later."""
        if self.has_worker:  # in a thread, since reading 100,000 waiting tasks takes 0.1 s or more
            thread = threading.Thread(target=self._wake_left, args=[names], name="dbtaskqueue-left", daemon=True)
            thread.start()
            self._waking.append(thread)

    def _wake_left(self, names: Iterable[str]) -> None:
        def check(done: int, total: int) -> None:
            if self._is_closing:
                raise TaskQueueError("the executor is closed")

        with contextlib.suppress(TaskQueueError):  # if the database is unavailable, they run somewhat later
            for name in names:
                self.queue.reschedule_many(function=name, state="pending", due=">0s", start_in=0, progress=check)

    def submit(self, name: str, payloads: list[Any], options: Mapping[str, Any]) -> list[TaskFuture[Any]]:
        """Store tasks, and return their futures."""
        with self._lock:
            self._require_open()
            self._start()
            self._submitting += 1
        try:
            tasks = self.queue.submit(payloads, options, name)
            futures = [TaskFuture[Any](task, self._cancelled) for task in tasks]
            with self._lock:
                for future in futures:
                    id = future.task.id
                    self._futures.setdefault(id, []).append(future)
                    self._unwatched.append(id)
                    if (ended := self._early.pop(id, None)) is not None:
                        self._notices.put(ended)
        finally:
            with self._lock:
                self._submitting -= 1
                if not self._submitting:
                    self._early.clear()
        self._notices.put(None)
        return futures

    def _require_open(self) -> None:
        if self._broken is not None:
            raise BrokenExecutor(f"no more tasks can be run: {self._broken}") from self._broken
        if not threading.main_thread().is_alive():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def start(self) -> None:
        """Start the worker now, for tasks that an earlier process has left."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            # The interpreter waits for this thread at its exit. Without a worker, there is nothing to wait for.
            thread = threading.Thread(target=self._serve, name="dbtaskqueue-futures", daemon=not self.has_worker)
            thread.start()
            self._thread = thread

    def shut_down(self, wait: bool, cancel_futures: bool) -> None:
        """Take no more tasks. The thread ends when all futures are done."""
        with self._lock:
            self._is_shut = True
            futures = [future for each in self._futures.values() for future in each] if cancel_futures else []
            thread = self._thread
        for future in reversed(futures):  # the worker starts with the oldest
            future.cancel()
        self._notices.put(None)
        if thread is None:
            self._close()
        elif wait and self.has_worker and thread is not threading.current_thread():
            thread.join()

    # -- in the thread -----------------------------------------------------------------------------

    def _serve(self) -> None:
        worker = threading.Thread(target=self._work, name="dbtaskqueue-executor", daemon=True)
        if self._worker is not None:
            worker.start()
        while not self._is_over():
            with contextlib.suppress(queues.Empty):
                notice = self._notices.get(timeout=_TURN)
                while True:
                    self._heed(notice)
                    notice = self._notices.get_nowait()
            self._settle_expected()
            self._watch()
            if not threading.main_thread().is_alive():
                self._is_shut = True
        self._is_stopping = True
        if self._worker is not None:
            self._worker.stop()
            worker.join()
        self._close()

    def _close(self) -> None:
        self._is_closing = True
        for thread in self._waking:
            thread.join()
        self.queue.close()

    def _work(self) -> None:
        assert self._worker is not None
        try:
            self._worker.run()
            error: BaseException = RuntimeError("the worker was stopped")
        except BaseException as raised:
            error = raised
        if not self._is_stopping:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        self._broken = error
        self._notices.put(None)

    def _is_over(self) -> bool:
        """Return whether the thread may end. If the executor is broken, it fails all futures first."""
        with self._lock:
            broken = [] if self._broken is None else [future for each in self._futures.values() for future in each]
            if broken:
                self._futures.clear()
                self._watch()
        for future in broken:
            future.settle(partial(future.set_exception, BrokenExecutor(f"no more tasks run: {self._broken}")))
        with self._lock:
            is_ending = self._is_shut or self._broken is not None
            return is_ending and not self._futures and not self._submitting

    def _heed(self, notice: _Ended | int | None) -> None:
        if isinstance(notice, _Ended):
            if _says_broken(notice.error):
                self._break(BrokenExecutor("the initializer has failed"))
            elif notice.outcome in FINAL or (notice.outcome == "lost" and notice.task.state in FINAL):
                self._end(notice.task, notice.error)
        elif notice is not None:
            self._read(notice, is_last=False)

    def _end(self, task: Task[Any], error: BaseException | None = None) -> None:
        with self._lock:
            futures = self._futures.pop(task.id, None)
            if futures is None and self._submitting:
                self._early[task.id] = _Ended(task, str(task.state), error)
            if (watch := self._watched.pop(task.id, None)) is not None:
                Waiting.on(self.queue.store).discard(task.id, watch)
        self._expected.pop(task.id, None)
        for future in futures or ():
            future.end(task, error)

    def _watch(self) -> None:
        """Wait for the ends of tasks that other workers may run, the oldest first."""
        most = _WATCHED if self.has_worker else sys.maxsize
        with self._lock:
            for id in [id for id in self._watched if id not in self._futures]:
                Waiting.on(self.queue.store).discard(id, self._watched.pop(id))
            while self._unwatched and len(self._watched) < most:
                id = self._unwatched.popleft()
                if id in self._futures and id not in self._watched:
                    self._watched[id] = callback = partial(self._noticed, id)
                    Waiting.on(self.queue.store).add(id, callback)

    def _cancelled(self, task: Task[Any]) -> None:
        self._notices.put(_Ended(task, CANCELLED, None))

    def _noticed(self, id: int, state: TaskState | None) -> None:
        self._notices.put(id)

    def _read(self, id: int, *, is_last: bool) -> None:
        """Read a task that seems to have ended. If its end is about to be reported, wait for that."""
        with self._lock:
            self._watched.pop(id, None)
            if id not in self._futures:
                return
        try:
            task = self.queue.get(id)
        except TaskNotFound as error:
            for future in self._futures.pop(id, ()):
                future.settle(partial(future.set_exception, error))
            return
        except StoreUnavailable:
            self._expected[id] = time.monotonic() + _PATIENCE
            return
        if task.state not in FINAL:
            self._unwatched.append(id)
        elif task.worker in self._own_workers and not is_last:
            self._expected[id] = time.monotonic() + _PATIENCE
        else:
            self._end(task)

    def _settle_expected(self) -> None:
        now = time.monotonic()
        for id in [id for id, deadline in self._expected.items() if deadline < now]:
            del self._expected[id]
            self._read(id, is_last=True)


def _has_file() -> bool:
    main = sys.modules["__main__"]
    return bool(getattr(main, "__file__", None) or getattr(getattr(main, "__spec__", None), "name", None))


def _says_broken(error: BaseException | None) -> bool:
    name = f"{InitializerFailed.__module__}.{InitializerFailed.__qualname__}"
    return isinstance(error, InitializerFailed) or getattr(error, "type_in_child", None) == name

"""``QueueExecutor``: a ``concurrent.futures.Executor`` whose work survives the process.

Each call is a task in a database. If the process is killed, another one that opens the same database continues. A task
names its function, and never anything to import: an executor runs the functions that its program has submitted, and
those of ``functions=``. It leaves other tasks alone. Only the standard library is used.
"""

from __future__ import annotations

import copy
import itertools
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from ..._executors.lookup import refer
from ...calls import TaskCall
from ...errors import RemoteTraceback
from ...options import ExecutorName
from ...queue import TaskQueue
from ...retry import DEFAULT, RetryPolicy
from .calls import EACH, Known, calls
from .future import TaskFuture
from .pool import Pool
from .tagged import encode

__all__ = ["QueueExecutor", "RemoteTraceback", "TaskFuture"]

P = ParamSpec("P")
T = TypeVar("T")

_USING = {"priority", "key", "meta", "max_attempts", "time_limit", "stall_limit", "memory_limit", "expires_in"}
_AT_ONCE = 1000
"""The most tasks that ``map`` stores in one transaction."""


class QueueExecutor(Executor):
    """An executor whose calls are tasks in a database, which survive this process.

    ``url``: the database, as for ``TaskQueue``. ``queue``: the name of the queue. ``executor``: "thread" (the default),
    "process" or "asyncio", as for ``Worker``. ``max_workers``: how many calls run at the same time, by default as many
    as in the standard library's executors. 0, without ``executor``: only submit, for executors of other processes.

    ``functions``: functions, or modules with all functions that they define. Together with those that are submitted
    here, they are what this executor runs. With them, it immediately starts to run what an earlier process has left.

    ``retry``: the policy for calls that raise an exception; by default, an exception is final. A call whose process was
    killed together with its worker always runs again. ``initializer(*initargs)`` is called once in each thread or child
    process that runs calls. If it raises, the executor is broken.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        max_workers: int | None = None,
        executor: ExecutorName | None = None,
        queue: str = "executor",
        functions: Iterable[Callable[..., Any] | ModuleType] = (),
        retry: RetryPolicy | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
    ) -> None:
        if max_workers is None:
            max_workers = min(32, (os.cpu_count() or 1) + 4) if executor != "process" else os.cpu_count() or 1
        if max_workers < 0 or (max_workers == 0 and executor is not None):
            raise ValueError("max_workers must be greater than 0; to submit only, give max_workers=0 and no executor")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if initializer is not None and executor == "process" and refer(initializer) is None:
            raise TypeError(
                f"{initializer!r} cannot be found by its module and name, so no child process could call it;"
                " pass an initializer that is defined at the top of a module"
            )
        arguments = [encode(value, f"initargs[{index}]") for index, value in enumerate(initargs)]
        known = Known((calls, initializer, [retry is None, arguments]))
        self._pool = Pool(TaskQueue(url, queue, retry=retry or DEFAULT), known, max_workers, executor or "thread")
        self._options: Mapping[str, Any] = {}
        self._original: QueueExecutor | None = None  # the executor is shut down when its last copy is collected
        self._finalizer = weakref.finalize(self, self._pool.shut_down, False, False)
        self._finalizer.atexit = False
        for function in functions:
            if isinstance(function, ModuleType):
                known.add_module(function)
            else:
                known.add(function)
        if names := known.names():
            self._pool.wake_left(names)
            self._pool.start()

    def __repr__(self) -> str:
        return f"<QueueExecutor {self.queue!r}>"

    @property
    def queue(self) -> TaskQueue:
        """The queue in which the tasks are."""
        return self._pool.queue

    def using(self, **options: Any) -> QueueExecutor:
        """Return the same executor with other options for the calls that are submitted through it.

        Takes ``priority``, ``key``, ``meta``, ``max_attempts``, ``expires_in``, and the limits of ``enqueue``.
        """
        if unknown := set(options) - _USING:
            raise TypeError(f"using() takes {', '.join(sorted(_USING))}, not {', '.join(sorted(unknown))}")
        other = copy.copy(self)
        vars(other).update(_original=self._original or self, _options={**self._options, **options})
        return other

    def submit(self, fn: Callable[P, T] | TaskCall, /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Store a call, and return its future. The call is durable when this returns.

        ``fn``: a function that another process finds by its module and name, or a call that ``bind`` of a task function
        has returned. Arguments and results: JSON values, tuples, sets, bytes, dates and times, ``Decimal``, ``UUID``,
        paths and a few more. Raises TypeError for others, PayloadError for arguments that are too large.
        """
        if isinstance(fn, TaskCall):
            name, args, kwargs = fn.function, (*fn.args, *args), {**fn.kwargs, **kwargs}
            if self._pool.known.find(name) is None:
                raise TypeError(f"{name} is not among the functions of this executor: name it in functions=")
        else:
            name = self._pool.add(fn)
        if bad := [key for key in kwargs if key.startswith("$")]:
            raise TypeError(f"{name}: an argument cannot be called {bad[0]!r}")
        stored = {
            "args": [encode(value, f"args[{index}]") for index, value in enumerate(args)],
            "kwargs": {key: encode(value, key) for key, value in kwargs.items()},
        }
        return self._pool.submit(name, [stored], self._options)[0]

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Store a call for each tuple of arguments, and return an iterator over the results, in order.

        The calls are stored before this returns, 1,000 in one transaction. ``timeout``: seconds from now. With
        ``chunksize``, a task has that many calls. Closing the iterator cancels what has not started.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        deadline = None if timeout is None else time.monotonic() + timeout
        name = self._pool.add(fn)
        every = ([encode(value, "args") for value in args] for args in zip(*iterables))  # noqa: B905 - as map() does
        payloads: Iterator[Any] = ({"args": args, "kwargs": {}} for args in every)
        if chunksize > 1:
            chunks = iter(lambda: list(itertools.islice(every, chunksize)), [])
            payloads = ({"args": chunk, "kwargs": {EACH: True}} for chunk in chunks)
        futures: list[TaskFuture[Any]] = []
        while group := list(itertools.islice(payloads, _AT_ONCE)):
            futures += self._pool.submit(name, group, self._options)
        return _results(futures, deadline, is_chunked=chunksize > 1)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Those that were submitted still run: the end of the program waits for them.

        ``wait``: return when all futures are done and everything is closed. An executor without workers does not wait,
        since others run its calls. ``cancel_futures``: cancel the calls that have not started.
        """
        self._pool.shut_down(wait, cancel_futures)


def _results(futures: list[TaskFuture[Any]], deadline: float | None, *, is_chunked: bool) -> Iterator[Any]:
    futures.reverse()
    try:
        while futures:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if is_chunked:
                yield from futures[-1].result(left)
                futures.pop()
            else:
                result = [futures[-1].result(left)]
                futures.pop()
                yield result.pop()  # no reference to it stays here
    finally:
        for future in futures:
            future.cancel()

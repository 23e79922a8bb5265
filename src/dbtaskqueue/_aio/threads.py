"""Calls of the library in a few separate threads, for programs with an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_is_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("dbtaskqueue_in_a_thread", default=False)
"""Whether a call runs in a thread of ours now."""


class Threads:
    """At most ``most`` threads, started when they are needed. Any event loop may use them.

    The default executor of a loop also resolves host names and reads files, so a slow database must not fill it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # loops of several threads may use this
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Call a function in a thread, with the context variables of the caller.

        A call that such a call waits for has a thread of its own. With ``dbtaskqueue.testing.inline``, an ``enqueue``
        runs a task, which may enqueue another one, and so on: they would wait for each other's threads.
        """
        if _is_inside.get():
            return submit_apart(function, *args, **kwargs)
        if self._pid != os.getpid():  # the threads are those of the parent
            self._forget()
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(self._most, "dbtaskqueue-async")
            return _submit(self._pool, functools.partial(function, *args, **kwargs))

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a call returns. If this is cancelled, a call that has started continues in its thread."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    async def settle(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a call returns. If this is cancelled, it ends when the call has ended, or was not started."""
        submitted = self.submit(function, *args, **kwargs)
        return await _settled(submitted, submitted.cancel)

    async def complete(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a call returns. If this is cancelled, the call is made anyway, and this ends after it."""
        return await _settled(self.submit(function, *args, **kwargs), lambda: False)

    def close(self) -> None:
        """End the threads when their calls have ended. A later call starts others."""
        if self._pid != os.getpid():
            return
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


def submit_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
    """Call a function in a thread of its own, with the context variables of the caller."""
    pool = concurrent.futures.ThreadPoolExecutor(1, "dbtaskqueue-async-apart")
    try:
        return _submit(pool, functools.partial(function, *args, **kwargs))
    finally:
        pool.shutdown(wait=False)


async def settle_apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a call returns, which does not wait for another thread. If this is cancelled, the call still ends."""
    return await _settled(submit_apart(function, *args, **kwargs), lambda: False)


def _submit(pool: concurrent.futures.ThreadPoolExecutor, call: Callable[[], T]) -> concurrent.futures.Future[T]:
    context = contextvars.copy_context()
    context.run(_is_inside.set, True)
    return pool.submit(context.run, call)


async def _settled(submitted: concurrent.futures.Future[T], withdraw: Callable[[], bool]) -> T:
    """Return the result. If this is cancelled and ``withdraw`` returns False, it ends when the call has ended."""
    ended = asyncio.wrap_future(submitted)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not withdraw():
            await until_done(ended)
            ended.cancelled() or ended.exception()  # so that nothing is logged about it
        raise


async def until_done(future: asyncio.Future[T]) -> None:
    """Wait until a future is done, however often this is cancelled meanwhile."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])

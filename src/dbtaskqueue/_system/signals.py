"""SIGTERM and SIGINT drain a worker, and a person at a terminal sees a confirmation immediately.

A handler runs between two instructions of the main thread, which may hold the lock of a log handler or be in the
middle of writing to stderr. So it only counts, and puts an item into a queue; another thread does the logging.

For the same reason, a program that starts processes and draws on the terminal only notes a signal, and chooses when to
be interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any] | int | None
_NUMBERS = signal.SIGTERM, signal.SIGINT
_TO_EXIT = 5.0
"""Seconds after the end of the worker for which signals are ignored, so that the process can exit."""


@contextlib.contextmanager
def draining(stop: Callable[[], object], announce: Callable[[int], object]) -> Iterator[None]:
    """In the block, SIGTERM and SIGINT call ``stop``, and another thread calls ``announce`` with their number.

    Only the main thread may handle signals; in any other one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # safe if a handler interrupts another call of put

    def handle(number: int, frame: FrameType | None) -> None:
        stop()
        arrived.put(number)

    def announce_all() -> None:
        while (number := arrived.get()) is not None:
            announce(number)

    announcer = threading.Thread(target=announce_all, name="dbtaskqueue-signals", daemon=True)
    announcer.start()
    before = {number: signal.signal(number, handle) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            _set(number, handler)
        arrived.put(None)
        announcer.join()


@contextlib.contextmanager
def draining_until_exit(stop: Callable[[], object]) -> Iterator[None]:
    """Do the same as ``draining``, for a program that exits after the block. After it, the signals have no effect.

    Otherwise, a second signal would kill a worker that has just drained, and its exit code would not be 0.
    """
    ended_at: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        if ended_at is None:
            stop()
        elif time.monotonic() > ended_at + _TO_EXIT:  # something keeps the process from exiting
            _set(number, before[number])
            os.kill(os.getpid(), number)

    before: dict[int, _Handler] = {number: signal.signal(number, handle) for number in _NUMBERS}
    atexit.register(_ignore, _NUMBERS)  # at shutdown, Python resets our handler, but not SIG_IGN
    try:
        yield
    finally:
        ended_at = time.monotonic()


def noted_until_exit(*numbers: int) -> Callable[[], None]:
    """Only note these signals from now on. Return a function that raises KeyboardInterrupt if one has arrived.

    For a program that exits afterwards. Python's own handler raises KeyboardInterrupt between any two instructions. In
    the start of a progress bar, that leaves the terminal without its cursor. In code that ``exec`` runs from a string,
    as the import of a dataclass does, ``python -m`` exits as if SIGINT had killed it, even if the exception is caught.

    SIGINT stays ignored if it is: a shell starts programs in the background like this.
    """
    arrived = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal arrived
        arrived = True

    def raise_if_arrived() -> None:
        if arrived:
            raise KeyboardInterrupt

    for number in numbers:
        if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    atexit.register(_ignore, numbers)  # at shutdown, Python resets our handler, but not SIG_IGN
    return raise_if_arrived


def _ignore(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _set(number: int, handler: _Handler) -> None:
    # A handler that Python code did not set is None.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)

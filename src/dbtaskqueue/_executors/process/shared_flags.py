"""A page of memory that a worker shares with one child: what the child is to know at once, without a message.

Behind it, in the same file, the child leaves the stacks of its threads when it is asked for them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator

from ..._system.processes import system

# Offsets in the page. The worker and the child may have different versions, so a new flag takes the next free offset.
_CANCELLED = 0
_DRAINING = 1
_PINNED = 2
_HELD = 3
_WRITING = 4
_STACKS_AT = mmap.PAGESIZE
_LONGEST_STACKS = 64 * 1024
_PATIENCE = 1.0
_SHORT_PAUSE = 0.01

ASK_FOR_STACKS = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
"""The signal at which a child writes down its stacks; one that task code hardly uses."""


class SharedFlags:
    """Both sides open it by its file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)
        self._lock = threading.Lock()
        self._writers = 0
        self._thread = threading.local()
        self._owner = os.getpid()

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()
        os.close(self.fd)

    @property
    def cancelled(self) -> bool:
        """Whether the running task is to end."""
        return self._memory[_CANCELLED] != 0

    def cancel(self) -> None:
        """Tell the running task to end."""
        self._memory[_CANCELLED] = 1

    @property
    def draining(self) -> bool:
        """Whether the worker is to stop."""
        return self._memory[_DRAINING] != 0

    def drain(self) -> None:
        """Tell the running task that the worker is to stop."""
        self._memory[_DRAINING] = 1

    @property
    def pinned(self) -> bool:
        """Whether the worker reads the child's output, and the child stops after its task."""
        return self._memory[_PINNED] != 0

    @pinned.setter
    def pinned(self, value: bool) -> None:
        self._memory[_PINNED] = value

    @property
    def held(self) -> bool:
        """Whether the child is to start no transaction, since it will be stopped: it must not take locks along."""
        return self._memory[_HELD] != 0

    @held.setter
    def held(self, value: bool) -> None:
        self._memory[_HELD] = value

    @property
    def writing(self) -> bool:
        """Whether the child is in a transaction. Once it is held and has left it, it enters none."""
        return self._memory[_WRITING] != 0

    @contextlib.contextmanager
    def around_writes(self) -> Iterator[None]:
        """In the child: waits while it is held, and tells that it is in a transaction during the block.

        A thread that is in one already does not wait, and what the task has forked does as it likes.
        """
        if os.getpid() != self._owner or getattr(self._thread, "is_in", False):
            yield
            return
        self._enter(1)
        try:
            while self.held:
                self._enter(-1)
                try:
                    while self.held:
                        time.sleep(_SHORT_PAUSE)
                finally:
                    self._enter(1)
            self._thread.is_in = True
            yield
        finally:
            self._thread.is_in = False
            self._enter(-1)

    def _enter(self, one: int) -> None:
        with self._lock:
            self._writers += one
            self._memory[_WRITING] = self._writers > 0

    def ready_for_stacks(self) -> None:
        """Where the next stacks are written."""
        os.ftruncate(self.fd, _STACKS_AT)
        os.lseek(self.fd, _STACKS_AT, os.SEEK_SET)

    def stacks(self) -> str:
        """What the child wrote down since it was asked, once it has written; empty if it cannot."""
        deadline, length = time.monotonic() + _PATIENCE, -1
        while time.monotonic() < deadline:
            size = os.fstat(self.fd).st_size - _STACKS_AT
            if size > 0 and size == length:
                break
            length = size
            time.sleep(0.02)
        return os.pread(self.fd, _LONGEST_STACKS, _STACKS_AT).decode("utf-8", "replace")


def new_page() -> SharedFlags:
    """A page that nobody shares yet."""
    fd = system.anonymous_file()
    try:
        os.ftruncate(fd, _STACKS_AT)
        return SharedFlags(fd)
    except BaseException:
        os.close(fd)
        raise

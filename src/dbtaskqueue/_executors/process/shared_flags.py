"""A page of memory that a worker shares with one child: flags that either sees immediately, without a message.

After the page, the same file has room for the stacks of the child's threads, written when the worker asks for them.
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
_SUSPENDED = 3
_WRITING = 4
_STACKS_AT = mmap.PAGESIZE
_LONGEST_STACKS = 64 * 1024
_STACKS_WITHIN = 1.0
"""Seconds that a child may take to write its stacks."""
_STACKS_PAUSE = 0.02
_SUSPENDED_PAUSE = 0.01

ASK_FOR_STACKS = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR2
"""The signal that makes a child write its stacks. Task code rarely uses it."""


class SharedFlags:
    """The flags. Both sides open them by their file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)
        self._lock = threading.Lock()
        self._writers = 0
        self._thread = threading.local()
        self._owner = os.getpid()

    def close(self) -> None:
        """Close this side."""
        self._memory.close()
        os.close(self.fd)

    @property
    def cancelled(self) -> bool:
        """Whether the running task should stop."""
        return self._memory[_CANCELLED] != 0

    def cancel(self) -> None:
        """Request that the running task stops."""
        self._memory[_CANCELLED] = 1

    @property
    def draining(self) -> bool:
        """Whether the worker is draining."""
        return self._memory[_DRAINING] != 0

    def drain(self) -> None:
        """Notify the running task that the worker is draining."""
        self._memory[_DRAINING] = 1

    @property
    def pinned(self) -> bool:
        """Whether the worker reads the child's output, and the child stops after its task."""
        return self._memory[_PINNED] != 0

    @pinned.setter
    def pinned(self, value: bool) -> None:
        self._memory[_PINNED] = value

    @property
    def suspended(self) -> bool:
        """Whether the child must start no transaction: it will be suspended, and must hold no locks then."""
        return self._memory[_SUSPENDED] != 0

    @suspended.setter
    def suspended(self, value: bool) -> None:
        self._memory[_SUSPENDED] = value

    @property
    def writing(self) -> bool:
        """Whether the child is in a transaction. While it is suspended, it starts none."""
        return self._memory[_WRITING] != 0

    @contextlib.contextmanager
    def around_writes(self) -> Iterator[None]:
        """In the child: wait while it is suspended, and mark the block as a transaction.

        A thread that is in a transaction already does not wait. A process that the task has forked ignores all this.
        """
        if os.getpid() != self._owner or getattr(self._thread, "is_in", False):
            yield
            return
        self._enter(1)
        try:
            while self.suspended:
                self._enter(-1)
                try:
                    while self.suspended:
                        time.sleep(_SUSPENDED_PAUSE)
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
        """Remove the last stacks, and set where the next ones are written."""
        os.ftruncate(self.fd, _STACKS_AT)
        os.lseek(self.fd, _STACKS_AT, os.SEEK_SET)

    def stacks(self) -> str:
        """Wait for the stacks that the child was asked to write, and return them; "" if none arrive in time."""
        deadline, length = time.monotonic() + _STACKS_WITHIN, -1
        while time.monotonic() < deadline:
            size = os.fstat(self.fd).st_size - _STACKS_AT
            if size > 0 and size == length:
                break
            length = size
            time.sleep(_STACKS_PAUSE)
        return os.pread(self.fd, _LONGEST_STACKS, _STACKS_AT).decode("utf-8", "replace")


def new_flags() -> SharedFlags:
    """Return flags that are not shared yet."""
    fd = system.anonymous_file()
    try:
        os.ftruncate(fd, _STACKS_AT)
        return SharedFlags(fd)
    except BaseException:
        os.close(fd)
        raise

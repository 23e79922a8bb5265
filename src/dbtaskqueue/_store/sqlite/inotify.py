"""Waiting for a write to a file without polling: Linux's inotify, through the C library.

Polling as often as a quick start needs costs an idle worker 1 to 2 % of a core (``bench/idle.py``); a watch costs
nothing. Where there is no inotify, ``open_watch`` returns None and the caller polls.
"""

from __future__ import annotations

import os
import select

from ..._system.processes import system

_CLOSE_ON_EXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_MODIFY = 0x2


class Watch:
    """A watch on one file. It becomes stale when another file of the same name replaces that one."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._inode = os.stat(path).st_ino
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Sleep; True as soon as the file is written to."""
        if not self._poll.poll(seconds * 1000):
            return False
        self._drain()
        return True

    def is_stale(self) -> bool:
        """Return whether the path now leads to another file, or to none."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except OSError:
            return True

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def open_watch(path: str) -> Watch | None:
    """Return a watch on writes to ``path``; None if there can be none (no Linux, no file, no free watch)."""
    if system.name != "linux":
        return None
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(_CLOSE_ON_EXEC_NONBLOCK)
    except (ImportError, OSError, AttributeError):
        return None
    if fd < 0:
        return None
    if libc.inotify_add_watch(fd, os.fsencode(path), _MODIFY) < 0:
        os.close(fd)
        return None
    try:
        return Watch(fd, path)
    except OSError:
        os.close(fd)
        return None

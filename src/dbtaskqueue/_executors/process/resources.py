"""Limits of open files, processes and memory, and what a worker does when one is reached.

The worker cannot start children for a while, but it does not stop: running tasks continue, and the others wait.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from collections.abc import Sequence

from ..._system.backoff import doubling
from ..._system.log import event

PER_CHILD = 4
"""The file descriptors that a worker needs for each child: channel, output, and flags (which mmap duplicates)."""
SPARE = 32
"""File descriptors kept free for the rest: connections, log files, a new fork server."""
_FIXES = {
    errno.EMFILE: "raise ulimit -n (systemd: LimitNOFILE=) or lower the concurrency",
    errno.ENFILE: "raise the sysctl fs.file-max or lower the concurrency",
    errno.EAGAIN: "raise ulimit -u or the container's pids limit (systemd: TasksMax=), or lower the concurrency",
    errno.ETOOMANYREFS: "raise ulimit -n (systemd: LimitNOFILE=)",  # for descriptors that are in flight
    errno.ENOMEM: "provide more memory or lower the concurrency",
}
_QUIET = 60.0
_RETRY = 0.1, 5.0
"""Seconds before another try to start a child: after the first failure, and at most."""


def is_shortage(error: OSError) -> bool:
    """Return whether the error means that a resource has run out temporarily."""
    return error.errno in _FIXES


def make_room(concurrency: int) -> int:
    """Raise the soft limit of open files as far as ``concurrency`` children need it; warn if the hard limit is lower.

    Return the previous soft limit, which children keep. Its default of 1024 protects programs that use ``select()``:
    task code may, the worker does not. The limit is raised only as far as needed. The hard limit may be a billion in a
    container, and some programs loop over all possible descriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_files() + concurrency * PER_CHILD + 2 * SPARE  # the worker opens some files itself
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return soft
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # the kernel's own limit may be lower
        limit = soft
    if limit < needed:
        event(
            logging.WARNING,
            "the limit of open files is too low for the concurrency, so fewer tasks will run at the same time",
            limit=limit,
            needed=needed,
            concurrency=concurrency,
            fix=_FIXES[errno.EMFILE],
        )
    return soft


def _open_files() -> int:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(directory))
        except OSError:
            continue
    return SPARE


def check_spare(fds: Sequence[int]) -> None:
    """Raise OSError if these new descriptors are close to the limit. The kernel assigns the lowest free numbers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and max(fds) >= soft - SPARE:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Shortage:
    """Whether there is a shortage; logged once when it starts and once when it ends.

    It ends when there are as many children as wanted, or when no start of a child has failed for a minute.
    """

    def __init__(self, concurrency: int) -> None:
        self.is_on = False
        self.next_try = 0.0
        self._concurrency = concurrency
        self._last = 0.0
        self._failures = 0

    def note_failure(self, number: int | None, why: str, children: int) -> None:
        """Note that a child could not be started. ``number``: the errno. ``children``: how many others exist."""
        self._last = time.monotonic()
        self.next_try = self._last + doubling(self._failures, *_RETRY)
        self._failures += 1
        if not self.is_on:
            self.is_on = True
            event(
                logging.ERROR,
                "no more child processes can be started now, retrying",
                error=why,
                children=children,
                concurrency=self._concurrency,
                fix=_FIXES.get(number or 0, "lower the concurrency"),
            )

    def note_success(self, children: int) -> None:
        """Note that a child was started, and that ``children`` exist now."""
        self.next_try, self._failures = 0.0, 0
        is_over = children >= self._concurrency or time.monotonic() - self._last > _QUIET
        if self.is_on and is_over:
            self.is_on = False
            event(logging.WARNING, "child processes can be started again", children=children)

    def note_end(self) -> None:
        """Note that a child has ended. So another may be started immediately."""
        self.next_try = 0.0

"""What children cost a worker and its machine: file descriptors, processes, memory; and what happens when one runs out.

Then no child can be started for a while. That is no reason to stop: what runs continues, and the rest waits.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from collections.abc import Sequence

from ...log import event

PER_CHILD = 4
"""File descriptors that a worker has for each child: its channel, its output, its page (mmap duplicates that one)."""
SPARE = 32
"""Those that are left for what else a worker opens: connections, log files, a new fork server."""
_FIXES = {
    errno.EMFILE: "raise ulimit -n (systemd: LimitNOFILE=) or lower the concurrency",
    errno.ENFILE: "raise the sysctl fs.file-max or lower the concurrency",
    errno.EAGAIN: "raise ulimit -u or the container's pids limit (systemd: TasksMax=), or lower the concurrency",
    errno.ENOMEM: "provide more memory or lower the concurrency",
}
_QUIET = 60.0
_RETRY = 0.1, 5.0
"""Seconds until the next try to start a child, after the first failure and at most."""


def is_shortage(error: OSError) -> bool:
    """Whether something has run out that others may return."""
    return error.errno in _FIXES


def make_room(concurrency: int) -> int:
    """Raise the soft limit of open files as far as ``concurrency`` children need it; warn if the hard limit is lower.

    Returns the soft limit as it was: that is the one for children. The default of 1024 protects programs that use
    ``select()``, and task code may be one; this worker is not. It is raised only as far as needed, since the hard limit
    may be a billion in a container, and some programs walk over all possible descriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_files() + concurrency * PER_CHILD + 2 * SPARE  # this worker will open some itself
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return soft
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # where the kernel's own limit is lower
        limit = soft
    if limit < needed:
        event(
            logging.WARNING,
            "the limit of open files is too low for the concurrency, so fewer tasks will run at once",
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
    """Raise OSError if these new descriptors are among the last: numbers are given from the lowest free one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and max(fds) >= soft - SPARE:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Shortage:
    """Whether children are in short supply: logged once when it begins and once when it ends.

    It ends when there are as many children as wanted, or when none has failed to start for a minute.
    """

    def __init__(self, concurrency: int) -> None:
        self.is_on = False
        self.next_try = 0.0
        self._concurrency = concurrency
        self._last = 0.0
        self._failures = 0

    def note_failure(self, number: int | None, why: str, children: int) -> None:
        """A child could not be started, with this ``errno``; so many others exist."""
        self._last = time.monotonic()
        first, longest = _RETRY
        self.next_try = self._last + min(longest, first * 2 ** min(self._failures, 10))
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
        """One was started; so many exist now."""
        self.next_try, self._failures = 0.0, 0
        is_over = children >= self._concurrency or time.monotonic() - self._last > _QUIET
        if self.is_on and is_over:
            self.is_on = False
            event(logging.WARNING, "child processes can be started again", children=children)

    def note_end(self) -> None:
        """A child has ended, so another may be started at once."""
        self.next_try = 0.0

"""Make Python on Linux look like Python on macOS: remove the names that only Linux has before a program imports them.

With this directory in PYTHONPATH, this applies to a process and its children. It also hides /proc from the package, but
not from psutil, which has to work on Linux here.
"""

from __future__ import annotations

import os
import resource
import select
import selectors
import signal
import socket
import sys
import time
from types import FrameType, ModuleType

LINUX_ONLY: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("memfd_create", "pidfd_open", "eventfd", "eventfd_read", "eventfd_write", "splice", "copy_file_range"),
        *("sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "getrandom", "pipe2", "fdatasync"),
        *("posix_fadvise", "posix_fallocate", "getxattr", "setxattr", "listxattr", "O_PATH", "O_TMPFILE", "O_DIRECT"),
        *(
            "waitid",
            "waitid_result",
            "P_ALL",
            "P_PID",
            "P_PIDFD",
            "WEXITED",
            "WNOWAIT",
            "WSTOPPED",
        ),  # macOS has them from Python 3.13 on
        *("setresuid", "getresuid", "setresgid", "getresgid", "unshare", "setns"),
    ),
    resource: ("prlimit", "RLIMIT_RTPRIO", "RLIMIT_NICE", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RUSAGE_THREAD"),
    select: ("epoll", "EPOLLIN", "EPOLLOUT", "EPOLLPRI", "EPOLLERR", "EPOLLHUP"),
    signal: ("pidfd_send_signal", "sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT"),
    socket: ("SO_PEERCRED", "SO_PASSCRED", "MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI"),
}

for module, names in LINUX_ONLY.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]


def is_ours(frame: FrameType | None) -> bool:
    """Whether the package, and not psutil, is the innermost known caller."""
    while frame is not None:
        name = frame.f_code.co_filename
        if "/psutil/" in name:
            return False
        if "/src/dbtaskqueue/" in name:
            return True
        frame = frame.f_back
    return False


def hide_proc(event: str, arguments: tuple[object, ...]) -> None:
    """Raise FileNotFoundError if the package opens or lists anything below /proc."""
    if event in ("open", "os.listdir") and str(arguments[0]).startswith("/proc") and is_ours(sys._getframe(1)):
        raise FileNotFoundError(2, "/proc exists on Linux only", arguments[0])


sys.addaudithook(hide_proc)

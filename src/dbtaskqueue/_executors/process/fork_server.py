"""The fork server: imports the task's code once, and forks the children that run it.

Its children start quickly, and without any thread, lock or connection of the worker. The server has one thread, and
exchanges messages with its worker. It sends all signals to children: only their parent can be certain that a pid is
still that of a child.

Nothing that a child starts outlives it. A child is the subreaper of its descendants. When it ends, this server becomes
the parent of the processes that it has left, and kills them. When the worker ends, everything ends.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from ..._system.contract import Proc, peak_memory
from ..._system.processes import system
from ...checkpoints import ChildStore
from .. import lookup
from .channel import Channel, Message, record_from
from .child import Child, Surroundings, flush_streams
from .child_handle import ChildFds

_CHECK_PARENT = 1.0
"""Seconds between checks whether the worker is alive, on systems whose kernel does not report its end."""
_END = 5.0
"""Seconds that killed processes may take to end."""
_RETRY_PAUSE = 0.001
_START = f"""
import importlib.machinery, importlib.util, sys
spec = importlib.machinery.PathFinder.find_spec(sys.argv[1], [sys.argv[2]])
package = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from {__name__} import main
main()
"""
"""Imports this package from the worker's copy of it, and nothing else from that directory."""


def command() -> list[str]:
    """Return the command line of a fork server, which expects its socket as stdin.

    ``-P`` keeps the current directory out of ``sys.path``, and the worker's path is set only later. Otherwise a file
    ``json.py`` or ``signal.py`` there would replace the standard library's.
    """
    package = __name__.partition(".")[0]
    directory = os.path.dirname(os.path.abspath(sys.modules[package].__path__[0]))
    return [sys.executable, "-P", "-c", _START, package, directory]


def main() -> NoReturn:
    """Serve the worker at the other end of the socket that is stdin, until the worker ends."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    system.die_with_parent(signal.SIGTERM)
    channel = Channel(socket.socket(fileno=os.dup(0)))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # done now: once a child has replaced a file by its pipe, setting errors= fails
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the worker has ended already
        orders = channel.next()
        assert orders is not None
        surroundings = _prepare(orders, channel)
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        channel.deliver({"ready": threads})
        ForkServer(channel, orders["parent"], surroundings).serve()
    sys.exit(0)


def _prepare(orders: Message, channel: Channel) -> Surroundings:
    sys.argv = orders["argv"]
    if (limit := orders.get("open_files")) is not None:  # the worker has raised its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if orders["log_level"] is not None:
        logging.basicConfig(level=orders["log_level"], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        sys.path[:] = [*_standard_library(), *orders["path"]]  # for the database driver and its imports
        database = ChildStore(orders["url"])
        sys.path[:] = orders["path"]
        found = lookup.load(record_from(lookup.Origin, orders["origin"]))
        database.disconnect_if_free()
        return Surroundings(found, database, orders["max_payload"])
    except BaseException as error:  # importing the code may raise anything
        reason = f"{type(error).__name__}: {error}{lookup.place_of(error)}"
        channel.deliver({"broken": f"the fork server cannot import the code: {reason}"})
        sys.exit(1)


def _standard_library() -> list[str]:
    home = os.path.dirname(os.__file__)
    return [home, os.path.join(home, "lib-dynload")]


class ForkServer:
    """Carries out the worker's requests, and reports which children have ended."""

    def __init__(self, channel: Channel, parent: int, surroundings: Surroundings) -> None:
        self._channel = channel
        self._parent = parent
        self._surroundings = surroundings
        self._pids: dict[int, int] = {}  # the worker's number for a child: its pid
        self._numbers: dict[int, int] = {}
        self._own = system.children()  # children that the imported code has started itself
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._waker = os.pipe()
        self._adopts = False
        self._requests: dict[str, Callable[[Message], object]] = {
            "fork": self._fork,
            "signal": self._signal,
            "ask": self._ask,
            "kill": self._kill,
            "load": self._load,
        }

    def serve(self) -> None:
        """Serve until the worker ends. Then end everything."""
        for fd in (self._wakeup, self._waker):
            os.set_blocking(fd, False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)  # only wakes the loop, which checks for ended children
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._adopts = system.adopt_orphans()
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()  # a garbage collection would write to, and so copy, memory that the children share
        try:
            while os.getppid() == self._parent:
                self._turn()
        except (EOFError, OSError):
            pass  # the worker has ended
        finally:
            self._end_everything()

    def _turn(self) -> None:
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._channel.is_behind else 0)
        self._selector.modify(self._channel, mask)
        for key, ready in self._selector.select(_CHECK_PARENT):
            if key.fd == self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 4096)
            elif ready & selectors.EVENT_READ:
                for message in self._channel.receive():
                    if (act := self._requests.get(message["do"])) is not None:
                        act(message)
            else:
                self._channel.flush()
        self._reap()

    def _fork(self, request: Message) -> None:
        number = request["child"]
        fds: dict[str, int] = {}
        flush_streams()  # otherwise each child would also write what is buffered here
        try:
            fds = dict(zip(request["fds"], self._channel.take_fds(len(request["fds"])), strict=True))
            pid = os.fork()
        except OSError as error:
            self._channel.send({"fork_failed": number, "error": str(error), "errno": error.errno})
            pid = -1
        if pid == 0:
            self._become(fds)
        for fd in fds.values():
            os.close(fd)
        if pid > 0:
            self._pids[number] = pid
            self._numbers[pid] = number
            self._channel.send({"forked": number, "pid": pid})

    def _become(self, fds: dict[str, int]) -> NoReturn:
        """In the new process: become a child, and keep nothing of the fork server."""
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            parent = os.getppid()
            with contextlib.suppress(OSError):  # a kqueue is not inherited, which Python handles only from 3.13 on
                self._selector.close()
            self._channel.close()
            os.close(self._wakeup)
            os.close(self._waker)
            Child(record_from(ChildFds, fds), parent=parent, surroundings=self._surroundings).serve()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _load(self, request: Message) -> None:
        """Import a function that was registered later, for the children that are forked from now on."""
        with contextlib.suppress(Exception):  # each child tries it again, and its task fails with the error
            self._surroundings.lookup.learn(record_from(lookup.Late, request["late"]))

    def _signal(self, request: Message) -> None:
        pid = self._pids.get(request["child"])
        if pid is not None:
            _send(pid, request["number"])

    def _ask(self, request: Message) -> None:
        """Send a signal to the child only, not to the processes that it has started."""
        pid = self._pids.get(request["child"])
        if pid is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, request["number"])

    def _kill(self, request: Message) -> None:
        """Kill a child and its group. Processes that have left the group become orphans, which are killed separately.

        So this need not read the list of all processes, which would take milliseconds for each child. On a system where
        this process cannot adopt orphans, it must: they can be found only before the child ends.
        """
        pid = self._pids.get(request["child"])
        if pid is None:
            return
        family = [] if self._adopts else system.family(pid)
        _kill_all(pid, family)
        _wait_for_end({proc.pid for proc in family} - {pid})

    # -- ends --------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                reaped = system.reap(self._kill_group)
            except ChildProcessError:
                return
            if reaped is None:
                return
            pid, status, usage = reaped
            number = self._numbers.pop(pid, None)
            if number is None:
                continue
            del self._pids[number]
            self._end_orphans()
            self._channel.send(
                {
                    "gone": number,
                    "code": os.waitstatus_to_exitcode(status),
                    "cpu": usage.ru_utime + usage.ru_stime,
                    "memory": peak_memory(usage),
                }
            )

    def _kill_group(self, pid: int) -> None:
        if pid in self._numbers:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    def _end_orphans(self) -> None:
        """Kill the processes that ended children have left. Live children reap their own orphans."""
        if not self._adopts:
            return
        deadline = time.monotonic() + _END
        while orphans := system.children() - self._numbers.keys() - self._own:
            for pid in orphans:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_RETRY_PAUSE)
            for pid in orphans:
                with contextlib.suppress(OSError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:  # stuck in the kernel; it ends as soon as it can
                return

    def _end_everything(self) -> None:
        processes = system.processes()
        for pid in self._numbers:
            _kill_all(pid, system.family(pid, processes))
        self._numbers.clear()
        self._end_orphans()
        with contextlib.suppress(ChildProcessError):  # none are left
            deadline = time.monotonic() + _END
            while time.monotonic() < deadline:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(_RETRY_PAUSE)


def _kill_all(pid: int, family: list[Proc]) -> None:
    """Kill a child, its group, and the members of its family."""
    for kill in (os.killpg, os.kill):  # a child that was forked just now may not lead a group yet
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    for proc in family:
        with contextlib.suppress(OSError):
            os.kill(proc.pid, signal.SIGKILL)


def _wait_for_end(pids: set[int]) -> None:
    """Wait until these killed processes, which are not children of this one, have ended."""
    deadline = time.monotonic() + _END
    while pids and time.monotonic() < deadline:
        time.sleep(_RETRY_PAUSE)
        processes = system.processes()
        pids = {pid for pid in pids if pid in processes and not processes[pid].is_zombie}


def _send(pid: int, number: int) -> None:
    """Send a signal to a child, to its group, and to descendants that have left the group."""
    with contextlib.suppress(OSError):
        os.killpg(pid, number)
    for proc in system.family(pid):
        if proc.group != pid:
            with contextlib.suppress(OSError):
                os.kill(proc.pid, number)

"""A child: runs tasks of one worker, one after the other, in a process of its own.

It leads a session and a process group. SIGTERM ends the task that runs, if its worker has asked for that;
from anybody else it means nothing here: a supervisor that stops a whole service sends it to everyone,
and the worker will say what is to be done. With its parent, the fork server, it dies at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ... import outcomes
from ..._formats.command_line import CommandLine
from ..._store.contract import TaskRecord
from ..._system.contract import peak_memory
from ..._system.processes import system
from ...checkpoints import Checkpoints, Reach
from ...errors import AbandonTask, LeaseLost, ReleaseTask, RetryTask, StoreUnavailable, TaskCancelled
from ..lookup import Lookup
from ..runner import Runner
from ..task_run import TaskRun
from .channel import Channel, Message, record_from
from .child_handle import ChildFds
from .shared_flags import ASK_FOR_STACKS, SharedFlags

_REPORT = 0.5
"""Seconds between two reports of progress to the worker."""
_CHECK_PARENT = 1.0
"""Seconds between two checks whether the fork server still exists, where the kernel does not watch it."""
_PIPE = 2**16
_REST = 2.0
"""Seconds without a task after which a connection to the database is closed."""
_IDLE = 10.0
"""Seconds in which a running task has kept nothing after which it is closed, too: a server has not many."""


class Surroundings(NamedTuple):
    """What the fork server has prepared for all children: the code, and the way to the database."""

    code: Lookup
    reach: Reach
    max_payload: int


def flush_streams() -> None:
    """Write what Python buffers for stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _cpu_so_far() -> float:
    """Seconds of a CPU that this process has taken, and the children that it waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Child:
    """Serves one worker. Runs in the main thread, so that SIGTERM can end a task where it is."""

    def __init__(self, fds: ChildFds, *, parent: int, surroundings: Surroundings) -> None:
        self._fds = fds
        self._page = SharedFlags(fds.page)
        self._parent = parent
        self._surroundings = surroundings
        self._pid = os.getpid()
        self._work: TaskRun | None = None
        self._is_in_code = False
        self._reporter: threading.Thread | None = None
        self._own_threads = 1
        self._sending = threading.Lock()
        self._peak = _PeakMemory()
        self._runner = Runner(
            surroundings.code,
            max_payload=surroundings.max_payload,
            checkpoints=self._checkpoints,
            is_draining=lambda: self._page.draining,
            is_cancelled=lambda run: self._page.cancelled,
            guard=self._in_code,
        )

    def serve(self) -> None:
        """Run what comes until the worker hangs up."""
        os.setsid()
        if not system.die_with_parent():
            self._start_thread(self._die_with_parent, "parent")
        if os.getppid() != self._parent:
            return
        system.adopt_orphans()
        self._set_up_output()
        signal.signal(signal.SIGTERM, self._on_term)
        faulthandler.enable()
        self._page.ready_for_stacks()
        faulthandler.register(ASK_FOR_STACKS, file=self._page.fd, all_threads=True)
        self._channel = Channel(socket.socket(fileno=self._fds.channel))
        self._surroundings.reach.surround_writes(self._page.around_writes)
        while (message := self._next()) is not None:
            if "command" in message:
                self._become_command(message)
            self._run_all(message["tasks"])

    def _run_all(self, orders: list[Message]) -> None:
        last = len(orders) - 1
        for number, order in enumerate(orders):
            is_clean = self._run(order)
            if number == last:
                return
            if not is_clean or self._page.pinned:  # the rest is for others
                self._channel.deliver({"stopped": True})
                return

    def _set_up_output(self) -> None:
        os.dup2(self._fds.written, 1)
        os.dup2(self._fds.written, 2)
        os.close(self._fds.written)
        for stream in (sys.stdout, sys.stderr):  # again, since the task's module may have replaced them
            with contextlib.suppress(Exception):
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def _next(self) -> Message | None:
        try:
            message = self._channel.next(_REST)
            if message is None:
                self._surroundings.reach.disconnect()
                message = self._channel.next()
            return message
        except (EOFError, OSError):
            return None

    # -- one task ----------------------------------------------------------------------------------

    def _run(self, message: Message) -> bool:
        work = self._work = TaskRun(record_from(TaskRecord, message["record"]), start_stored=message["start_stored"])
        self._peak.reset()
        before = _cpu_so_far()
        self._runner.execute(work)
        self._is_in_code = False  # also if SIGTERM came while the guard was entered or left
        flush_streams()
        work.spend(_cpu_so_far() - before, self._peak.bytes())
        return self._report_end(work)

    @contextlib.contextmanager
    def _in_code(self, work: TaskRun) -> Iterator[None]:
        """While the block runs, SIGTERM raises TaskCancelled in it."""
        try:
            self._is_in_code = True
            if self._page.cancelled:
                work.cancel()
                raise _cancelled(work)
            yield
        finally:
            self._is_in_code = False

    def _on_term(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # a process that the task has forked (multiprocessing): to it, it means the end
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        work = self._work
        if work is None or not self._page.cancelled:
            return
        work.cancelled = True
        if (stop := work.stop) is not None:  # a coroutine: its loop ends it
            stop()
        elif self._is_in_code:
            raise _cancelled(work)

    def _checkpoints(
        self, record: TaskRecord, started_at: Callable[[], int | None], is_over: Callable[[], bool]
    ) -> Checkpoints:
        if self._reporter is None:
            self._reporter = self._start_thread(self._report, "progress")
        return self._surroundings.reach.checkpoints(record, started_at, is_over)

    def _start_thread(self, act: Callable[[], object], name: str) -> threading.Thread:
        thread = threading.Thread(target=act, name=f"dbtaskqueue-{name}", daemon=True)
        thread.start()
        self._own_threads += 1
        return thread

    def _die_with_parent(self) -> None:
        """In a thread, where the kernel does not do it: kill this process and its group when its parent ends."""
        while os.getppid() == self._parent:
            time.sleep(_CHECK_PARENT)
        os.killpg(self._pid, signal.SIGKILL)

    def _report(self) -> None:
        """In a thread: tell the worker how far the task has got, and rest from the database."""
        told: object = None
        while True:
            time.sleep(_REPORT)
            work = self._work
            if work is not None and work.keeper is not None:
                self._rest_from(work.keeper)
            latest = None if work is None or work.tracker is None else work.tracker.latest
            if work is None or latest is None or latest is told:
                continue
            with self._sending, contextlib.suppress(OSError):
                if self._work is work:  # else its end has told it
                    self._channel.deliver({"progress": _named(latest)})
                    told = latest

    def _rest_from(self, keeper: Checkpoints) -> None:
        if 0.0 < keeper.used_at < time.monotonic() - _IDLE:
            keeper.used_at = 0.0  # before it is closed: whoever uses it meanwhile opens it again
            self._surroundings.reach.disconnect_if_free()

    def _report_end(self, work: TaskRun) -> bool:
        message: Message = {
            "end": work.ended_at,
            "start": work.started_at,
            "result": work.result,
            "has_ended": work.has_ended,
            "progress": None if work.tracker is None else _named(work.tracker.latest),
            "cpu": None if work.cpu is None else work.cpu / 1e6,
            "memory": work.memory,
        }
        is_clean = message["is_clean"] = self._is_clean()
        if not self._page.pinned and (output := self._own_output()):
            message["output"] = output
        if work.error is not None:
            message["error"] = packed(work.error)
        with self._sending:
            self._work = None
            self._channel.deliver(message)
        return is_clean

    def _own_output(self) -> str:
        """What the task wrote, unless the worker has read it; each character is a byte."""
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while len(data) < _PIPE and (chunk := os.read(self._fds.output, _PIPE)):
                data += chunk
        return data.decode("latin-1")

    def _is_clean(self) -> bool:
        """Whether the task has left nothing behind that would go on: no process, no thread."""
        if threading.active_count() > self._own_threads:
            return False
        return not system.has_children()  # where it adopts orphans, those further down are its children

    # -- commands ----------------------------------------------------------------------------------

    def _become_command(self, message: Message) -> None:
        """Be the command from now on: its exit is the end of the attempt."""
        argv, directory, environment = record_from(CommandLine, message["command"])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        try:
            if directory is not None:
                os.chdir(directory)
            os.execvpe(argv[0], argv, {**os.environ, **environment})
        except (OSError, ValueError) as error:
            reason = f"the command {argv[0]!r} could not be started: {error}"
            self._channel.deliver(
                {"end": True, "error": {"name": type(error).__name__, "message": reason, "text": reason}}
            )
            os._exit(127)


def _cancelled(work: TaskRun) -> TaskCancelled:
    return TaskCancelled(f"task {work.record.id} was asked to end, or its claim is gone")


def _named(progress: tuple[float, float | None, str | None] | None) -> Message | None:
    return None if progress is None else dict(zip(("done", "total", "message"), progress, strict=True))


class _PeakMemory:
    """The most memory that this process had since ``reset``, in bytes. Linux: ``clear_refs`` in proc(5)."""

    def __init__(self) -> None:
        self._clear: int | None = None
        with contextlib.suppress(OSError):
            self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)

    def reset(self) -> None:
        if self._clear is not None:
            with contextlib.suppress(OSError):
                os.write(self._clear, b"5")

    def bytes(self) -> int:
        return peak_memory(resource.getrusage(resource.RUSAGE_SELF))


def packed(error: BaseException) -> dict[str, Any]:
    """An exception as a message: its text as it is stored, and what it chooses."""
    try:
        message = str(error)
    except Exception:
        message = "(its text cannot be shown)"
    found: dict[str, Any] = {"name": type(error).__name__, "message": message, "text": outcomes.describe(error)}
    if isinstance(error, RetryTask | ReleaseTask):
        found["delay"] = error.delay
    for kind in (RetryTask, ReleaseTask, AbandonTask, TaskCancelled, LeaseLost, StoreUnavailable):
        if isinstance(error, kind):
            found["kind"] = kind.__name__
    return found

"""A child process: runs tasks of one worker, one after the other.

It leads a session and a process group. SIGTERM stops the running task if the worker has requested that. Otherwise
SIGTERM is ignored: a supervisor that stops a service sends it to every process, and the worker decides what follows.
If its parent, the fork server, ends, the child ends immediately.
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
from ...checkpoints import Checkpoints, ChildStore
from ...errors import AbandonTask, LeaseLost, ReleaseTask, RetryTask, StoreUnavailable, TaskCancelled
from ..lookup import Late, Lookup
from ..runner import Runner
from ..task_run import TaskRun
from .channel import Channel, Message, record_from
from .child_handle import ChildFds
from .shared_flags import ASK_FOR_STACKS, SharedFlags

_REPORT = 0.5
"""Seconds between two reports of progress to the worker."""
_CHECK_PARENT = 1.0
"""Seconds between checks whether the fork server is alive, on systems whose kernel does not report its end."""
_PIPE = 2**16
_DISCONNECT_AFTER = 2.0
"""Seconds without a task after which the connection to the database is closed."""
_DISCONNECT_TASK_AFTER = 10.0
"""Seconds without a checkpoint after which it is closed while a task runs, since a server has few connections."""


class Surroundings(NamedTuple):
    """What the fork server prepares for all children: the code, and access to the database."""

    lookup: Lookup
    database: ChildStore
    max_payload: int


def flush_streams() -> None:
    """Write what Python buffers for stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _cpu_so_far() -> float:
    """CPU seconds that this process has used, and the children that it waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Child:
    """Serves one worker. Runs in the main thread, so that SIGTERM can interrupt a task."""

    def __init__(self, fds: ChildFds, *, parent: int, surroundings: Surroundings) -> None:
        self._fds = fds
        self._flags = SharedFlags(fds.flags)
        self._parent = parent
        self._database = surroundings.database
        self._pid = os.getpid()
        self._run: TaskRun | None = None
        self._is_in_code = False
        self._reporter: threading.Thread | None = None
        self._threads = 0  # how many threads it has without a task, apart from the reporter
        self._sending = threading.Lock()
        self._peak = _PeakMemory()
        self._runner = Runner(
            surroundings.lookup,
            max_payload=surroundings.max_payload,
            checkpoints=self._checkpoints,
            is_draining=lambda: self._flags.draining,
            is_cancelled=lambda run: self._flags.cancelled,
            guard=self._interruptible,
        )

    def serve(self) -> None:
        """Run the tasks that are sent, until the worker closes its end."""
        os.setsid()
        if not system.die_with_parent():
            threading.Thread(target=self._die_with_parent, name="dbtaskqueue-parent", daemon=True).start()
        if os.getppid() != self._parent:
            return
        system.adopt_orphans()
        self._set_up_output()
        signal.signal(signal.SIGTERM, self._on_term)
        faulthandler.enable()
        self._flags.ready_for_stacks()
        faulthandler.register(ASK_FOR_STACKS, file=self._flags.fd, all_threads=True)
        self._channel = Channel(socket.socket(fileno=self._fds.channel))
        self._database.surround_writes(self._flags.around_writes)
        while (message := self._next()) is not None:
            if "command" in message:
                self._become_command(message)
            self._learn(message.get("late", ()))
            self._enter_process()
            self._run_all(message["tasks"])
        self._runner.process.leave()

    def _die_with_parent(self) -> None:
        """Kill this process and its group when its parent has ended. Runs in a thread, unless the kernel does this."""
        while os.getppid() == self._parent:
            time.sleep(_CHECK_PARENT)
        os.killpg(self._pid, signal.SIGKILL)

    def _learn(self, late: list[Message]) -> None:
        for each in late:
            with contextlib.suppress(Exception):  # its task fails, since the function is not found
                self._runner.lookup.learn(record_from(Late, each))

    def _enter_process(self) -> None:
        if not self._threads:
            self._runner.process.enter()
            self._threads = threading.active_count()

    def _run_all(self, orders: list[Message]) -> None:
        last = len(orders) - 1
        for number, order in enumerate(orders):
            is_clean = self._run_one(order)
            if number == last:
                return
            if not is_clean or self._flags.pinned:  # other children get the rest
                self._channel.deliver({"stopped": True})
                return

    def _set_up_output(self) -> None:
        os.dup2(self._fds.written, 1)
        os.dup2(self._fds.written, 2)
        os.close(self._fds.written)
        for stream in (sys.stdout, sys.stderr):  # done again, since the task's module may have replaced them
            with contextlib.suppress(Exception):
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def _next(self) -> Message | None:
        try:
            message = self._channel.next(_DISCONNECT_AFTER)
            if message is None:
                self._database.disconnect()
                message = self._channel.next()
            return message
        except (EOFError, OSError):
            return None

    # -- one task ----------------------------------------------------------------------------------

    def _run_one(self, order: Message) -> bool:
        """Run a task and report its end. Return whether the child is clean afterwards."""
        run = self._run = TaskRun(record_from(TaskRecord, order["record"]), start_stored=order["start_stored"])
        self._peak.reset()
        before = _cpu_so_far()
        self._runner.execute(run)
        self._is_in_code = False  # holds even if SIGTERM arrived while the guard was entered or left
        flush_streams()
        run.spend(_cpu_so_far() - before, self._peak.bytes())
        return self._report_end(run)

    @contextlib.contextmanager
    def _interruptible(self, run: TaskRun) -> Iterator[None]:
        """While the block runs, SIGTERM raises TaskCancelled in it."""
        try:
            self._is_in_code = True
            if self._flags.cancelled:
                run.cancel()
                raise _cancelled(run)
            yield
        finally:
            self._is_in_code = False

    def _on_term(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # in a process that the task has forked (multiprocessing), it ends the process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        run = self._run
        if run is None or not self._flags.cancelled:
            return
        run.cancelled = True
        if (stop := run.stop) is not None:  # a coroutine: its event loop stops it
            stop()
        elif self._is_in_code:
            raise _cancelled(run)

    # -- reports to the worker ---------------------------------------------------------------------

    def _checkpoints(
        self, record: TaskRecord, started_at: Callable[[], int | None], is_over: Callable[[], bool]
    ) -> Checkpoints:
        """Return the task's ``Checkpoints``. Called at its first ``current_task()``: others report no progress."""
        if self._reporter is None:
            self._reporter = threading.Thread(target=self._report, name="dbtaskqueue-progress", daemon=True)
            self._reporter.start()
        return self._database.checkpoints(record, started_at, is_over)

    def _report(self) -> None:
        """In a thread: report the task's progress to the worker, and close a connection that is not used."""
        reported: object = None
        while True:
            time.sleep(_REPORT)
            run = self._run
            if run is None:
                continue
            if run.checkpoints is not None:
                self._disconnect_unused(run.checkpoints)
            latest = None if run.tracker is None else run.tracker.latest
            if latest is None or latest is reported:
                continue
            with self._sending, contextlib.suppress(OSError):
                if self._run is run:  # otherwise the report of its end contains it
                    self._channel.deliver({"progress": _named(latest)})
                    reported = latest

    def _disconnect_unused(self, checkpoints: Checkpoints) -> None:
        if 0.0 < checkpoints.used_at < time.monotonic() - _DISCONNECT_TASK_AFTER:
            checkpoints.used_at = 0.0  # set first, since the next use opens a connection again
            self._database.disconnect_if_free()

    def _report_end(self, run: TaskRun) -> bool:
        message: Message = {
            "end": run.ended_at,
            "start": run.started_at,
            "result": run.result,
            "has_ended": run.has_ended,
            "progress": None if run.tracker is None else _named(run.tracker.latest),
            "cpu": None if run.cpu is None else run.cpu / 1e6,
            "memory": run.memory,
        }
        is_clean = message["is_clean"] = self._is_clean()
        if not self._flags.pinned and (output := self._own_output()):
            message["output"] = output
        if run.error is not None:
            message["error"] = packed(run.error)
        if run.backoff is not None:
            message["backoff"] = run.backoff._asdict()
        with self._sending:
            self._run = None
            self._channel.deliver(message)
        return is_clean

    def _own_output(self) -> str:
        """Return what the task wrote, unless the worker reads it. Each character is one byte."""
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while len(data) < _PIPE and (chunk := os.read(self._fds.output, _PIPE)):
                data += chunk
        return data.decode("latin-1")

    def _is_clean(self) -> bool:
        """Return whether the task has left no process and no thread running."""
        own = self._threads + (self._reporter is not None)
        if threading.active_count() > own:
            return False
        return not system.has_children()  # orphaned descendants are its children, too, if it adopts orphans

    # -- commands ----------------------------------------------------------------------------------

    def _become_command(self, message: Message) -> None:
        """Replace this process by the command. Its exit ends the attempt."""
        argv, directory, environment = record_from(CommandLine, message["command"])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        try:
            if directory is not None:
                os.chdir(directory)
            os.execvpe(argv[0], argv, {**os.environ, **environment})
        except (OSError, ValueError) as error:
            reason = f"the command {argv[0]!r} could not be started: {error}"
            self._channel.deliver({"end": True, "error": {**packed(error), "message": reason, "text": reason}})
            os._exit(127)


def _cancelled(run: TaskRun) -> TaskCancelled:
    return TaskCancelled(f"task {run.record.id}: cancellation was requested, or its claim was lost")


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
    """Return an exception as a message: its name, its text as it will be stored, and the outcome that it chooses."""
    try:
        message = str(error)
    except Exception:
        message = "(its text cannot be shown)"
    found: dict[str, Any] = {
        "name": type(error).__name__,
        "type": outcomes.type_name(error),
        "message": message,
        "text": outcomes.describe(error),
    }
    if isinstance(error, RetryTask | ReleaseTask):
        found["delay"] = error.delay
    for kind in (RetryTask, ReleaseTask, AbandonTask, TaskCancelled, LeaseLost, StoreUnavailable):
        if isinstance(error, kind):
            found["kind"] = kind.__name__
    return found

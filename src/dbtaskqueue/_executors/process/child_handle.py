"""A child as its worker sees it: its channel, its output, the flags they share, and the tasks that it was given.

A child may be given several short tasks together. Then it reads its own output after each task, and sends it with the
reply. When one of them takes longer, the worker *pins* the child. From then on, the worker reads the output. After its
task, the child starts none of the others, and reports that it has stopped. By that report, or by the reply to the last
task, the worker knows which tasks the child has started.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ..._system.processes import system
from ..lookup import Late
from ..task_run import TaskRun
from .channel import Channel, Message
from .shared_flags import new_flags

_CHUNK = 2**16
_MOST_READS = 64
"""The most reads of a child's output at the end of its task. If there is more, another process is still writing."""


class ChildFds(NamedTuple):
    """The file descriptors of a child: its end of the channel, both ends of the pipe for its output, its flags."""

    channel: int
    output: int
    written: int
    flags: int


class ChildHandle:
    """A child process and what it does.

    - ``runs``: its tasks, the first of which is running. ``unanswered``: the number of its tasks that it runs or may
      still start. ``tasks``: the number of tasks that it has run.
    - ``reply``: its report about the end of a task, if the child must end before the report counts.
    - ``deadline``: when to kill it. ``pin_at``: when to pin it. ``suspend_at``: when to check whether it can be
      suspended. All in monotonic time; None for never.
    - ``is_retired``: it gets no more tasks. ``is_stopping``: its task was cancelled. ``is_dying``: it was asked to end,
      or killed. ``is_hung_up``: its channel is closed. ``is_read``: this worker reads its output. ``is_silent``: no
      more output can come.
    - ``fault``: what it did wrong, for the error of its task.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid: int | None = None
        self.runs: deque[TaskRun] = deque()
        self.reply: Message | None = None
        self.tasks = 0
        self.deadline: float | None = None
        self.pin_at: float | None = None
        self.suspend_at: float | None = None
        self.unanswered = 0
        self.is_stopping = self.is_retired = self.is_dying = self.is_hung_up = self.is_closed = False
        self.is_read = self.is_silent = False
        self.fault: str | None = None
        with contextlib.ExitStack() as undo:  # too many open files: none of these must stay open
            ours, self._theirs = socket.socketpair()
            undo.enter_context(ours)
            undo.enter_context(self._theirs)
            self.output_fd, self._written = os.pipe()
            undo.callback(os.close, self.output_fd)
            undo.callback(os.close, self._written)
            self.flags = new_flags()
            undo.pop_all()
        self.channel = Channel(ours)
        os.set_blocking(self.output_fd, False)
        self._progress = ProgressLines()

    @property
    def fds(self) -> ChildFds:
        """The descriptors to send to the child."""
        return ChildFds(self._theirs.fileno(), self.output_fd, self._written, self.flags.fd)

    def close_sent(self) -> None:
        """Close the child's ends, which were sent to it; on macOS, wait until it has received them."""
        if system.keeps_sent_descriptors:
            self.close_theirs()

    def close_theirs(self) -> None:
        """Close the child's ends, if they are open."""
        self._theirs.close()
        if self._written >= 0:
            os.close(self._written)
            self._written = -1

    @property
    def run(self) -> TaskRun | None:
        """The task that it runs."""
        return self.runs[0] if self.runs else None

    @property
    def is_idle(self) -> bool:
        """Whether it can take a task."""
        return not self.runs and not self.unanswered and not self.is_dying and not self.is_hung_up

    def start(self, runs: list[TaskRun], order: Message) -> None:
        """Send it tasks to run."""
        self.runs.extend(runs)
        self.unanswered = len(runs)
        self.flags.suspended = False
        with contextlib.suppress(OSError):  # it has just died; its end is reported separately
            self.channel.send(order)

    def note_reply(self) -> None:
        """Note that it has reported how a task ended."""
        self.tasks += 1
        self.unanswered -= 1

    def dies_at(self, deadline: float) -> None:
        """Kill it at ``deadline``, unless an earlier one is set."""
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def read(self) -> bool:
        """Read its output. Return False when no more can come."""
        try:
            data = os.read(self.output_fd, _CHUNK)
        except BlockingIOError:
            return True
        if self.runs:
            self.runs[0].write_output(data)
            if self.runs[0].record.command:
                self._progress.read(data, self.runs[0])
        return bool(data)

    def read_all(self) -> None:
        """Read what it wrote before its task ended. Do not wait for what other processes are still writing."""
        if self.is_silent or not self.runs:
            return
        for _ in range(_MOST_READS):
            output = self.runs[0].output
            before = 0 if output is None else output.written
            if not self.read() or (output := self.runs[0].output) is None or output.written == before:
                return

    def close(self) -> None:
        """Close everything."""
        self.is_closed = True
        self.close_theirs()
        self.channel.close()
        os.close(self.output_fd)
        self.flags.close()


class ProgressLines:
    """Finds lines ``::progress DONE[/TOTAL] [MESSAGE]`` in the output of a command."""

    _LINE = re.compile(rb"::progress\s+(\d+(?:\.\d+)?)(?:/(\d+(?:\.\d+)?))?(?:\s+(.*?))?\s*")
    _LONGEST = 4096

    def __init__(self) -> None:
        self._rest = b""

    def read(self, data: bytes, run: TaskRun) -> None:
        """Report the progress found in the next piece of output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-self._LONGEST :]
        for line in lines:
            if line.startswith(b"::progress") and (found := self._LINE.fullmatch(line)) and run.tracker is not None:
                done, total, message = found.groups()
                text = None if message is None else message.decode("utf-8", "replace")
                run.tracker.update(_number(done), None if total is None else _number(total), text)


def _number(text: bytes) -> float:
    return float(text[:300]) if b"." in text else int(text[:300])


def order_for(runs: list[TaskRun], late: Sequence[Late] = ()) -> Message:
    """Return the message that lets a child run these tasks. Raises PayloadError for an invalid command line.

    ``late``: those of their functions that the child may not know yet.
    """
    if runs[0].record.command:
        return {"command": runs[0].command_line()._asdict()}
    order: Message = {"tasks": [{"record": run.record._asdict(), "start_stored": run.start_stored} for run in runs]}
    if late:
        order["late"] = [each._asdict() for each in late]
    return order

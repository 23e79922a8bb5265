"""A child as its worker sees it: the channel to it, its output, the page they share, and the tasks it was given.

Short tasks are given several at a time. Then the child reads its own output after each, and sends it with the
reply; until the worker *pins* it: from then on the worker reads the output, and after its task the child says that
it has stopped, and starts none of the others. With that, or with its last reply, the worker knows what it has started.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import deque
from typing import NamedTuple

from ..._system.processes import system
from ..task_run import TaskRun
from .channel import Channel, Message
from .shared_flags import new_page

_CHUNK = 2**16


class ChildFds(NamedTuple):
    """The file descriptors of a child: its end of the channel, both ends of the pipe for its output, its page."""

    channel: int
    output: int
    written: int
    page: int


class ChildHandle:
    """``works``: the first of them is running. ``reply``: what it said of the end of a task after which it must go.

    ``unanswered``: how many of the tasks that it was given it runs or may still start. ``is_worn``: it gets no more.
    ``deadline``: when it is killed, ``pin_at``: when it is pinned, ``hold_at``: when it is looked whether it can stand
    still; in monotonic time, None for never.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid: int | None = None
        self.works: deque[TaskRun] = deque()
        self.reply: Message | None = None
        self.tasks = 0
        self.deadline: float | None = None
        self.pin_at: float | None = None
        self.hold_at: float | None = None
        self.unanswered = 0
        self.is_stopping = self.is_worn = self.is_dying = self.is_hung_up = self.is_closed = False
        self.is_read = self.is_silent = False
        self.fault: str | None = None
        with contextlib.ExitStack() as undo:  # too many open files: none of these must stay open
            ours, self._theirs = socket.socketpair()
            undo.enter_context(ours)
            undo.enter_context(self._theirs)
            self.output_fd, self._written = os.pipe()
            undo.callback(os.close, self.output_fd)
            undo.callback(os.close, self._written)
            self.page = new_page()
            undo.pop_all()
        self.channel = Channel(ours)
        os.set_blocking(self.output_fd, False)
        self._progress = ProgressLines()

    @property
    def fds(self) -> ChildFds:
        """What the child gets."""
        return ChildFds(self._theirs.fileno(), self.output_fd, self._written, self.page.fd)

    def descriptors_sent(self) -> None:
        """Close the child's ends; elsewhere than on Linux that has to wait until it has received them."""
        if system.keeps_sent_descriptors:
            self.close_theirs()

    def close_theirs(self) -> None:
        """Close the ends that only the child needs."""
        self._theirs.close()
        if self._written >= 0:
            os.close(self._written)
            self._written = -1

    @property
    def work(self) -> TaskRun | None:
        """The task that it runs."""
        return self.works[0] if self.works else None

    @property
    def is_idle(self) -> bool:
        """Whether it can take a task."""
        return not self.works and not self.unanswered and not self.is_dying and not self.is_hung_up

    def start(self, works: list[TaskRun], order: Message) -> None:
        """Give it tasks."""
        self.works.extend(works)
        self.unanswered = len(works)
        self.page.held = False
        with contextlib.suppress(OSError):  # it has just died: that comes up by itself
            self.channel.send(order)

    def note_reply(self) -> None:
        """It has said how a task ended."""
        self.tasks += 1
        self.unanswered -= 1

    def dies_at(self, deadline: float) -> None:
        """Kill it then, unless it is to be killed before."""
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def read(self) -> bool:
        """Read what it has written; False when nothing more can come."""
        try:
            data = os.read(self.output_fd, _CHUNK)
        except BlockingIOError:
            return True
        if self.works:
            self.works[0].write_output(data)
            if self.works[0].record.command:
                self._progress.read(data, self.works[0])
        return bool(data)

    def read_all(self) -> None:
        """Read what it wrote before its task ended; what others go on writing is theirs."""
        if self.is_silent or not self.works:
            return
        for _ in range(64):
            output = self.works[0].output
            before = 0 if output is None else output.written
            if not self.read() or (output := self.works[0].output) is None or output.written == before:
                return

    def close(self) -> None:
        """Let go of everything."""
        self.is_closed = True
        self.close_theirs()
        self.channel.close()
        os.close(self.output_fd)
        self.page.close()


class ProgressLines:
    """Finds lines ``::progress DONE[/TOTAL] [MESSAGE]`` in what a command writes."""

    _LINE = re.compile(rb"::progress\s+(\d+(?:\.\d+)?)(?:/(\d+(?:\.\d+)?))?(?:\s+(.*?))?\s*")
    _LONGEST = 4096

    def __init__(self) -> None:
        self._rest = b""

    def read(self, data: bytes, work: TaskRun) -> None:
        """Tell the work of what is in there."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-self._LONGEST :]
        for line in lines:
            if line.startswith(b"::progress") and (found := self._LINE.fullmatch(line)) and work.tracker is not None:
                done, total, message = found.groups()
                text = None if message is None else message.decode("utf-8", "replace")
                work.tracker.tell(_number(done), None if total is None else _number(total), text)


def _number(text: bytes) -> float:
    return float(text[:300]) if b"." in text else int(text[:300])


def order_for(works: list[TaskRun]) -> Message:
    """What a child is told that is to run these; PayloadError for what is no command line."""
    if works[0].record.command:
        return {"command": works[0].command_line()._asdict()}
    return {"tasks": [{"record": work.record._asdict(), "start_stored": work.start_stored} for work in works]}

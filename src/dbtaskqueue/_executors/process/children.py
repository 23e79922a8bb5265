"""The children of a process executor, from their fork to their end. All of this runs in the executor's thread.

A child runs one task at a time. The end of a task counts when nothing that it has started is left. If the child is
clean, that is immediately, and the child takes the next task. Otherwise, the fork server must reap the child first.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import time
from collections.abc import Callable
from functools import partial

from ..._formats.progress import ProgressTracker
from ..._system import clock
from ..task_run import Settings, TaskRun
from .channel import Message
from .child_handle import ChildHandle
from .outcome import child_ended, how_it_ended, note_progress, process_failed, read_reply
from .resources import Shortage, check_spare
from .server_handle import Server
from .shared_flags import ASK_FOR_STACKS

HANG_UP = 1.0
"""Seconds in which a child that has closed its channel must end."""
_SHORT = 1.0
"""A child whose task took longer than this (seconds) is not used again: it may have grown."""
_PIN_AFTER = 0.05
"""Seconds after which a child that was given several tasks has its output read while the first of them runs."""
_CHECK_WRITING = 0.02
"""Seconds between checks whether a child has left its transaction, so that it can be suspended."""
_LEAVE_PROCESS = 5.0
"""Seconds that extensions may take to leave ``process()`` when a child ends."""
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Children:
    """All children of one executor.

    ``soon(act)``, which any thread may call, calls ``act`` in the executor's thread. ``ended`` is called with a task
    that has ended, and ``take_back`` with one that was given to a child but not started there.
    """

    def __init__(
        self,
        settings: Settings,
        selector: selectors.BaseSelector,
        server: Server,
        shortage: Shortage,
        *,
        soon: Callable[[Callable[[], object]], None],
        ended: Callable[[TaskRun], None],
        take_back: Callable[[TaskRun], None],
    ) -> None:
        self.is_draining = False
        self._settings = settings
        self._leaves_process = bool(settings.runner.process)
        self._selector = selector
        self._server = server
        self._shortage = shortage
        self._soon = soon
        self._ended = ended
        self._take_back = take_back
        self._children: dict[int, ChildHandle] = {}
        self._last_number = 0
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._children)

    def idle(self) -> list[ChildHandle]:
        """Return the children that can take a task."""
        return [child for child in self._children.values() if child.is_idle]

    @property
    def forking(self) -> int:
        """The number of children that were requested and do not run yet."""
        return sum(child.pid is None for child in self._children.values())

    @property
    def usable(self) -> int:
        """The number of children that exist and can run tasks."""
        return sum(child.pid is not None and not child.is_dying for child in self._children.values())

    def deadlines(self) -> list[float]:
        """Return when something must be done for a child, in monotonic time."""
        return [
            moment
            for child in self._children.values()
            for moment in (child.deadline, child.pin_at, child.suspend_at)
            if moment is not None
        ]

    def check_deadlines(self) -> None:
        """Do what is due for each child."""
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.deadline is not None and child.deadline <= now:
                self._kill(child)
            if child.pin_at is not None and child.pin_at <= now:
                self._pin(child)
            if child.suspend_at is not None and child.suspend_at <= now:
                self._suspend_now(child)

    # -- giving tasks to children ------------------------------------------------------------------

    def fork(self) -> ChildHandle | None:
        """Return a new child; None in a shortage, or if the fork server has ended, which ``Server`` notices."""
        self._last_number += 1
        try:
            child = ChildHandle(self._last_number)
        except OSError as error:
            self._shortage.note_failure(error.errno, str(error), len(self._children))
            return None
        try:
            if self._children:
                check_spare(child.fds)
            self._server.fork(child.number, child.fds)
        except OSError as error:
            child.close()
            if isinstance(error, ConnectionError):
                self._server.note_broken()
            else:  # it may still run, so nothing else would restart it
                self._shortage.note_failure(error.errno, str(error), len(self._children))
            return None
        finally:
            child.close_sent()
        self._children[child.number] = child
        self._selector.register(child.channel, _READ, partial(self._hear, child))
        return child

    def give(self, child: ChildHandle, runs: list[TaskRun], order: Message) -> None:
        """Let a child run these tasks, one after the other; ``order`` is the message about them."""
        self._set_pinned(child, len(runs) == 1)
        child.start(runs, order)
        child.pin_at = time.monotonic() + _PIN_AFTER if len(runs) > 1 else None
        for run in runs:
            run.stop = partial(self._soon, partial(self._stop, child, run))
        self._note_start(child)
        if self.is_draining:
            child.flags.drain()
        if child.channel.is_behind:
            self._watch(child)

    def _note_start(self, child: ChildHandle) -> None:
        """Note that the first of its tasks is running."""
        run = child.runs[0]
        run.started_at = clock.now()
        run.started = time.monotonic()
        run.tracker = ProgressTracker()
        run.suspend = partial(self._suspend_soon, child, run)
        run.pid = child.pid
        run.stacks = partial(self._stacks, child, run)

    def drain(self) -> None:
        """Notify running tasks that the worker is stopping."""
        self.is_draining = True
        for child in list(self._children.values()):
            child.flags.drain()
            self._pin(child)

    # -- hearing children --------------------------------------------------------------------------

    def _watch(self, child: ChildHandle) -> None:
        if not child.is_hung_up:
            mask = _READ | (_WRITE if child.channel.is_behind else 0)
            self._selector.modify(child.channel, mask, partial(self._hear, child))

    def _hear(self, child: ChildHandle, mask: int) -> None:
        if child.is_closed:  # handling an earlier event has closed it
            return
        try:
            if mask & _WRITE:
                child.channel.flush()
                self._watch(child)
            for message in child.channel.receive() if mask & _READ else []:
                self._on_message(child, message)
        except (EOFError, OSError):
            self._hang_up(child)
        except Exception as error:  # a task wrote into our socket
            child.fault = f"the child sent an invalid message: {type(error).__name__}"
            self._kill(child)

    def _on_message(self, child: ChildHandle, message: Message) -> None:
        run = child.run
        if "stopped" in message:
            self._on_stopped(child)
            return
        if run is None or child.reply is not None:
            return
        note_progress(run, message)
        if "end" not in message:
            return
        child.note_reply()
        is_long = time.monotonic() - run.started >= _SHORT
        child.is_retired |= run.cancelled or is_long or child.tasks >= self._settings.tasks_per_child
        must_end = message.get("is_clean") is not True or child.is_dying or self._is_closing
        if must_end or (child.is_retired and not child.unanswered):
            child.reply = message
            self._take_rest(child)
            self.end(child)
            return
        if child.flags.pinned:
            child.read_all()
        self._end_task(child, message)
        if child.runs:
            self._note_start(child)
            # it may be running the next task; a retired child is ended when it has stopped
            child.pin_at = time.monotonic() + (0.0 if child.is_retired else _PIN_AFTER)

    def _on_stopped(self, child: ChildHandle) -> None:
        """Handle the report that the child has noticed that it is pinned. It starts no more of its tasks."""
        if child.reply is None:
            child.unanswered = 0
            self._take_back_all(child)
            if child.is_retired:
                self.end(child)

    def _read_last_messages(self, child: ChildHandle) -> None:
        """Read the messages that it sent before its end."""
        with contextlib.suppress(Exception):
            for message in child.channel.receive():
                self._on_message(child, message)

    def _hang_up(self, child: ChildHandle) -> None:
        """Handle the end of its channel: the child has ended, has become a command, or has closed the channel."""
        if not child.is_hung_up:
            child.is_hung_up = True
            self._selector.unregister(child.channel)
            if child.run is None or not child.run.record.command:
                child.dies_at(time.monotonic() + HANG_UP)

    # -- output and pinning ------------------------------------------------------------------------

    def _set_pinned(self, child: ChildHandle, pinned: bool) -> None:
        """Set who reads the output: this worker if it is pinned, else the child itself."""
        child.flags.pinned = pinned
        if child.is_read != pinned and not child.is_silent:
            child.is_read = pinned
            if pinned:
                self._selector.register(child.output_fd, _READ, partial(self._read, child))
            else:
                self._selector.unregister(child.output_fd)

    def _pin(self, child: ChildHandle) -> None:
        """Pin a child. It may still start the next of its tasks just now; other children get the rest."""
        child.pin_at = None
        if child.is_closed or child.flags.pinned:
            return
        self._set_pinned(child, True)
        self._hear(child, _READ)  # replies that it sent before it could notice
        if child.runs and not child.is_dying:
            self._take_rest(child)

    def _take_rest(self, child: ChildHandle) -> None:
        while len(child.runs) > 1:
            run = child.runs.pop()
            run.stop = None
            self._take_back(run)

    def _read(self, child: ChildHandle, mask: int) -> None:
        if child.is_read and not child.read():
            self._stop_reading(child)
            child.is_silent = True

    def _stop_reading(self, child: ChildHandle) -> None:
        if child.is_read:
            self._selector.unregister(child.output_fd)
            child.is_read = False

    # -- what is done to a running task ------------------------------------------------------------

    def _signal(self, child: ChildHandle, number: int) -> None:
        self._server.ask({"do": "signal", "child": child.number, "number": int(number)})

    def _stop(self, child: ChildHandle, run: TaskRun) -> None:
        """Cancel a task: SIGTERM, and SIGKILL after the grace period."""
        self._pin(child)
        if child.run is not run or child.is_stopping or child.reply is not None:
            return
        child.is_stopping = child.is_retired = True
        child.flags.cancel()
        child.flags.suspended = False
        self._signal(child, signal.SIGTERM)
        self._signal(child, signal.SIGCONT)
        child.dies_at(time.monotonic() + self._settings.cancel_grace)

    def _suspend_soon(self, child: ChildHandle, run: TaskRun, suspended: bool) -> None:
        self._soon(partial(self._suspend, child, run, suspended))

    def _suspend(self, child: ChildHandle, run: TaskRun, suspended: bool) -> None:
        self._pin(child)
        if child.run is run and not child.is_stopping and run.is_suspended != suspended:
            run.note_suspended(suspended)
            child.flags.suspended = suspended
            child.suspend_at = time.monotonic() + _CHECK_WRITING if suspended else None
            if not suspended:
                self._signal(child, signal.SIGCONT)

    def _suspend_now(self, child: ChildHandle) -> None:
        """Suspend it, unless it is in a transaction: no other process could write while the child kept its locks."""
        child.suspend_at = None
        if child.run is None or not child.run.is_suspended or child.is_stopping or child.is_closed:
            return
        if child.flags.writing:
            child.suspend_at = time.monotonic() + _CHECK_WRITING
        else:
            child.is_retired = True  # its task may end just now, and a suspended child must get no other
            self._signal(child, signal.SIGSTOP)

    def _stacks(self, child: ChildHandle, run: TaskRun) -> str:
        """Return the stacks of all threads of the child. May be called in any thread."""
        if run.record.command:
            return ""
        child.flags.ready_for_stacks()
        number = int(ASK_FOR_STACKS)
        self._soon(lambda: self._server.ask({"do": "ask", "child": child.number, "number": number}))
        return child.flags.stacks()

    # -- the end of a task -------------------------------------------------------------------------

    def _end_task(self, child: ChildHandle, reply: Message | None, death: BaseException | None = None) -> None:
        """Handle the end of the first of its tasks, by a reply or by the child's death."""
        run = child.runs.popleft()
        if reply is None:
            run.error = death
        else:
            read_reply(run, reply)
        self._report_end(run)

    def fail_unstarted(self, run: TaskRun, error: BaseException) -> None:
        """Fail a task that no child can run."""
        run.started_at = clock.now()
        run.error = error
        self._report_end(run)

    def _report_end(self, run: TaskRun) -> None:
        run.forget_process()
        run.ended_at = run.ended_at or clock.now()
        self._ended(run)

    def _take_back_all(self, child: ChildHandle) -> None:
        """Take back the tasks that it was given and has not started."""
        while child.runs:
            run = child.runs.pop()
            run.forget_process()
            run.started_at, run.started = None, 0.0
            self._take_back(run)

    # -- the end of a child ------------------------------------------------------------------------

    def end(self, child: ChildHandle) -> None:
        """End a child that no longer runs a task. Extensions get time to leave ``process()``."""
        if child.is_dying or not self._leaves_process:
            self._kill(child)
            return
        child.is_dying = True
        child.channel.end_sending()
        child.dies_at(time.monotonic() + _LEAVE_PROCESS)

    def end_idle(self) -> bool:
        """End the children that run nothing, because the executor ends. Return whether that takes time."""
        self.is_draining = self._is_closing = True
        if self._leaves_process:
            for child in self.idle():
                self.end(child)
        return self._leaves_process

    @property
    def are_ending(self) -> bool:
        """Whether any child was asked to end or was killed, and is not reaped yet."""
        return any(child.is_dying for child in self._children.values())

    @property
    def time_to_end(self) -> float:
        """The seconds after which all children have ended by themselves or were killed."""
        return _LEAVE_PROCESS + HANG_UP

    def _kill(self, child: ChildHandle) -> None:
        """Kill it and everything that it has started. The fork server reports when it is reaped."""
        child.is_dying = True
        child.deadline = None
        self._server.ask({"do": "kill", "child": child.number})

    def on_forked(self, message: Message) -> None:
        """See Reports."""
        self._shortage.note_success(len(self._children))
        if (child := self._children.get(message["forked"])) is not None:
            child.pid = message["pid"]
            child.close_theirs()
            if child.run is not None:
                child.run.pid = child.pid

    def on_fork_failed(self, message: Message) -> None:
        """See Reports. The child's tasks wait again."""
        child = self._children.pop(message["fork_failed"])
        self._take_back_all(child)
        self._close_child(child)
        self._shortage.note_failure(message.get("errno"), message["error"], len(self._children))

    def on_reaped(self, message: Message) -> None:
        """See Reports."""
        child = self._children.pop(message["gone"], None)
        if child is None:
            return
        self._read_last_messages(child)
        if (run := child.run) is not None:
            child.read_all()
            if child.tasks == 0:  # otherwise it is the usage of all its tasks together
                run.spend(message["cpu"], message["memory"])
            self._end_task(child, child.reply, child_ended(child, run, message["code"]))
        self._take_back_all(child)
        self._close_child(child)
        self._shortage.note_end()

    def on_server_ended(self, code: int) -> None:
        """See Reports."""
        for child in list(self._children.values()):
            del self._children[child.number]
            self._read_last_messages(child)
            if (run := child.run) is not None:
                child.read_all()
                how = process_failed(f"the fork server of this worker {how_it_ended(code)}", run.output)
                self._end_task(child, child.reply, how)
            self._take_back_all(child)
            self._close_child(child)

    def _close_child(self, child: ChildHandle) -> None:
        if not child.is_hung_up:
            self._selector.unregister(child.channel)
        self._stop_reading(child)
        child.close()

    def close(self) -> None:
        """Close all handles of children. The fork server has already killed the children."""
        for child in self._children.values():
            child.close()
        self._children.clear()

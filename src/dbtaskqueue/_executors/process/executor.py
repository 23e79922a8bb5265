"""Runs each task in a child process. One thread talks to the fork server and to the children.

``submit``, ``take_back``, a work's ``stop`` and ``hold`` are called in any thread; they leave a note, and the
thread does the rest. A child runs one task at a time; its end counts when nothing of it is left: at
once where the child stays clean and takes the next task, else when the fork server has buried it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from ..._formats.progress import ProgressTracker
from ..._system import clock
from ..._system.log import event
from ..._system.processes import system
from ...errors import TaskCancelled, TaskQueueError
from ..task_run import Callbacks, Settings, TaskRun, take_all
from .channel import Message
from .child_handle import ChildHandle, order_for
from .outcome import death, how_it_ended, unpacked
from .resources import Shortage, check_spare, is_shortage, make_room
from .server_handle import ServerHandle
from .shared_flags import ASK_FOR_STACKS

_SHORT = 1.0
"""Seconds: a child whose task took longer is not used again, as it may have grown."""
_MOST_AT_ONCE = 32
"""Short tasks that a child is given at once."""
_PIN_AFTER = 0.05
"""Seconds after which a task that was taken for short has its output read while it runs."""
_FORKS_AT_ONCE = 16
"""Most unanswered requests for a child: the kernel limits the descriptors in flight."""
_START = 120.0
_RESTARTS = 0.1, 5.0
_GIVE_UP = 30.0
"""Seconds without a fork server after which the worker stops."""
_LEAVE = 0.02
"""Seconds after which it is looked whether a child that is to stand still has left its transaction."""
_HANG_UP = 1.0
"""Seconds in which a child that has closed its channel has to end."""
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class ProcessExecutor:
    """Children, as many as ``settings.concurrency``, forked by a server that has imported the code.

    Raises what importing the code raised there, as TaskQueueError.
    """

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        if not hasattr(os, "fork"):
            raise TaskQueueError("executor='process' needs a system that can fork")
        self.grace = settings.cancel_grace + _HANG_UP + 2.0
        self.most = settings.concurrency
        self._settings = settings
        self._origin = settings.runner.lookup.origin()
        self._callbacks = callbacks
        self._line: deque[TaskRun] = deque()
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._waker = os.pipe()
        for fd in (self._wakeup, self._waker):
            os.set_blocking(fd, False)
        self._selector.register(self._wakeup, _READ, self._empty_wakeup)
        self._children: dict[int, ChildHandle] = {}
        self._numbers = 0
        self._shortage = Shortage(settings.concurrency)
        self._open_files = make_room(settings.concurrency)
        self._server: ServerHandle | None = None
        self._failures = 0
        self._failing_since: float | None = None
        self._next_try = 0.0
        self._is_draining = self._closing = False
        self._last_turn = time.monotonic()
        self._first = threading.Event()
        self._broken: str | None = None
        self._thread = threading.Thread(target=self._serve, name="dbtaskqueue-children", daemon=True)
        self._thread.start()
        if not self._first.wait(_START) or self._broken is not None:
            self.close()
            raise TaskQueueError(self._broken or f"the fork server was not ready after {_START:.0f} s")

    # -- in any thread -----------------------------------------------------------------------------

    def submit(self, works: Sequence[TaskRun]) -> None:
        """Run them when there is room."""
        self._line.extend(works)
        self._wake()

    def is_drained(self) -> bool:
        """Whether all work has started."""
        return not self._line

    def take_back(self) -> list[TaskRun]:
        """The work that has not started; it will not."""
        return take_all(self._line)

    def drain(self) -> None:
        """Tell what runs that the worker is to stop."""
        self._tell(self._drain)

    def last_turn(self) -> float:
        """When its thread last made a turn: it waits for 5 seconds at the most."""
        return self._last_turn

    def close(self) -> None:
        """End all children and the fork server, whatever they do."""
        self._closing = True
        self._wake()
        self._thread.join(_START)

    def _tell(self, act: Callable[[], object]) -> None:
        self._inbox.put(act)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full, so it wakes anyway; or closed
            os.write(self._waker, b"!")

    # -- the loop ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except Exception as error:
            event(logging.CRITICAL, "the executor of processes failed", exc_info=error)
            self._broken = f"{type(error).__name__}: {error}"
            self._first.set()
            self._callbacks.broken(error)
        finally:
            self._end()

    def _turn(self) -> None:
        self._last_turn = time.monotonic()
        if self._server is None:
            self._start_server()
        for key, mask in self._selector.select(self._pause()):
            key.data(mask)
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()
        self._check_deadlines()
        self._fill()
        self._probe()
        self._count()

    def _pause(self) -> float:
        children = self._children.values()
        times = [
            time for child in children for time in (child.deadline, child.pin_at, child.hold_at) if time is not None
        ]
        if self._server is None:
            times.append(self._next_try)
        elif self._shortage.next_try > time.monotonic():
            times.append(self._shortage.next_try)
        return min(5.0, max(0.0, min(times, default=float("inf")) - time.monotonic()))

    def _empty_wakeup(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)

    def _fill(self) -> None:
        if self._server is None or not self._server.is_ready or self._is_draining:
            return
        idle = [child for child in self._children.values() if child.is_idle]
        while self._line and (idle or self._may_fork()):
            room = self._settings.concurrency - len(self._children) + len(idle)
            works = self._next_works(room, self._settings.tasks_per_child - (idle[-1].tasks if idle else 0))
            if not works:
                continue
            try:
                order = order_for(works)
            except TaskQueueError as error:  # what is stored of a command cannot be run
                self._end_unbegun(works[0], error)
                continue
            if works[0].record.command and idle and len(self._children) >= self._settings.concurrency:
                self._bury(idle.pop())  # a command takes the place of a child that has nothing to do
            child = idle.pop() if idle and not works[0].record.command else self._fork()
            if child is None:
                self._line.extendleft(reversed(works))
                return
            self._give(child, works, order)

    def _next_works(self, room: int, most: int) -> list[TaskRun]:
        """What one child is given: one task, or several where they are so short that there is a line of them."""
        count = min(_MOST_AT_ONCE, most, math.ceil(len(self._line) / (2 * room)))
        if len(self._line) <= room:
            count = 1
        works: list[TaskRun] = []
        with contextlib.suppress(IndexError):  # taken back meanwhile
            while len(works) < count:
                if works and self._line[0].record.command:
                    break
                work = self._line.popleft()
                if work.cancelled:
                    self._end_unbegun(work, TaskCancelled(f"task {work.record.id} was asked to end"))
                    continue
                works.append(work)
                if work.record.command:
                    break
        return works

    def _may_fork(self) -> bool:
        """Whether to ask for another child now."""
        children = self._children.values()
        return (
            len(children) < self._settings.concurrency
            and self._shortage.next_try <= time.monotonic()
            and sum(child.pid is None for child in children) < _FORKS_AT_ONCE
        )

    def _probe(self) -> None:
        """In a shortage, keep one child ready: a task is claimed only if a child is free."""
        if (
            self._shortage.is_on
            and self._server is not None
            and self._server.is_ready
            and not (self._line or self._is_draining)
            and not any(child.is_idle for child in self._children.values())
            and self._may_fork()
        ):
            self._fork()

    def _count(self) -> None:
        """In a shortage, run at most as many tasks as there are children."""
        most = self._settings.concurrency
        if self._shortage.is_on:
            most = sum(child.pid is not None and not child.is_dying for child in self._children.values())
        if most != self.most:
            self.most = most
            self._callbacks.room_changed()

    def _give(self, child: ChildHandle, works: list[TaskRun], order: Message) -> None:
        self._set_pinned(child, len(works) == 1)
        child.start(works, order)
        child.pin_at = time.monotonic() + _PIN_AFTER if len(works) > 1 else None
        for work in works:
            work.stop = partial(self._tell, partial(self._stop, child, work))
        self._note_start(child)
        if self._is_draining:
            child.page.drain()
        if child.channel.is_behind:
            self._watch(child)

    def _note_start(self, child: ChildHandle) -> None:
        """The first of its tasks runs now."""
        work = child.works[0]
        work.started_at = clock.now()
        work.started = time.monotonic()
        work.tracker = ProgressTracker()
        work.hold = partial(self._hold_soon, child, work)
        work.pid = child.pid
        work.stacks = partial(self._stacks, child, work)

    # -- children ----------------------------------------------------------------------------------

    def _fork(self) -> ChildHandle | None:
        """Return a new child; None in a shortage, or if the fork server has ended: see ``_hear_server``."""
        assert self._server is not None
        self._numbers += 1
        try:
            child = ChildHandle(self._numbers)
        except OSError as error:
            self._shortage.note_failure(error.errno, str(error), len(self._children))
            return None
        try:
            if self._children:
                check_spare(child.fds)
            self._server.ask({"do": "fork", "child": child.number, "fds": child.fds._fields}, child.fds)
        except OSError as error:
            child.close()
            if isinstance(error, ConnectionError):
                self._server.is_ready = False
            else:  # it still runs, so nothing would restart it
                self._shortage.note_failure(error.errno, str(error), len(self._children))
            return None
        finally:
            child.descriptors_sent()
        self._children[child.number] = child
        self._selector.register(child.channel, _READ, partial(self._hear, child))
        return child

    def _set_pinned(self, child: ChildHandle, pinned: bool) -> None:
        """Whose turn it is to read the output: ours, or that of a child that is not pinned."""
        child.page.pinned = pinned
        if child.is_read != pinned and not child.is_silent:
            child.is_read = pinned
            if pinned:
                self._selector.register(child.output_fd, _READ, partial(self._read, child))
            else:
                self._selector.unregister(child.output_fd)

    def _watch(self, child: ChildHandle) -> None:
        if not child.is_hung_up:
            mask = _READ | (_WRITE if child.channel.is_behind else 0)
            self._selector.modify(child.channel, mask, partial(self._hear, child))

    def _hear(self, child: ChildHandle, mask: int) -> None:
        if child.is_closed:  # by what came just before
            return
        try:
            if mask & _WRITE:
                child.channel.flush()
                self._watch(child)
            for message in child.channel.receive() if mask & _READ else []:
                self._heed(child, message)
        except (EOFError, OSError):
            self._hang_up(child)
        except Exception as error:  # whatever a task wrote into our socket
            child.fault = f"the child sent nonsense: {type(error).__name__}"
            self._bury(child)

    def _heed(self, child: ChildHandle, message: Message) -> None:
        work = child.work
        if "stopped" in message:
            self._heed_stop(child)
            return
        if work is None or child.reply is not None:
            return
        _note_progress(work, message)
        if "end" not in message:
            return
        child.note_reply()
        is_long = time.monotonic() - work.started >= _SHORT
        child.is_worn |= work.cancelled or is_long or child.tasks >= self._settings.tasks_per_child
        must_go = message.get("is_clean") is not True or child.is_dying or self._closing
        if must_go or (child.is_worn and not child.unanswered):
            child.reply = message
            self._take_rest(child)
            self._bury(child)
            return
        if child.page.pinned:
            child.read_all()
        self._end_work(child, message)
        if child.works:
            self._note_start(child)
            # it may run the next one: a worn child is buried when it has stopped
            child.pin_at = time.monotonic() + (0.0 if child.is_worn else _PIN_AFTER)

    def _heed_stop(self, child: ChildHandle) -> None:
        """It has seen that it is pinned: of what it was given, it starts nothing more."""
        if child.reply is None:
            child.unanswered = 0
            self._take_back_all(child)
            if child.is_worn:
                self._bury(child)

    def _pin(self, child: ChildHandle) -> None:
        """From now on it starts at most what it may have started just now; the rest is for others."""
        child.pin_at = None
        if child.is_closed or child.page.pinned:
            return
        self._set_pinned(child, True)
        self._hear(child, _READ)  # whatever it has ended before it could see this
        if child.works and not child.is_dying:
            self._take_rest(child)

    def _take_rest(self, child: ChildHandle) -> None:
        while len(child.works) > 1:
            work = child.works.pop()
            work.stop = None
            self._line.appendleft(work)

    def _hang_up(self, child: ChildHandle) -> None:
        """A child has ended, is a command now, or has closed what it must not."""
        if not child.is_hung_up:
            child.is_hung_up = True
            self._selector.unregister(child.channel)
            if child.work is None or not child.work.record.command:
                child.dies_at(time.monotonic() + _HANG_UP)

    def _read(self, child: ChildHandle, mask: int) -> None:
        if child.is_read and not child.read():
            self._stop_reading(child)
            child.is_silent = True

    def _stop_reading(self, child: ChildHandle) -> None:
        if child.is_read:
            self._selector.unregister(child.output_fd)
            child.is_read = False

    def _bury(self, child: ChildHandle) -> None:
        """Kill it and what belongs to it; the fork server tells when it is gone."""
        child.is_dying = True
        child.deadline = None
        self._ask_server({"do": "kill", "child": child.number})

    def _stop(self, child: ChildHandle, work: TaskRun) -> None:
        self._pin(child)
        if child.work is not work or child.is_stopping or child.reply is not None:
            return
        child.is_stopping = child.is_worn = True
        child.page.cancel()
        child.page.held = False
        self._send(child, signal.SIGTERM)
        self._send(child, signal.SIGCONT)
        child.dies_at(time.monotonic() + self._settings.cancel_grace)

    def _hold_soon(self, child: ChildHandle, work: TaskRun, still: bool) -> None:
        self._tell(partial(self._hold, child, work, still))

    def _hold(self, child: ChildHandle, work: TaskRun, still: bool) -> None:
        self._pin(child)
        if child.work is work and not child.is_stopping and work.is_held != still:
            work.note_hold(still)
            child.page.held = still
            child.hold_at = time.monotonic() + _LEAVE if still else None
            if not still:
                self._send(child, signal.SIGCONT)

    def _hold_now(self, child: ChildHandle) -> None:
        """Let it stand still, unless it is in a transaction: nobody could write while it kept its locks."""
        child.hold_at = None
        if child.work is None or not child.work.is_held or child.is_stopping or child.is_closed:
            return
        if child.page.writing:
            child.hold_at = time.monotonic() + _LEAVE
        else:
            child.is_worn = True  # if its task has just ended, a child that stands still is of no use
            self._send(child, signal.SIGSTOP)

    def _stacks(self, child: ChildHandle, work: TaskRun) -> str:
        """In any thread: the stacks of all threads of the child."""
        if work.record.command:
            return ""
        child.page.ready_for_stacks()
        number = int(ASK_FOR_STACKS)
        self._tell(lambda: self._ask_server({"do": "ask", "child": child.number, "number": number}))
        return child.page.stacks()

    def _drain(self) -> None:
        self._is_draining = True
        for child in list(self._children.values()):
            child.page.drain()
            self._pin(child)

    def _send(self, child: ChildHandle, number: int) -> None:
        self._ask_server({"do": "signal", "child": child.number, "number": int(number)})

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.deadline is not None and child.deadline <= now:
                self._bury(child)
            if child.pin_at is not None and child.pin_at <= now:
                self._pin(child)
            if child.hold_at is not None and child.hold_at <= now:
                self._hold_now(child)

    # -- ends --------------------------------------------------------------------------------------

    def _end_work(self, child: ChildHandle, reply: Message | None, death: BaseException | None = None) -> None:
        """The first of its works has come to its end: by its reply, or by the child's death."""
        work = child.works.popleft()
        if reply is None:
            work.error = death
        else:
            self._read_reply(work, reply)
        self._end_of(work)

    def _read_reply(self, work: TaskRun, reply: Message) -> None:
        try:
            if reply.get("has_ended") is True:
                work.note_ended()
            work.spend(float(reply.get("cpu") or 0.0), int(reply.get("memory") or 0))
            if (output := reply.get("output")) is not None:
                work.write_output(output.encode("latin-1"))
            if "start" in reply:
                work.started_at, work.ended_at = int(reply["start"]), int(reply["end"])
            if (error := reply.get("error")) is not None:
                work.error = unpacked(error)
            elif (result := reply.get("result")) is not None:
                work.result = str(result)
        except Exception as nonsense:  # of whatever sent it
            work.error = TaskQueueError(f"the child's reply cannot be read: {type(nonsense).__name__}")

    def _end_unbegun(self, work: TaskRun, error: BaseException) -> None:
        work.started_at = clock.now()
        work.error = error
        self._end_of(work)

    def _end_of(self, work: TaskRun) -> None:
        work.stop = work.hold = work.stacks = work.pid = None
        work.ended_at = work.ended_at or clock.now()
        self._callbacks.ended(work)

    def _gone(self, message: Message) -> None:
        """The fork server says that a child and everything of it is gone."""
        child = self._children.pop(message["gone"], None)
        if child is None:
            return
        self._hear_last_words(child)
        if (work := child.work) is not None:
            child.read_all()
            if child.tasks == 0:  # else it is what all its tasks took
                work.spend(message["cpu"], message["memory"])
            self._end_work(child, child.reply, self._death(child, work, message["code"]))
        self._take_back_all(child)
        self._close_child(child)
        self._shortage.note_end()

    def _hear_last_words(self, child: ChildHandle) -> None:
        """What it still said before its end."""
        with contextlib.suppress(Exception):
            for message in child.channel.receive():
                self._heed(child, message)

    def _take_back_all(self, child: ChildHandle) -> None:
        """Tasks that it was given and has not started."""
        while child.works:
            work = child.works.pop()
            work.started_at = work.stop = work.hold = work.stacks = work.pid = None
            work.started = 0.0
            self._line.appendleft(work)

    def _death(self, child: ChildHandle, work: TaskRun, code: int) -> BaseException | None:
        if work.record.command:
            if code == 0:
                work.result = '{"exit_code": 0}'
                return None
            return death(f"the command {how_it_ended(code)}", work.output)
        if child.fault is None and child.is_dying and not child.is_stopping:
            child.fault = "the child closed its connection to the worker"
        return death(child.fault or f"the child process {how_it_ended(code)}", work.output)

    def _close_child(self, child: ChildHandle) -> None:
        if not child.is_hung_up:
            self._selector.unregister(child.channel)
        self._stop_reading(child)
        child.close()

    # -- the fork server ---------------------------------------------------------------------------

    def _start_server(self) -> None:
        if time.monotonic() < self._next_try:
            return
        try:
            self._server = ServerHandle(self._settings, self._origin, self._open_files)
        except OSError as error:
            if is_shortage(error) and self._first.is_set():
                self._shortage.note_failure(error.errno, f"the fork server could not be started: {error}", 0)
                self._next_try = self._shortage.next_try
            else:
                self._fail(f"the fork server could not be started: {error}")
            return
        self._selector.register(self._server.channel, _READ, self._hear_server)

    def _hear_server(self, mask: int) -> None:
        assert self._server is not None
        try:
            messages = self._server.channel.receive()
        except (EOFError, OSError):
            self._server_is_gone()
            return
        for message in messages:
            if "gone" in message:
                self._gone(message)
            elif "forked" in message:
                self._succeed()
                if (child := self._children.get(message["forked"])) is not None:
                    child.pid = message["pid"]
                    child.close_theirs()
                    if child.work is not None:
                        child.work.pid = child.pid
            elif "unborn" in message:
                self._unborn(message)
            elif "ready" in message:
                self._server.is_ready = True
                self._failing_since = None
                self._first.set()
                if message["ready"]:
                    names = ",".join(message["ready"])
                    event(
                        logging.WARNING,
                        "importing the code has started threads; children have none",
                        threads=names,
                    )
            elif "broken" in message:
                self._server.broken = message["broken"]

    def _ask_server(self, message: Message) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError):  # it is gone: that comes up by itself
                self._server.ask(message)

    def _unborn(self, message: Message) -> None:
        """No process could be forked: its work goes back to the line, for later."""
        child = self._children.pop(message["unborn"])
        self._take_back_all(child)
        self._close_child(child)
        self._shortage.note_failure(message.get("errno"), message["error"], len(self._children))

    def _server_is_gone(self) -> None:
        """It was killed, or could not start. Its children have died with it; what they left is hunted down."""
        server, self._server = self._server, None
        assert server is not None
        self._selector.unregister(server.channel)
        code = server.end()
        system.kill_marked(server.mark)
        for child in list(self._children.values()):
            del self._children[child.number]
            self._hear_last_words(child)
            if (work := child.work) is not None:
                child.read_all()
                how = death(f"the fork server of this worker {how_it_ended(code)}", work.output)
                self._end_work(child, child.reply, how)
            self._take_back_all(child)
            self._close_child(child)
        self._fail(server.broken or f"the fork server {how_it_ended(code)}")

    def _fail(self, why: str) -> None:
        now = time.monotonic()
        if not self._first.is_set():
            self._broken = why
            self._first.set()
            self._next_try = float("inf")
            return
        if self._failing_since is None:
            self._failing_since = now
        first, last = _RESTARTS
        self._next_try = now + min(last, first * 2**self._failures)
        self._failures += 1
        event(logging.ERROR, "no child process can be started, retrying", error=why)
        if now - self._failing_since > _GIVE_UP:
            self._failing_since = now
            self._callbacks.broken(TaskQueueError(why))

    def _succeed(self) -> None:
        self._failures, self._failing_since, self._next_try = 0, None, 0.0
        self._shortage.note_success(len(self._children))

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end()
        for child in self._children.values():
            child.close()
        self._children.clear()
        self._selector.close()
        for fd in (self._wakeup, self._waker):
            os.close(fd)


def _note_progress(work: TaskRun, message: Message) -> None:
    if (progress := message.get("progress")) is not None and work.tracker is not None:
        work.tracker.tell(progress["done"], progress.get("total"), progress.get("message"))

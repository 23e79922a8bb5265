"""Extensions: code of yours or of an integration around enqueueing, around attempts, and around processes and workers.

An extension is the place for an app context, a tracing span, an error reporter, or a model that each process loads
once. The library calls extensions only through the functions at the end of this module.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ._system.log import event

if TYPE_CHECKING:
    from ._formats.payload import JSON
    from .current import RunningTask
    from .task import EndedTask, Task
    from .worker import Worker

for_all_queues: list[Extension] = []
"""Extensions of every ``TaskQueue`` that is created from now on, before its own. For instrumentation."""


class NewTasksView:
    """A call that stores tasks, as ``Extension.enqueue`` sees it.

    ``queue``: the name of the queue of its first task. ``tasks``: what the call returns; empty until it is stored.
    """

    __slots__ = ("queue", "tasks")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.tasks: Sequence[Task] = ()


class NewTaskView:
    """A task that is about to be stored, as ``Extension.enqueuing`` sees it.

    ``queue`` and ``function`` (or None) are names. Do not change ``payload``. ``meta`` may be changed: it is stored
    with the task, which reads it as ``current_task().meta``.
    """

    __slots__ = ("_function", "_payload", "_queue", "meta")

    def __init__(self, queue: str, function: str | None, payload: JSON, meta: dict[str, JSON]) -> None:
        self._queue = queue
        self._function = function
        self._payload = payload
        self.meta = meta

    @property
    def queue(self) -> str:
        """The name of the task's queue."""
        return self._queue

    @property
    def function(self) -> str | None:
        """The name of the task's function, None for a task of a callback or a command line."""
        return self._function

    @property
    def payload(self) -> JSON:
        """What is stored as the task's payload."""
        return self._payload


class Extension:
    """Base class of extensions, whose methods do nothing. Override those that you need.

    Add an extension with ``TaskQueue(…, extensions=[…])`` or ``queue.use(extension)``. Several are entered in this
    order and left in reverse. With ``executor="process"``, each child process imports the extension: assign it, or the
    ``TaskQueue`` that uses it, to a name at the top of a module.
    """

    def enqueue(self, new: NewTasksView) -> AbstractContextManager[object]:
        """Return a context manager around one call of ``enqueue`` or ``enqueue_many``, or the end of a flow.

        It is entered in the caller's thread, before ``enqueuing`` is called for each task. If the tasks
        are not stored, it gets the exception, which it cannot suppress. With ``connection=``, the caller may still roll
        back.
        """
        return nullcontext()

    def enqueuing(self, new: NewTaskView) -> None:
        """Called in the caller's thread before a task is stored. If it raises, so does ``enqueue``.

        It is not called for the tasks of schedules, which any worker stores.
        """

    def attempt(self, task: RunningTask) -> AbstractContextManager[object]:
        """Return a context manager that is entered before the task's code runs and left when it has ended.

        It is entered in the thread, event loop or child process that runs the code, and gets the code's exception. An
        exception of its own fails the attempt. If it suppresses the code's exception, the task is done without a
        result. Command lines run no code of yours, so it is not called for them.
        """
        return nullcontext()

    def step(self, task: RunningTask, name: str) -> AbstractContextManager[object]:
        """Return a context manager around the function of a step, where it runs.

        It is not entered for a step whose result is stored already. It gets the function's exception, which it cannot
        suppress. An exception of its own is raised in the task.
        """
        return nullcontext()

    def progressed(self, task: RunningTask, done: float, total: float | None, message: str | None) -> None:
        """Called at each report of the task's progress, where it runs. An exception is raised in the task.

        Tasks report from inner loops, so it must return within microseconds.
        """

    def ended(self, task: EndedTask, outcome: str, error: BaseException | None) -> None:
        """Called in the worker after the end of an attempt is stored. An exception is logged.

        ``outcome`` is that of ``Attempt``: ``done``, ``failed``, ``abandoned``, ``cancelled``, ``released`` or
        ``lost``. ``task`` has the result or the error, and ``task.seconds`` is how long the code ran.

        If a worker was lost, the process that rescues its tasks calls this for each attempt that ran, perhaps in a
        thread of its own. ``outcome`` is then ``lost``, and ``task.state`` says whether the task is retried. There is
        no ``error``: ``task.error`` names the worker. ``task.seconds`` is None.
        """

    def process(self) -> AbstractContextManager[object]:
        """Return a context manager around everything that one process runs.

        It is entered in each process that runs code of tasks, before its first task: a worker with threads or an event
        loop, or a child process. It is left when the worker ends or the child is replaced, but not if the process is
        killed. Leaving may take up to 5 seconds in a child. An exception is logged.
        """
        return nullcontext()

    def worker(self, worker: Worker) -> AbstractContextManager[object]:
        """Return a context manager around ``Worker.run``, in the thread that calls it. It may raise."""
        return nullcontext()


def overriding(extensions: Sequence[Extension], method: str) -> list[Extension]:
    """Return the extensions that override a method. The others are not called, which saves time."""
    base = getattr(Extension, method)
    return [extension for extension in extensions if getattr(type(extension), method, base) is not base]


@contextlib.contextmanager
def around_enqueue(extensions: Sequence[Extension], new: NewTasksView) -> Iterator[None]:
    """Run the block inside of every extension's ``enqueue``. An exception of the block is raised in any case."""
    with _strictly_inside(extension.enqueue(new) for extension in extensions):
        yield


@contextlib.contextmanager
def around_step(extensions: Sequence[Extension], task: RunningTask, name: str) -> Iterator[None]:
    """Run the block inside of every extension's ``step``. An exception of the block is raised in any case."""
    with _strictly_inside(extension.step(task, name) for extension in extensions):
        yield


@contextlib.contextmanager
def _strictly_inside(contexts: Iterable[AbstractContextManager[object]]) -> Iterator[None]:
    """Run the block inside of all contexts. An exception of the block is raised, even if one of them suppresses it."""
    raised: BaseException | None = None
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        try:
            yield
        except BaseException as error:
            raised = error
            raise
    if raised is not None:
        raise raised


@contextlib.contextmanager
def around_attempt(extensions: Sequence[Extension], task: RunningTask) -> Iterator[None]:
    """Run the block inside of every extension's ``attempt``."""
    with contextlib.ExitStack() as stack:
        for extension in extensions:
            stack.enter_context(extension.attempt(task))
        yield


@contextlib.contextmanager
def around_worker(extensions: Sequence[Extension], worker: Worker) -> Iterator[None]:
    """Run the block inside of every extension's ``worker``."""
    with contextlib.ExitStack() as stack:
        for extension in extensions:
            stack.enter_context(extension.worker(worker))
        yield


def notify_enqueuing(extensions: Sequence[Extension], new: NewTaskView) -> None:
    """Call every extension's ``enqueuing``."""
    for extension in extensions:
        extension.enqueuing(new)


def notify_progressed(
    extensions: Sequence[Extension], task: RunningTask, done: float, total: float | None, message: str | None
) -> None:
    """Call every extension's ``progressed``."""
    for extension in extensions:
        extension.progressed(task, done, total, message)


def notify_ended(extensions: Sequence[Extension], task: EndedTask, outcome: str, error: BaseException | None) -> None:
    """Call every extension's ``ended``. Exceptions are logged."""
    for extension in extensions:
        try:
            extension.ended(task, outcome, error)
        except Exception as raised:
            event(logging.ERROR, f"{_named(extension)}.ended raised", exc_info=raised, task_id=task.id)


class ProcessContexts:
    """Every extension's ``process`` in this process. Exceptions are logged, and the other extensions are not affected.

    The same thread should enter and leave, since extensions may set context variables.
    """

    def __init__(self, extensions: Sequence[Extension]) -> None:
        self._extensions = overriding(extensions, "process")
        self._entered: list[tuple[Extension, AbstractContextManager[object]]] = []

    def __bool__(self) -> bool:
        """Return whether there is anything to enter."""
        return bool(self._extensions)

    def enter(self) -> None:
        """Enter all."""
        for extension in self._extensions:
            try:
                context = extension.process()
                context.__enter__()
            except Exception as error:
                event(logging.ERROR, f"{_named(extension)}.process raised when it was entered", exc_info=error)
            else:
                self._entered.append((extension, context))

    def leave(self) -> None:
        """Leave those that were entered, in reverse order."""
        while self._entered:
            extension, context = self._entered.pop()
            try:
                context.__exit__(None, None, None)
            except Exception as error:
                event(logging.ERROR, f"{_named(extension)}.process raised when it was left", exc_info=error)


def _named(extension: Extension) -> str:
    return type(extension).__qualname__

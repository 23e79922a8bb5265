"""The exceptions of the package, in one tree.

TaskQueueError
├── ConfigurationError    a URL, DSN or option is unknown or malformed
├── SchemaError           the database's schema is missing, too old or too new
├── PayloadError          a value cannot be stored as JSON, or does not fit its annotation (also a ValueError)
├── TaskNotFound          no task has this id (also a LookupError)
├── InvalidTransition     the task's state, or the caller, does not allow the call
├── LeaseLost             the claim was lost: another worker may hold the task
├── TaskFailed            the awaited task was abandoned
├── TaskCancelled         the awaited task was cancelled; inside a task: its cancellation was requested
├── LimitExceeded         a task was stopped because it exceeded a limit of its own
├── ChildFailed           a task in a child process raised an exception, or its process ended
└── StoreUnavailable      the database cannot be reached or written now

Three more are not errors: a task raises them to choose its own outcome.

RetryTask, AbandonTask, ReleaseTask
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from .checks import check_delay


class TaskQueueError(Exception):
    """The base class of all errors that this package raises."""


class ConfigurationError(TaskQueueError):
    """A URL, DSN or option is unknown or malformed. Passwords in the message are masked."""


class SchemaError(TaskQueueError):
    """The database's schema is missing, too old or too new. The message names the command to run.

    ``problem`` is the message without the command if that is to migrate, else None. A framework has its own command.
    """

    def __init__(self, message: str, problem: str | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class PayloadError(TaskQueueError, ValueError):
    """A value cannot be stored as JSON, or a stored one does not fit the annotation of its argument.

    The message names the limit and the place in the value.
    """

    is_final = False
    """Whether the attempt that raises it is the last one: its arguments do not fit the task function."""


class TaskNotFound(TaskQueueError, LookupError):
    """No task in this database has the id."""


class InvalidTransition(TaskQueueError):
    """The task's state does not allow the transition, or the caller does not hold the task. Nothing was stored."""


class LeaseLost(TaskQueueError):
    """The claim was lost: the task was cancelled, purged, or given to another worker. Nothing was stored."""


class TaskFailed(TaskQueueError):
    """The awaited task was abandoned. ``error`` is the text of its last error, or None."""

    def __init__(self, message: str, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error


class TaskCancelled(TaskQueueError):
    """The awaited task was cancelled. Raised inside a task, it means that its cancellation was requested."""


class LimitExceeded(TaskQueueError):
    """A task was stopped because it exceeded its ``time_limit``, ``stall_limit`` or ``memory_limit``.

    For a task in a child process, ``__context__`` is how the code ended: a ``ChildFailed`` if the child was killed.
    """


class ChildFailed(TaskQueueError):
    """A task in a child process failed: it raised an exception, or its process ended. ``on_error`` gets this error.

    ``name`` is the name of the exception's class there, ``text_in_child`` its text with the traceback, and
    ``type_in_child`` the full name of its class (``package.module.Name``). If the process itself ended, ``name`` is
    "ChildFailed" and ``type_in_child`` is None. ``__cause__`` has the text, so a log of the exception shows it.
    """

    def __init__(
        self, message: str, name: str = "ChildFailed", text: str | None = None, type_in_child: str | None = None
    ) -> None:
        super().__init__(message)
        self.name = name
        self.text_in_child = message if text is None else text
        self.type_in_child = type_in_child
        if self.text_in_child != message:
            self.__cause__ = RemoteTraceback(self.text_in_child)


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in another process: its text there, with the traceback."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class StoreUnavailable(TaskQueueError):
    """The database cannot be reached or written now.

    ``maybe_done``: False if nothing was stored, True if the answer to the commit was lost, so that the change may have
    been stored.
    """

    def __init__(self, message: str, *, maybe_done: bool = False) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done


class RetryTask(Exception):
    """Raised by a task to fail this attempt and run again.

    ``delay``: the time until the next attempt, in seconds or as a timedelta; with None, the retry policy decides. If it
    ends after the year 9999, the task is due at the end of that year. Raises ValueError unless it is finite and at
    least 0.
    """

    def __init__(self, delay: float | timedelta | None = None) -> None:
        super().__init__(delay)
        self.delay = None if delay is None else check_delay(delay, "delay")


class AbandonTask(Exception):
    """Raised by a task to be abandoned, without another attempt. ``reason`` is stored as its error."""

    def __init__(self, reason: str = "abandoned by the task itself") -> None:
        super().__init__(reason)
        self.reason = reason


class ReleaseTask(Exception):
    """Raised by a task to return to the queue without spending an attempt.

    The task is due again after ``delay``, which is checked as in ``RetryTask``.
    """

    def __init__(self, delay: float | timedelta = 0) -> None:
        super().__init__(delay)
        self.delay = check_delay(delay, "delay")


@contextlib.contextmanager
def after_a_change() -> Iterator[None]:
    """Read a change in the block. If the read fails, the error says that the change may have been stored."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreUnavailable(str(error), maybe_done=True) from error

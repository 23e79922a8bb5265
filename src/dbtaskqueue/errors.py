"""Every exception of the package, in one tree.

TaskQueueError
├── ConfigurationError    a URL, DSN or option that is unknown or broken
├── SchemaError           the database's schema is missing, too old or too new
├── PayloadError          a value that cannot be stored as JSON (also a ValueError)
├── TaskNotFound          no task has this id (also a LookupError)
├── InvalidTransition     the task's state does not allow this
├── LeaseLost             the claim is gone: another holds the task, or nobody
├── TaskFailed            the awaited task ended abandoned
├── TaskCancelled         the awaited task ended cancelled; inside a task: it was asked to end
├── LimitExceeded         a task was stopped for a limit of its own
├── ChildFailed           a task in a child process: what it raised there, or how the process ended
└── StoreUnavailable      the database cannot be reached or written now

Three more are no errors: a task raises them to choose its own outcome.

RetryTask, AbandonTask, ReleaseTask
"""

from __future__ import annotations

from datetime import timedelta

from .checks import check_delay


class TaskQueueError(Exception):
    """The base of all errors that this package raises."""


class ConfigurationError(TaskQueueError):
    """A URL, DSN or option is unknown or broken. Passwords in the message are masked."""


class SchemaError(TaskQueueError):
    """The database's schema is missing, too old or too new. The message names the command to run."""


class PayloadError(TaskQueueError, ValueError):
    """A value cannot be stored as JSON. The message names the limit and the place in the value."""


class TaskNotFound(TaskQueueError, LookupError):
    """No task of this database has the id."""


class InvalidTransition(TaskQueueError):
    """The task's state, or who asks, does not allow the transition. Nothing was stored."""


class LeaseLost(TaskQueueError):
    """The claim is gone: the task was taken away or given to another. Nothing was stored."""


class TaskFailed(TaskQueueError):
    """The awaited task ended abandoned. ``error`` is the text of its last error, or None."""

    def __init__(self, message: str, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error


class TaskCancelled(TaskQueueError):
    """The awaited task ended cancelled; raised inside a task, that the task was asked to end."""


class LimitExceeded(TaskQueueError):
    """A task was stopped because it took more than its ``time_limit``, ``stall_limit`` or ``memory_limit``."""


class ChildFailed(TaskQueueError):
    """What a task raised in a child process, or how that process ended; ``on_error`` is told of it.

    ``name`` is the name of the exception's class there, ``text_in_child`` its text with the traceback, and
    ``type_in_child`` the full name of its class (``package.module.Name``). If the process itself ended, ``name`` is
    "ChildFailed" and ``type_in_child`` is None.
    """

    def __init__(
        self, message: str, name: str = "ChildFailed", text: str | None = None, type_in_child: str | None = None
    ) -> None:
        super().__init__(message)
        self.name = name
        self.text_in_child = message if text is None else text
        self.type_in_child = type_in_child


class StoreUnavailable(TaskQueueError):
    """The database cannot be reached or written now.

    ``maybe_done`` says whether what was asked may have been done all the same: False means that
    nothing was stored, True that the answer to the commit was lost.
    """

    def __init__(self, message: str, *, maybe_done: bool = False) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done


class RetryTask(Exception):
    """Raised by a task: this attempt failed, run me again.

    ``delay``: seconds or a timedelta; None leaves it to the retry policy. It must be finite and at least 0, else
    ValueError. If it leads beyond the year 9999, the task is due at the end of that year. The attempt is spent.
    """

    def __init__(self, delay: float | timedelta | None = None) -> None:
        super().__init__(delay)
        self.delay = None if delay is None else check_delay(delay, "delay")


class AbandonTask(Exception):
    """Raised by a task: never run me again. ``reason`` becomes its error."""

    def __init__(self, reason: str = "abandoned by the task itself") -> None:
        super().__init__(reason)
        self.reason = reason


class ReleaseTask(Exception):
    """Raised by a task: release me, without spending an attempt.

    The task is due again after ``delay``, as in ``RetryTask``.
    """

    def __init__(self, delay: float | timedelta = 0) -> None:
        super().__init__(delay)
        self.delay = check_delay(delay, "delay")

"""A persistent task queue for long-running tasks, whose only infrastructure is a SQL database."""

from typing import TYPE_CHECKING

from ._formats.progress import Progress
from ._version import __version__ as __version__
from .audit import Action, Actor
from .bulk import Bulk
from .calls import Command, TaskCall
from .coding import Coder
from .current import Parent, RunningTask, current_task, track
from .errors import (
    AbandonTask,
    ChildFailed,
    ConfigurationError,
    InvalidTransition,
    LeaseLost,
    LimitExceeded,
    PayloadError,
    ReleaseTask,
    RetryTask,
    SchemaError,
    StoreUnavailable,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskQueueError,
)
from .extension import Extension
from .finding import Found
from .history import HistoryPoint, Retention
from .overview import FunctionStats, QueueInfo, QueueStats, WorkerInfo
from .queue import TaskQueue
from .reasons import Reason
from .retry import RetryPolicy
from .schedules import Schedule, Tick
from .states import TaskState
from .task import Attempt, Blocked, Task
from .worker import Worker

if TYPE_CHECKING:
    from .aio import AsyncTask, AsyncTaskQueue

__all__ = [
    "AbandonTask",
    "Action",
    "Actor",
    "AsyncTask",
    "AsyncTaskQueue",
    "Attempt",
    "Blocked",
    "Bulk",
    "ChildFailed",
    "Coder",
    "Command",
    "ConfigurationError",
    "Extension",
    "Found",
    "FunctionStats",
    "HistoryPoint",
    "InvalidTransition",
    "LeaseLost",
    "LimitExceeded",
    "Parent",
    "PayloadError",
    "Progress",
    "QueueInfo",
    "QueueStats",
    "Reason",
    "ReleaseTask",
    "Retention",
    "RetryPolicy",
    "RetryTask",
    "RunningTask",
    "Schedule",
    "SchemaError",
    "StoreUnavailable",
    "Task",
    "TaskCall",
    "TaskCancelled",
    "TaskFailed",
    "TaskNotFound",
    "TaskQueue",
    "TaskQueueError",
    "TaskState",
    "Tick",
    "Worker",
    "WorkerInfo",
    "current_task",
    "track",
]

_LATER = {"AsyncTask": "aio", "AsyncTaskQueue": "aio"}
"""Names whose modules are imported when they are first used, so that other programs do not import asyncio."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = found
    return found

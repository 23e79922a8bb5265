"""Turns tasks of the queue into results of Django's task framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.tasks import TaskResult, TaskResultStatus
from django.tasks.base import TASK_MAX_PRIORITY, TASK_MIN_PRIORITY, TaskError
from django.tasks.base import Task as DjangoTask

from ...current import RunningTask
from ...errors import TaskNotFound
from ...queue import TaskQueue
from ...states import ABANDONED, CANCELLED, DONE, RUNNING
from ...task import Attempt, Task, look_up
from . import code

if TYPE_CHECKING:
    from .backend import DatabaseBackend

_STATUS = {
    RUNNING: TaskResultStatus.RUNNING,
    DONE: TaskResultStatus.SUCCESSFUL,
    ABANDONED: TaskResultStatus.FAILED,
    CANCELLED: TaskResultStatus.FAILED,
}
"""The status of each state; in the others, the task is to run, perhaps again."""
_MOST_ATTEMPTS = 1000
"""The most attempts, the newest ones, that a result reads."""
_FAILURES = {
    "failed": "dbtaskqueue.errors.TaskFailed",
    "abandoned": "dbtaskqueue.errors.TaskFailed",
    "lost": "dbtaskqueue.errors.LeaseLost",
    "cancelled": "dbtaskqueue.errors.TaskCancelled",
}
"""The outcomes of attempts that failed, with the class of an error that is only a text."""


def read(queue: TaskQueue, id: int, connection: object) -> Task:
    """Return a task, read in the transaction of ``connection`` unless that is None. Raises TaskNotFound."""
    return Task(queue.store, look_up(queue.store, id, connection))


def of_new(task: Task, django_task: DjangoTask, alias: str, payload: Mapping[str, Any]) -> TaskResult:
    """Return the result of a task that was stored just now."""
    return TaskResult(
        task=django_task,
        id=str(task.id),
        status=_STATUS.get(task.state, TaskResultStatus.READY),
        enqueued_at=task.created_at,
        started_at=None,
        finished_at=task.finished_at,
        last_attempted_at=None,
        args=payload["args"],
        kwargs=payload["kwargs"],
        backend=alias,
        errors=[],
        worker_ids=[],
    )


def to_result(task: Task, backend: DatabaseBackend) -> TaskResult:
    """Return the result of a task, with its attempts. Raises TaskNotFound if it is not a call of a function."""
    args, kwargs = _arguments(task)
    attempts = [each for each in task.attempts(limit=_MOST_ATTEMPTS) if each.outcome != "released"]
    result = TaskResult(
        task=_django_task(task, backend),
        id=str(task.id),
        status=_STATUS.get(task.state, TaskResultStatus.READY),
        enqueued_at=task.created_at,
        started_at=attempts[0].started_at if attempts else None,
        finished_at=task.finished_at,
        last_attempted_at=attempts[-1].started_at if attempts else None,
        args=args,
        kwargs=kwargs,
        backend=backend.alias,
        errors=_errors(task, attempts),
        worker_ids=[str(each.worker) for each in attempts],
    )
    if task.state == DONE:
        object.__setattr__(result, "_return_value", task.result)
    return result


def of_running(task: RunningTask, backend: DatabaseBackend) -> TaskResult:
    """Return the result of the task that the calling code runs in, whose start may not be stored yet."""
    earlier: list[Attempt] = []
    if task.attempt > 1:
        stored = read(backend.queue, task.id, None)
        earlier = [
            each
            for each in stored.attempts(limit=_MOST_ATTEMPTS)
            if each.outcome not in (None, "released") and each.token != task.token
        ]
    args, kwargs = _arguments(task)
    started_at = task.started_at
    return TaskResult(
        task=_django_task(task, backend),
        id=str(task.id),
        status=TaskResultStatus.RUNNING,
        enqueued_at=task.created_at,
        started_at=earlier[0].started_at if earlier else started_at,
        finished_at=None,
        last_attempted_at=started_at,
        args=args,
        kwargs=kwargs,
        backend=backend.alias,
        errors=[_error(each) for each in earlier if each.outcome in _FAILURES],
        worker_ids=[*(str(each.worker) for each in earlier), str(task.worker)],
    )


def _arguments(task: Task | RunningTask) -> tuple[list[Any], dict[str, Any]]:
    payload = task.payload
    if task.function is None or not isinstance(payload, dict) or set(payload) != {"args", "kwargs"}:
        raise TaskNotFound(f"task {task.id} is not a call of a function")
    return payload["args"], payload["kwargs"]


def failures(task: Task) -> list[TaskError]:
    """Return an error for each attempt of the task that failed."""
    return _errors(task, task.attempts(limit=_MOST_ATTEMPTS))


def _errors(task: Task, attempts: Sequence[Attempt]) -> list[TaskError]:
    found = [_error(each) for each in attempts if each.outcome in _FAILURES]
    if not found and task.state == ABANDONED and task.error is not None:  # it has expired before its first attempt
        found = [TaskError(exception_class_path=_FAILURES["failed"], traceback=task.error)]
    return found


def _error(attempt: Attempt) -> TaskError:
    path = attempt.error_type or _FAILURES[attempt.outcome or "failed"]
    return TaskError(exception_class_path=path, traceback=attempt.error or f"{attempt.outcome}\n")


def _django_task(task: Task | RunningTask, backend: DatabaseBackend) -> DjangoTask:
    """Return the Django task with the options that are stored. It is not validated: an operator may change them."""
    assert task.function is not None
    found = code.find_task(task.function) or code.stand_in(task.function, backend.alias)
    is_deferred = task.start_at > task.created_at
    options: dict[str, Any] = {
        "backend": backend.alias,
        "queue_name": task.queue,
        "priority": max(TASK_MIN_PRIORITY, min(task.priority, TASK_MAX_PRIORITY)),
        "run_after": task.start_at if is_deferred and task.attempt == 0 else None,
        "key": task.key,
        "meta": {name: value for name, value in task.meta.items() if name != code.TRIES} or None,
    }
    options |= {name: getattr(task, name, None) for name in ("time_limit", "stall_limit", "memory_limit", "expires_at")}
    if getattr(found, "retry", None) is None and getattr(found, "backoff", None) is None:
        options["max_attempts"] = None if backend.max_attempts or backend.retry else task.meta.get(code.TRIES)
    new = object.__new__(type(found))
    for field in dataclasses.fields(found):
        object.__setattr__(new, field.name, options.get(field.name, getattr(found, field.name)))
    return new

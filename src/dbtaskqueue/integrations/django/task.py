"""The task class of the backend: Django's, with the options of ``TaskQueue.enqueue``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.tasks import TaskResult
from django.tasks.base import Task
from django.utils import timezone

from ... import RetryPolicy
from ...errors import TaskNotFound
from ...options import Backoff, FunctionOptions, check_options
from ...retry import DEFAULT


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTask(Task):
    """A Django task with further options: keywords of ``@task`` (Django 6.1) and of ``using``.

    ``max_attempts``, ``retry``, ``time_limit``, ``stall_limit``, ``memory_limit``, ``key``, ``meta``, ``after``,
    ``when``, ``before``, ``expires_in`` and ``expires_at``: as for ``TaskQueue.enqueue``. Parents may be given as
    ``TaskResult`` objects, too. ``backoff``: as for ``@queue.task``; it must be given where the task is defined.
    """

    max_attempts: int | None = None
    retry: RetryPolicy | None = None
    backoff: Backoff | None = None
    time_limit: float | timedelta | None = None
    stall_limit: float | timedelta | None = None
    memory_limit: int | None = None
    key: str | None = None
    meta: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    after: Any = dataclasses.field(default=None, hash=False)
    when: str | None = None
    before: Any = dataclasses.field(default=None, hash=False)
    expires_in: float | timedelta | None = None
    expires_at: datetime | None = None

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> Task:
        """Return the same task with other options. Raises TypeError for an unknown one."""
        # super() without arguments fails in a dataclass with slots
        changed = Task.using(self, priority=priority, queue_name=queue_name, run_after=run_after, backend=backend)
        return dataclasses.replace(changed, **options) if options else changed


OPTIONS = tuple(sorted({field.name for field in dataclasses.fields(DatabaseTask)} - set(Task.__dataclass_fields__)))
"""The names of the options that a DatabaseTask has and Django's Task has not."""


def options_of(task: Task) -> dict[str, Any]:
    """Return the options for ``TaskQueue.submit``. Raises TaskNotFound for a parent whose id cannot be one."""
    check_options({name: getattr(task, name, None) for name in ("backoff",)}, FunctionOptions)
    given = {name: getattr(task, name, None) for name in OPTIONS if name != "backoff"}
    options = {name: value for name, value in given.items() if value is not None}
    if "after" in options:
        parents = options["after"]
        several = parents if isinstance(parents, list | tuple) else [parents]
        options["after"] = [_reference(parent) for parent in several]
    if "before" in options:
        options["before"] = _reference(options["before"])
    options |= {"queue": task.queue_name, "priority": task.priority}
    if task.run_after is not None:
        run_after = task.run_after
        options["start_at"] = run_after if timezone.is_aware(run_after) else timezone.make_aware(run_after)
    return options


def tries_of(task: Task, max_attempts: int | None, retry: RetryPolicy | None) -> int | None:
    """Return how many attempts the task may have if they raise exceptions. None: no limit.

    ``max_attempts`` and ``retry``: those of the backend, or None. Without any of these options, an exception is final.
    """
    for tries, policy in (
        (getattr(task, "max_attempts", None), getattr(task, "retry", None)),
        (max_attempts, retry),
    ):
        if tries is not None:
            return tries
        if policy is not None:
            return policy.max_attempts
    return DEFAULT.max_attempts if getattr(task, "backoff", None) is not None else 1


def _reference(task: Any) -> Any:
    """Return the id of a TaskResult, or what else was given."""
    return to_id(task.id) if isinstance(task, TaskResult) else task


def to_id(text: object) -> int:
    """Return the id of a task whose result has the id ``text``. Raises TaskNotFound for what cannot be one."""
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 and text[0] != "0"):
        raise TaskNotFound(f"there is no task {text!r}")
    return int(text)

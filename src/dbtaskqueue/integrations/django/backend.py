"""The backend: stores tasks of Django's task framework, in the transaction of the caller, and reads their results."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.tasks import TaskResult
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils.json import normalize_json

from ... import RetryPolicy, TaskQueue
from ...checks import check_lease, check_queue
from ...errors import SchemaError, TaskNotFound
from ...options import UsingOptions, check_options
from ...retry import DEFAULT, check_policy
from . import code, results
from .database import is_in_memory, url_of
from .task import DatabaseTask, is_retried, options_of, to_id

_OPTIONS = {"database", "url", "lease", "retry", "max_attempts", "modules"}


class DatabaseBackend(BaseTaskBackend):
    """A backend for ``TASKS``, whose tasks are in Django's database or in another one.

    ``OPTIONS``: ``database``: the alias of one of Django's databases, by default "default"; or ``url``: that of another
    database. ``lease``: as for ``TaskQueue``. ``retry``: a ``RetryPolicy``. ``max_attempts``: of all tasks that do not
    set it. ``modules``: modules with tasks besides the ``tasks`` of every app.

    Raises ImproperlyConfigured for an unknown or invalid option.
    """

    task_class = DatabaseTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        options: dict[str, Any] = self.options
        if unknown := sorted(set(options) - _OPTIONS):
            known = ", ".join(sorted(_OPTIONS))
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: unknown option {unknown[0]!r}; known are {known}")
        if "url" in options and "database" in options:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: give database or url, not both")
        self.database: str | None = None if "url" in options else options.get("database", DEFAULT_DB_ALIAS)
        self.modules: Sequence[str] = options.get("modules", ())
        self.max_attempts: int | None = options.get("max_attempts")
        try:
            self.retry: RetryPolicy = check_policy(options.get("retry", DEFAULT))
            self.lease: float = check_lease(options.get("lease", 30.0))
            check_options({} if self.max_attempts is None else {"max_attempts": self.max_attempts}, UsingOptions)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: {error}") from None
        self.retries = self.max_attempts is not None or "retry" in options
        """Whether a task runs again after an exception even if it does not ask for that itself."""

    @property
    def url(self) -> str:
        """The URL of the queue's database. A test run replaces the database of Django's settings."""
        return url_of(connections[self.database]) if self.database is not None else str(self.options["url"])

    @property
    def queue(self) -> TaskQueue:
        """The ``TaskQueue`` of this backend, open. Raises what ``TaskQueue.open`` raises."""
        return opened(self.unopened_queue)

    @property
    def unopened_queue(self) -> TaskQueue:
        """The ``TaskQueue`` of this backend, perhaps not open. All threads share it."""
        key = self.alias, self.url, self.lease, self.retry
        with _lock:
            if key not in _queues:
                extension = code.extension(self.alias)
                queue = TaskQueue(
                    key[1], retry=self.retry, lease=self.lease, create=False, open=False, extensions=[extension]
                )
                queue.functions = code.functions(self.alias)
                _queues[key] = queue
            return _queues[key]

    def validate_task(self, task: Task) -> None:
        """Raise InvalidTask if the task cannot be stored with these options."""
        super().validate_task(task)
        try:
            check_queue(task.queue_name)
            check_options(options_of(task), UsingOptions)
        except (TypeError, ValueError, TaskNotFound) as error:
            raise InvalidTask(str(error)) from None

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Store a call of the task. Inside of ``atomic()``, it is part of that transaction.

        Raises InvalidTask, TypeError for arguments that are not JSON, and what ``TaskQueue.enqueue`` raises.
        """
        self.validate_task(task)
        payload = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs))}
        options = {"connection": self.transaction(), **options_of(task)}
        if self.max_attempts is not None:
            options.setdefault("max_attempts", self.max_attempts)
        if is_retried(task):
            options["meta"] = {**options.get("meta", {}), code.IS_RETRIED: True}
        [stored] = self.queue.submit([payload], options, task.module_path)
        if stored.deduplicated:
            return results.to_result(stored, self)
        result = results.of_new(stored, task, self.alias, payload)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Return the result of a task. Raises TaskResultDoesNotExist."""
        try:
            stored = results.read(self.queue, to_id(result_id), self.transaction())
            return results.to_result(stored, self)
        except TaskNotFound:
            raise TaskResultDoesNotExist(result_id) from None

    def transaction(self) -> object:
        """Return the driver's connection if this thread is in a transaction of Django's, else None."""
        if self.database is None:
            return None
        connection: BaseDatabaseWrapper = connections[self.database]
        if not connection.in_atomic_block and (connection.connection is None or connection.autocommit):
            return None
        if is_in_memory(connection):
            return None
        connection.validate_no_broken_transaction()
        return connection.connection


def opened(queue: TaskQueue) -> TaskQueue:
    """Open a queue. Raises what ``TaskQueue.open`` raises."""
    if not queue.is_open:
        try:
            queue.open()
        except SchemaError as error:
            raise SchemaError(f"{error}; or in Django: manage.py migrate") from None
    return queue


_queues: dict[tuple[object, ...], TaskQueue] = {}
_lock = threading.Lock()


def close_old_connections(**kwargs: object) -> None:
    """Close the connections of all backends unless Django keeps those of their databases open between requests."""
    for (alias, *_), queue in list(_queues.items()):
        del alias
        if queue.is_open:
            queue.store.disconnect()

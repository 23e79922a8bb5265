"""The backend: stores tasks of Django's task framework, in the transaction of the caller, and reads their results."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, TaskResult
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
from .checks import APP, check_backend
from .database import is_in_memory, url_of
from .task import DatabaseTask, options_of, to_id, tries_of

_OPTIONS = {"database", "url", "lease", "retry", "max_attempts", "modules"}


class DatabaseBackend(BaseTaskBackend):
    """A backend for ``TASKS``, whose tasks are in Django's database or in another one.

    ``OPTIONS``: ``database``: the alias of one of Django's databases, by default "default"; or ``url``: that of another
    database. ``lease``: as for ``TaskQueue``. ``retry``: a ``RetryPolicy`` or a dict of its arguments.
    ``max_attempts``: of all tasks that do not set it. ``modules``: modules with tasks besides the ``tasks`` of every
    app.

    Without ``max_attempts``, ``retry`` and ``backoff``, here or for the task, an exception is final. An attempt whose
    worker is lost is always followed by another one, at most ten times in a row.

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
        if not isinstance(self.modules, list | tuple):
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: modules must be a list of names, not {self.modules!r}")
        self.max_attempts: int | None = options.get("max_attempts")
        self.retry: RetryPolicy | None
        """The policy that the settings give, or None."""
        try:
            self.retry = _policy(options.get("retry"))
            self.lease: float = check_lease(options.get("lease", 30.0))
            check_options({} if self.max_attempts is None else {"max_attempts": self.max_attempts}, UsingOptions)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: {error}") from None

    @property
    def url(self) -> str:
        """The URL of the queue's database. A test run replaces the database of Django's settings."""
        return url_of(connections[self.database]) if self.database is not None else str(self.options["url"])

    @property
    def queue(self) -> TaskQueue:
        """The ``TaskQueue`` of this backend, open. Raises what ``TaskQueue.open`` raises."""
        queue = self.unopened_queue
        if not queue.is_open:
            try:
                queue.open()
            except SchemaError as error:
                if error.problem is None:
                    raise
                app = "" if apps.is_installed(APP) else f"add {APP!r} to INSTALLED_APPS, and "
                command = " ".join(self.migrate_command)
                raise SchemaError(f"{error.problem}; {app}run: python {command}", error.problem) from None
        return queue

    @property
    def migrate_command(self) -> list[str]:
        """The words after "python" of the command that creates the tables, or upgrades them."""
        if self.database is None:
            alias = [] if self.alias == DEFAULT_TASK_BACKEND_ALIAS else ["--backend", self.alias]
            return ["manage.py", "dbtaskqueue", *alias, "migrate"]
        return ["manage.py", "migrate", *([] if self.database == DEFAULT_DB_ALIAS else ["--database", self.database])]

    @property
    def unopened_queue(self) -> TaskQueue:
        """The ``TaskQueue`` of this backend, perhaps not open. All threads share it."""
        # a temporary file belongs to a process: those of "test --parallel" have a database in memory each
        process = os.getpid() if self.is_temporary else None
        key = self.alias, self.url, self.lease, self.retry, process
        with _lock:
            if key not in _queues:
                extension = code.extension(self.alias)
                queue = TaskQueue(
                    self.url,
                    retry=self.retry or DEFAULT,
                    lease=self.lease,
                    create=self.is_temporary,
                    open=False,
                    extensions=[extension],
                )
                queue.functions = code.functions(self.alias)
                _queues[key] = queue
            return _queues[key]

    @property
    def is_temporary(self) -> bool:
        """Whether Django's database is in memory. The queue is then in a temporary file, which no migration fills."""
        return self.database is not None and is_in_memory(connections[self.database])

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
        self._check_backoff(task)
        payload = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs))}
        options = {"connection": self.transaction(), **options_of(task)}
        tries = tries_of(task, self.max_attempts, self.retry)
        if tries is None or tries > 1:
            options["meta"] = {**options.get("meta", {}), code.TRIES: tries}
        options["max_attempts"] = None if tries is None else code.budget_of(tries)
        [stored] = self.queue.submit([payload], options, task.module_path)
        if stored.deduplicated:
            return results.to_result(stored, self)
        result = results.of_new(stored, task, self.alias, payload)
        task_enqueued.send(type(self), task_result=result)
        return result

    def _check_backoff(self, task: Task) -> None:
        """Raise InvalidTask for a ``backoff`` that a worker would not find, since no function is stored."""
        backoff = getattr(task, "backoff", None)
        if backoff is not None and getattr(code.find_task(task.module_path), "backoff", None) is not backoff:
            raise InvalidTask(f"give backoff to {task.module_path} where it is defined: workers look it up there")

    def get_result(self, result_id: str) -> TaskResult:
        """Return the result of a task. Raises TaskResultDoesNotExist."""
        try:
            stored = results.read(self.queue, to_id(result_id), self.transaction())
            return results.to_result(stored, self)
        except TaskNotFound:
            raise TaskResultDoesNotExist(result_id) from None

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return what is wrong with the settings of this backend: see ``checks``."""
        return check_backend(self)

    def transaction(self) -> object:
        """Return the driver's connection if this thread is in a transaction of Django's, else None."""
        if self.database is None:
            return None
        connection: BaseDatabaseWrapper = connections[self.database]
        is_open = connection.connection is not None
        commits_itself = connection.autocommit if is_open else connection.settings_dict["AUTOCOMMIT"]
        if self.is_temporary or (commits_itself and not connection.in_atomic_block):
            return None
        connection.validate_no_broken_transaction()
        connection.ensure_connection()
        return connection.connection


def _policy(given: object) -> RetryPolicy | None:
    """Return the policy of the settings. Raises TypeError and ValueError."""
    if given is None:
        return None
    return RetryPolicy(**given) if isinstance(given, dict) else check_policy(given)  # type: ignore[arg-type]


_queues: dict[tuple[object, ...], TaskQueue] = {}
_lock = threading.Lock()


def close_before_drop(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """Close our connections when Django opens one to create or drop a database, such as that of a test run."""
    if connection.alias == NO_DB_ALIAS:
        close_old_connections()


def close_old_connections(**kwargs: object) -> None:
    """Close the connections of all backends, which are opened again when they are needed."""
    for queue in list(_queues.values()):
        if queue.is_open:
            queue.store.disconnect()

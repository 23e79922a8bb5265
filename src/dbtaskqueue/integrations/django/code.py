"""The code of tasks: finds Django's tasks by name, runs them in a worker, and sends signals.

A task is found only among the modules that are loaded: ``tasks`` of every app, and ``OPTIONS["modules"]``. A name in
the database is never imported. A child process imports this module, which sets up Django there.
"""

from __future__ import annotations

import functools as tools
import importlib
import json
import logging
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import django
from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import close_old_connections, connections
from django.tasks import TaskContext, TaskResult, task_backends
from django.tasks.base import Task as DjangoTask
from django.tasks.signals import task_finished, task_started
from django.utils.json import normalize_json
from django.utils.module_loading import autodiscover_modules

from ...checks import is_async
from ...current import RunningTask, current_task
from ...errors import TaskNotFound, TaskQueueError
from ...extension import Extension
from ...options import Backoff
from ...retry import DEFAULT
from ...states import FINAL
from ...task import Task
from .connections import Share, close_idle_connections, leave_connections, use_connections
from .task import DatabaseTask

if TYPE_CHECKING:
    from .backend import DatabaseBackend

TRIES = "dbtaskqueue.django.max_attempts"
"""The key in a task's ``meta`` with the number of attempts that it may have if they raise exceptions."""


def budget_of(tries: int) -> int:
    """Return the number of attempts that is stored, with which an attempt whose worker was lost is followed by another.

    ``tries``: how many the task may have if they raise exceptions.
    """
    return max(tries, DEFAULT.max_attempts or 0)


def last_try(task: Task | RunningTask) -> int | None:
    """Return the number of the attempt from which on an exception is final; None if it never is.

    Attempts that were lost count, too. After an operator's retry, the task may have as many attempts again.
    """
    tries = task.meta.get(TRIES, 1)
    if not isinstance(tries, int) or task.max_attempts is None:
        return None
    return task.max_attempts - budget_of(tries) + tries


# -- finding tasks ---------------------------------------------------------------------------------


@tools.cache
def load_tasks() -> None:
    """Import the modules that have tasks: once in each process."""
    autodiscover_modules("tasks")
    from .backend import DatabaseBackend

    for backend in task_backends.all():
        if isinstance(backend, DatabaseBackend):
            for name in backend.modules:
                importlib.import_module(name)


def all_tasks() -> dict[str, DjangoTask]:
    """Return the tasks at the top of the modules that are loaded, by name."""
    load_tasks()
    modules = [module for module in list(sys.modules.values()) if isinstance(module, types.ModuleType)]
    values = [value for module in modules for value in list(vars(module).values())]
    # isinstance would evaluate Django's lazy objects
    return {value.module_path: value for value in values if issubclass(type(value), DjangoTask)}


def find_task(name: str) -> DjangoTask | None:
    """Return the task of that name, or None."""
    found = _at_the_top(name)
    if found is None and apps.ready:
        load_tasks()
        found = _at_the_top(name) or _known().get(name)
    return found


def _at_the_top(name: str) -> DjangoTask | None:
    module, _, attribute = name.rpartition(".")
    found: Any = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    return found if issubclass(type(found), DjangoTask) and found.module_path == name else None


@tools.cache
def _known() -> dict[str, DjangoTask]:
    """Return all tasks: some have other names in their modules than their functions have."""
    return all_tasks()


def stand_in(name: str, alias: str) -> DjangoTask:
    """Return a task in place of one that does not exist any more, which raises TaskQueueError."""

    def vanished(*args: Any, **kwargs: Any) -> None:
        raise TaskQueueError(
            f"there is no task {name!r}: it is neither in the tasks module of an app nor in one of OPTIONS['modules']"
        )

    vanished.__module__, _, vanished.__qualname__ = name.rpartition(".")
    vanished.__name__ = vanished.__qualname__
    task = object.__new__(DatabaseTask)
    defaults = {field.name: field.default for field in DatabaseTask.__dataclass_fields__.values()}
    for field, value in {**defaults, "func": vanished, "backend": alias}.items():
        object.__setattr__(task, field, value)
    return task


# -- running tasks ---------------------------------------------------------------------------------


def _final(error: BaseException, attempt: int) -> None:
    """Abandon the task."""


class Code:
    """What a worker calls to run a task."""

    def __init__(self, task: DjangoTask, alias: str, *, exists: bool = True) -> None:
        self.__wrapped__ = task.func
        self._task = task
        self._alias = alias
        self._exists = exists

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task and return its result as JSON; for an ``async def``, return an awaitable."""
        if is_async(self._task.func):
            return self._run_async(args, kwargs)
        use_connections()
        try:
            args = self._started(args)
            return normalize_json(self._task.func(*args, **kwargs))
        finally:
            leave_connections()

    async def _run_async(self, args: Any, kwargs: Any) -> Any:
        share = Share()
        try:
            await sync_to_async(share.start)()
            result = await sync_to_async(self._running)()
            await task_started.asend(type(self._backend), task_result=result)
            context = [TaskContext(task_result=result)] if self._task.takes_context else []
            return normalize_json(await self._task.func(*context, *args, **kwargs))
        finally:
            await sync_to_async(share.end)()

    def _started(self, args: Any) -> Any:
        result = self._running()
        task_started.send(type(self._backend), task_result=result)
        return (TaskContext(task_result=result), *args) if self._task.takes_context else args

    def _running(self) -> TaskResult:
        from .results import of_running

        return of_running(current_task(), self._backend)

    @property
    def _backend(self) -> DatabaseBackend:
        return cast("DatabaseBackend", task_backends[self._alias])

    @property
    def backoff(self) -> Backoff | None:
        """When the running task is due again after an exception; None if its retry policy says so."""
        task = current_task()
        last = last_try(task)
        if self._exists and last is not None and task.attempt >= last:
            return _final
        return cast("Backoff | None", getattr(self._task, "backoff", None))


class DjangoFunctions:
    """The task functions of a backend, by name."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __getattr__(self, name: str) -> str:
        return _place("functions", self._alias, name)

    def find(self, name: str) -> Callable[..., Any]:
        """Return the code of the task of that name. For a task that does not exist, it raises TaskQueueError."""
        task = find_task(name)
        return Code(task or stand_in(name, self._alias), self._alias, exists=task is not None)

    def names(self) -> list[str]:
        """Return the names of all tasks."""
        return sorted(all_tasks())


class DjangoExtension(Extension):
    """Sends ``task_finished`` in the worker, and closes Django's connections at the end of a process."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __getattr__(self, name: str) -> str:
        return _place("extension", self._alias, name)

    def ended(self, task: Task, outcome: str, error: BaseException | None) -> None:
        """Send ``task_finished`` if the task does not run again."""
        from .results import to_result

        if task.state not in FINAL:
            return
        backend = cast("DatabaseBackend", task_backends[self._alias])
        try:
            result = to_result(task.refresh(), backend)
        except TaskNotFound:  # a command line, or it was deleted meanwhile
            return
        trace = None if error is None else error.__traceback__
        try:
            if error is not None:
                raise error
            task_finished.send(type(backend), task_result=result)
        except BaseException as raised:
            if raised is not error:
                raise
            # Django's own receiver logs the exception that is being handled
            task_finished.send(type(backend), task_result=result)
            error.__traceback__ = trace
        finally:
            close_old_connections()

    @contextmanager
    def process(self) -> Iterator[None]:
        """Close Django's connections at the end of a process that runs tasks."""
        try:
            yield
        finally:
            connections.close_all()
            close_idle_connections()


# -- in child processes ----------------------------------------------------------------------------


@tools.cache
def functions(alias: str) -> DjangoFunctions:
    """Return the task functions of the backend with this alias."""
    return DjangoFunctions(alias)


@tools.cache
def extension(alias: str) -> DjangoExtension:
    """Return the extension of the backend with this alias."""
    return DjangoExtension(alias)


def _place(kind: str, alias: str, name: str) -> str:
    """Return the attribute ``__qualname__`` of the functions or the extension of a backend. Raises AttributeError.

    It has the names of Django's databases at this moment: in a test run, those of the test databases. Children must
    use these, not those of the settings.
    """
    if name != "__qualname__":
        raise AttributeError(name)
    names = {each: str(database["NAME"]) for each, database in connections.settings.items()}
    return f"{kind}_{json.dumps([alias, names]).encode().hex()}"


def __getattr__(name: str) -> object:
    """Return the functions or the extension of a backend, by the names under which a child process looks them up."""
    kind, _, place = name.partition("_")
    make: Callable[[str], object] | None = {"functions": functions, "extension": extension}.get(kind)
    if make is None or not place:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    alias, databases = json.loads(bytes.fromhex(place))
    _set_up(databases)
    return make(alias)


def _set_up(databases: Mapping[str, str]) -> None:
    """Load Django and all tasks in the fork server, whose children share them but no connection.

    ``databases``: the names of the databases by their aliases.
    """
    if not apps.ready:
        django.setup()
        for alias, name in databases.items():
            if str(connections.settings[alias]["NAME"]) != name:
                connections.settings[alias]["NAME"] = name
        logger = logging.getLogger("django.tasks")
        if logger.level == logging.NOTSET:  # otherwise, the output of each task has a line that says that it runs
            logger.setLevel(logging.WARNING)
        load_tasks()
        for connection in connections.all(initialized_only=True):
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()

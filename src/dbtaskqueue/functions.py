"""``@queue.task``: functions whose calls are tasks. A registry, binding, and ``using()``.

A function is found by its name in the registry of the queue, never imported by a name that stands in
the database.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack

from ._executors.lookup import call, module_of
from ._formats.limits import check_limits
from ._formats.payload import JSON
from .checks import check_function, check_priority, is_async, refuse_async_generator
from .retry import RetryPolicy, check_max_attempts, check_policy
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")


class Options(TypedDict, total=False):
    """What ``enqueue`` and ``using`` take beside the payload."""

    start_in: float | timedelta | None
    start_at: datetime | None
    priority: int
    max_attempts: int | None
    retry: RetryPolicy | None
    key: str | None
    connection: object
    time_limit: float | timedelta | None
    stall_limit: float | timedelta | None
    memory_limit: int | None


class FunctionOptions(TypedDict, total=False):
    """What ``@queue.task(…)`` takes."""

    name: str
    max_attempts: int | None
    priority: int
    retry: RetryPolicy | None
    time_limit: float | timedelta | None
    stall_limit: float | timedelta | None
    memory_limit: int | None


def refuse_unknown(options: Mapping[str, object], known: type, function: str) -> None:
    """TypeError for an option that is none of ``known``, as Python raises it where the names stand in the signature."""
    unknown = set(options) - set(known.__annotations__)
    if unknown:
        raise TypeError(f"{function}() got an unknown option {sorted(unknown)[0]!r}")


class Submitter(Protocol):
    """Where calls are enqueued: a TaskQueue."""

    def submit(self, payloads: list[JSON], options: Options, function: str | None = None) -> list[Task]:
        """Store payloads with the same options."""


class TaskFunction(Generic[P, R]):
    """A registered function: call it as before, or ``enqueue`` the call."""

    def __init__(self, queue: Submitter, name: str, function: Callable[P, R], options: Options) -> None:
        self.name = name
        self.is_async = is_async(function)
        self._queue = queue
        self._function = function
        self._options = options
        self._signature = inspect.signature(function)
        functools.update_wrapper(self, function, updated=())
        for attribute, value in getattr(function, "__dict__", {}).items():
            if not hasattr(self, attribute):  # keep our own `name`, `run` and so on
                setattr(self, attribute, value)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:  # a parameter of the function may be called self
        return self._function(*args, **kwargs)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Store a call of the function as a task. TypeError when the arguments do not fit its signature."""
        self._signature.bind(*args, **kwargs)
        return self._queue.submit([{"args": list(args), "kwargs": kwargs}], self._options, self.name)[0]

    def using(self, **options: Unpack[Options]) -> TaskFunction[P, R]:
        """The same function with other options of ``TaskQueue.enqueue`` for what is enqueued through it."""
        refuse_unknown(options, Options, "using")
        return TaskFunction(self._queue, self.name, self._function, {**self._options, **options})

    def run(self, payload: JSON) -> R:
        """Call the function with the arguments that a payload holds; PayloadError if it holds none.

        What an ``async def`` gives is to be awaited.
        """
        result: R = call(self._function, self.name, payload)
        return result


class Registry:
    """The task functions of a queue, by name."""

    def __init__(self) -> None:
        self._functions: dict[str, TaskFunction[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._functions)

    def register(self, queue: Submitter, function: Callable[P, R], options: FunctionOptions) -> TaskFunction[P, R]:
        """Make ``function`` a task function of ``queue``. ValueError when another function has the name.

        A task function of another queue is registered as the plain function under it, without its options.
        """
        if isinstance(function, TaskFunction):
            function = function.__wrapped__  # type: ignore[attr-defined]
        refuse_unknown(options, FunctionOptions, "task")
        refuse_async_generator(function, "the task function")
        given = options.get("name")
        name = check_function(f"{module_of(function)}.{function.__qualname__}" if given is None else given)
        known = self._functions.get(name)
        if known is not None and not _is_same(known.__wrapped__, function):  # type: ignore[attr-defined]
            raise ValueError(f"another task function of this queue is called {name!r}; give one of them a name=")
        check_max_attempts(options.get("max_attempts"), or_none=True)
        check_priority(options.get("priority", 0))
        policy = options.get("retry")
        if policy is not None:
            check_policy(policy)
        check_limits(options.get("time_limit"), options.get("stall_limit"), options.get("memory_limit"))
        chosen: Options = {key: value for key, value in options.items() if key != "name"}  # type: ignore[assignment]
        registered = TaskFunction(queue, name, function, chosen)
        self._functions[name] = registered
        return registered

    def find(self, name: str) -> TaskFunction[Any, Any] | None:
        """The function of that name, if this process registered it."""
        return self._functions.get(name)

    def names(self) -> list[str]:
        """The names of all functions."""
        return sorted(self._functions)


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether it is the same function, perhaps of a module that was reloaded, or of a script that imports itself."""
    return (module_of(one), one.__qualname__) == (module_of(other), other.__qualname__)

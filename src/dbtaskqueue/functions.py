"""Task functions: the functions that ``@queue.task`` registers, and the registry that finds them by name.

A worker finds a function by its name in the registry of its queue. A name in the database is never imported.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from ._executors.lookup import module_of
from ._formats.payload import JSON
from .calls import TaskCall
from .checks import check_function, refuse_async_generator
from .coding import CallCoding, Coder
from .dependencies import has_references
from .options import Backoff, Defaults, FunctionOptions, UsingOptions, check_options, options_of, refuse_unknown
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Submitter(Protocol):
    """Where calls are enqueued: a TaskQueue."""

    @property
    def coders(self) -> Sequence[Coder]:
        """What codes arguments and results."""

    def get(self, id: int) -> Task:
        """Return a task."""

    def submit(self, payloads: list[JSON], options: Mapping[str, object], function: str | None = None) -> list[Task]:
        """Store payloads with the same options."""

    def enqueue_all(self, calls: list[Any]) -> list[Task]:
        """Store calls, each with its own options."""


class TaskFunction(Generic[P, R_co]):
    """A registered function: call it as before, or ``enqueue`` the call.

    ``backoff``: that of ``@queue.task``, or None. ``coding``: how arguments and results are coded, None without coders.
    ``below``: the task function of another queue that it was registered above; a child process finds that one by it.
    """

    _payload_hint = "; to enqueue a call of it, pass what its bind() returns"  # see _formats/payload.py
    _inner = "below"  # see _executors/lookup.py

    def __init__(
        self,
        queue: Submitter,
        name: str,
        function: Callable[P, R_co],
        defaults: Mapping[str, object],
        using: Mapping[str, object] | None = None,
        backoff: Backoff | None = None,
        coding: CallCoding | None = None,
        below: TaskFunction[P, R_co] | None = None,
    ) -> None:
        self.name = name
        self.backoff = backoff
        self.coding = coding
        self.below = below
        self._queue = queue
        self._function = function
        self._defaults = defaults
        self._using = using or {}
        self._options = {**defaults, **self._using}
        self._signature = inspect.signature(function)
        functools.update_wrapper(self, function, updated=())
        for attribute, value in getattr(function, "__dict__", {}).items():
            if not hasattr(self, attribute):  # must not replace our own `name`, `enqueue` and so on
                setattr(self, attribute, value)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:  # a parameter of the function may be called self
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<TaskFunction {self.name}>"

    @overload  # for an async def, R is what it returns when awaited
    def enqueue(self: TaskFunction[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...

    @overload
    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Task[R_co]: ...

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Task[Any]:
        """Store a call of the function as a task.

        Raises TypeError if the arguments do not fit its signature, and PayloadError for one that cannot be stored.
        """
        self._check_arguments(args, kwargs)
        coding = self.coding
        given, named = (args, kwargs) if coding is None else coding.encode(args, kwargs)
        if has_references(given, named):
            call = TaskCall[Any](self.name, given, named, self._defaults, self._using, coding)
            return self._queue.enqueue_all([call])[0]
        task = self._queue.submit([{"args": list(given), "kwargs": named}], self._options, self.name)[0]
        return task if coding is None else task.read_with(self.name, coding)

    @overload
    def bind(self: TaskFunction[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[T]: ...

    @overload
    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R_co]: ...

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskCall[Any]:
        """Return a call of the function for ``TaskQueue.enqueue`` and ``enqueue_many``.

        Raises TypeError if the arguments do not fit its signature, and PayloadError for one that does not fit its
        annotation.
        """
        self._check_arguments(args, kwargs)
        given, named = (args, kwargs) if self.coding is None else self.coding.encode(args, kwargs)
        return TaskCall(self.name, given, named, self._defaults, self._using, self.coding)

    @overload
    def get(self: TaskFunction[P, Coroutine[Any, Any, T]], task: Task | int) -> Task[T]: ...

    @overload
    def get(self, task: Task | int) -> Task[R_co]: ...

    def get(self, task: Task | int) -> Task[Any]:
        """Return a task of this function, whose result is decoded by the return annotation.

        ``task``: a task or its id. Raises TaskNotFound, and ValueError for a task of another function.
        """
        found = self._queue.get(task if isinstance(task, int) else task.id)
        if found.function != self.name:
            raise ValueError(f"task {found.id} is not a call of {self.name}, but of {found.function}")
        return found if self.coding is None else found.read_with(self.name, self.coding)

    @property
    def positional(self) -> tuple[str, ...]:
        """The names of the arguments that a call may give by position."""
        kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        return tuple(each.name for each in self._signature.parameters.values() if each.kind in kinds)

    def check_stored(self, args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> None:
        """Check arguments that are JSON values, as they are stored: for calls that people write.

        Raises TypeError if they do not fit the signature, and PayloadError for one that does not fit its annotation.
        """
        self._check_arguments(args, kwargs)
        if self.coding is not None:
            self.coding.decode(args, kwargs)

    def _check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            options = [name for name in kwargs if name in options_of(UsingOptions) and name in str(error)]
            hint = f"; options of the task go before the call: using({options[0]}=…)" if options else ""
            raise TypeError(f"{self.name}: {error}{hint}") from None

    def using(self, **options: Unpack[UsingOptions]) -> TaskFunction[P, R_co]:
        """Return the same function with other options for the tasks that are enqueued through it.

        Takes any option of ``TaskQueue.enqueue``, and ``queue``: the name of another queue of the database.
        """
        refuse_unknown(options, UsingOptions, "using")
        using = {**self._using, **options}
        return TaskFunction(
            self._queue, self.name, self._function, self._defaults, using, self.backoff, self.coding, self.below
        )


class Registry:
    """The task functions of a queue, by name."""

    def __init__(self) -> None:
        self._functions: dict[str, TaskFunction[Any, Any]] = {}

    def register(self, queue: Submitter, function: Callable[P, R], options: FunctionOptions) -> TaskFunction[P, R]:
        """Make ``function`` a task function of ``queue``.

        A task function of another queue is registered as the plain function that it wraps, without its options.
        Raises ValueError if another function has the name, and what the options' checks raise.
        """
        below = getattr(function, "sync", function)  # that of an AsyncTaskQueue
        if isinstance(below, TaskFunction):
            function = below.__wrapped__  # type: ignore[attr-defined]
        else:
            below = None
        refuse_unknown(options, FunctionOptions, "task")
        refuse_async_generator(function, "the task function")
        given = check_options(options, FunctionOptions)
        name = given.get("name") or check_function(f"{module_of(function)}.{function.__qualname__}")
        known = self._functions.get(name)
        if known is not None and not _is_same(known.__wrapped__, function):  # type: ignore[attr-defined]
            raise ValueError(f"another task function of this queue is called {name!r}; give one of them a name=")
        defaults = {key: value for key, value in options.items() if key in Defaults.__annotations__}
        coding = CallCoding(function, name, queue.coders) if queue.coders else None
        registered = TaskFunction(queue, name, function, defaults, None, given.get("backoff"), coding, below)
        self._functions[name] = registered
        return registered

    def find(self, name: str) -> TaskFunction[Any, Any] | None:
        """Return the function of that name, or None if this process has not registered it."""
        return self._functions.get(name)

    def names(self) -> list[str]:
        """Return the names of all functions."""
        return sorted(self._functions)

    def arguments(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the positional arguments of each function."""
        return {name: function.positional for name, function in list(self._functions.items())}


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Return whether both are the same function, perhaps of a reloaded module or a script that imports itself."""
    return (module_of(one), one.__qualname__) == (module_of(other), other.__qualname__)

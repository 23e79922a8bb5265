"""What an executor of ``futures`` runs: functions that are known here, called with stored arguments."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ..._executors.lookup import found_at, module_of, refer
from ..._system.log import event
from ...errors import ReleaseTask
from ...functions import TaskFunction
from .tagged import decode, encode

EACH = "$each"
"""The keyword argument of a task that calls its function for each of several lists of arguments."""
_PAUSE = 5.0
"""Seconds after which a task is due again whose call could not be prepared."""


class InitializerFailed(ReleaseTask):
    """Raised in a task in place of its function: the initializer has failed. The task returns to the queue."""


class Call:
    """A task function as the worker calls it: with stored arguments, and with a result that can be stored."""

    ends_with_process = True

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], None], *, is_final: bool) -> None:
        self.__wrapped__ = function
        self._prepare = prepare
        self.backoff = _never if is_final else None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the function, or an ``async def`` when the result is awaited."""
        self._prepare()
        if kwargs.pop(EACH, False):
            return self._call_each(map(decode, args))
        result = self.__wrapped__(*map(decode, args), **{name: decode(value) for name, value in kwargs.items()})
        return _awaited(result) if hasattr(result, "__await__") else encode(result, "result")

    def _call_each(self, calls: Iterator[list[Any]]) -> Any:
        results = []
        for args in calls:
            result = self.__wrapped__(*args)
            if hasattr(result, "__await__"):
                return self._await_each(result, calls)
            results.append(encode(result, "result"))
        return results

    async def _await_each(self, first: Awaitable[Any], calls: Iterator[list[Any]]) -> list[Any]:
        return [await _awaited(first), *[await _awaited(self.__wrapped__(*args)) for args in calls]]


async def _awaited(result: Awaitable[Any]) -> Any:
    return encode(await result, "result")


def _never(error: BaseException, attempt: int) -> None:
    """Return None: an exception is final."""


def calls(initializer: Callable[..., object] | None, value: Any) -> Callable[[Callable[..., Any]], Call]:
    """Return what makes task functions callable: see ``Functions.wrapper`` for children.

    ``value``: whether exceptions are final, and the arguments of ``initializer``, which each thread calls first.
    """
    is_final, arguments = value
    state = threading.local()

    def prepare() -> None:
        if initializer is None or getattr(state, "is_ready", False):
            return
        try:
            initializer(*decode(arguments))
        except BaseException as error:
            event(logging.CRITICAL, "the initializer of an executor failed", exc_info=error)
            raise InitializerFailed(_PAUSE) from error
        state.is_ready = True

    return lambda function: Call(_code_of(function), prepare, is_final=is_final)


def _code_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that ``@queue.task`` has registered. What other decorators have returned is called."""
    return function.__wrapped__ if isinstance(function, TaskFunction) else function  # type: ignore[attr-defined]


class Known:
    """The functions that an executor runs: a provider, see ``_executors/lookup.py``."""

    may_grow = True

    def __init__(self, wrapper: tuple[Any, Any, Any]) -> None:
        self.wrapper = wrapper
        self._wrap = calls(*wrapper[1:])
        self._calls: dict[str, Call] = {}
        self._modules: list[ModuleType] = []

    def find(self, name: str) -> Call | None:
        """Return the function of that name, or None."""
        if (found := self._calls.get(name)) is None:
            for module in self._modules:
                function = vars(module).get(name.removeprefix(f"{module.__name__}."))
                if name.startswith(f"{module.__name__}.") and callable(function) and _is_of(function, module):
                    found = self._calls.setdefault(name, self._wrap(function))
        return found

    def names(self) -> list[str]:
        """Return the names of all functions."""
        of_modules = {
            f"{module.__name__}.{name}"
            for module in self._modules
            for name, value in list(vars(module).items())
            if _is_of(value, module)
        }
        return sorted({*self._calls, *of_modules})

    def add_module(self, module: ModuleType) -> None:
        """Add all functions that a module defines."""
        if module.__name__ == "__main__":  # whose functions have the name of its file
            for value in list(vars(module).values()):
                if _is_of(value, module):
                    self.add(value)
        else:
            self._modules.append(module)

    def add(self, function: Callable[..., Any]) -> tuple[str, bool]:
        """Add a function. Return its name, and whether it is new. Raises TypeError if a worker could not find it."""
        code = _code_of(function)
        place = refer(code) if callable(code) else None
        if place is None or _code_of(found_at(*place)) != code:  # such as a function that is decorated only here
            raise TypeError(
                f"{function!r} cannot be found by its module and name, so no other process could run it;"
                " submit a function that is defined at the top of a module"
            )
        module, path = place
        name = f"{module_of(function) if module == '__main__' else module}.{path}"
        is_new = self.find(name) is None
        if is_new:
            self._calls[name] = self._wrap(code)
        return name, is_new


def _is_of(value: object, module: ModuleType) -> bool:
    """Return whether a module defines this function, perhaps with a decorator."""
    own = inspect.unwrap(value) if callable(value) else value
    return isinstance(own, FunctionType | BuiltinFunctionType) and own.__module__ == module.__name__

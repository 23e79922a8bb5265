"""What ``enqueue`` takes besides a JSON payload: a call of a task function, or a command line."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, final

from ._formats.command_line import as_payload
from ._formats.payload import JSON
from .checks import shown
from .coding import CallCoding
from .dependencies import AnyTask, has_references, without_references
from .options import UsingOptions, given

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # for type checkers; at run time, a default needs 3.13

    R = TypeVar("R", covariant=True, default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)


@final
class TaskCall(Generic[R]):
    """A call of a task function that is not enqueued yet, made by ``bind``. The function returns ``R``.

    ``function``: the name of the task function. ``args`` and ``kwargs``: the arguments as they are stored, with tasks
    among them. ``options`` and ``using``: the options of ``@queue.task`` and ``using``.
    """

    __slots__ = ("args", "coding", "function", "kwargs", "options", "using")

    def __init__(
        self,
        function: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, object],
        using: Mapping[str, object],
        coding: CallCoding | None = None,
    ) -> None:
        self.coding = coding
        """How its results are read; the arguments are coded already."""
        self.function = function
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.options = options
        self.using = using

    @property
    def payload(self) -> JSON:
        """The arguments as they are stored, with None in place of each task."""
        args, kwargs, _ = self.parts()
        return {"args": args, "kwargs": kwargs}

    def parts(self) -> tuple[list[Any], dict[str, Any], list[tuple[str, AnyTask]]]:
        """Return the arguments as they are stored, and the tasks among them with their places."""
        if not has_references(self.args, self.kwargs):
            return list(self.args), self.kwargs, []
        return without_references(self.args, self.kwargs)

    def __repr__(self) -> str:
        given = [*map(shown, self.args), *(f"{name}={shown(value)}" for name, value in self.kwargs.items())]
        return f"<TaskCall {self.function}({', '.join(given)})>"


@final
class Command:
    """A command line to enqueue, for workers that allow commands. No shell reads it.

    ``argv``: the program and its arguments. ``cwd``: the directory in which it runs, by default the worker's. ``env``
    is added to the worker's environment. Raises TypeError and ValueError for what cannot be run.
    """

    __slots__ = ("payload",)

    def __init__(
        self,
        argv: Sequence[str],
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.payload = as_payload(argv, cwd, env)

    def __repr__(self) -> str:
        return f"<Command {shown(self.payload['argv'])}>"


Target = JSON | TaskCall | Command
"""What ``enqueue`` takes."""


class Batch(NamedTuple):
    """Tasks that differ only in their payloads.

    ``arguments``: the parents whose results become arguments of the call, each with its place in the payload.
    ``coding``: how the results are read.
    """

    payloads: list[JSON]
    options: Mapping[str, object]
    function: str | None = None
    is_command: bool = False
    arguments: Sequence[tuple[str, AnyTask]] = ()
    coding: CallCoding | None = None


_CALLS = frozenset({TaskCall, Command})
_plain_batch = functools.partial(tuple.__new__, Batch)  # takes a third of the time of calling the class


def batches_of(targets: list[Any], options: Mapping[str, object]) -> list[Batch]:
    """Return targets as batches, in their order.

    The options of ``using`` win over ``options``, which win over those of ``@queue.task``.
    """
    if _CALLS.isdisjoint(map(type, targets)):
        return [_plain_batch((targets, options, None, False, (), None))]
    common = given(options, UsingOptions)
    batches: list[Batch] = []
    for target in targets:
        batch = _batch_of(target, common)
        is_alike = bool(batches) and batch.options.get("key") is None and not batch.arguments
        if is_alike and batch[1:] == batches[-1][1:]:
            batches[-1].payloads.extend(batch.payloads)
        else:
            batches.append(batch)
    return batches


def batches_with_keys(targets: list[Any], keys: Iterable[str | None], options: Mapping[str, object]) -> list[Batch]:
    """Return targets as batches, in their order. Each target has the key at the same position, or none.

    Raises ValueError unless there is one key or None for each target, and TypeError if ``keys`` is a text.
    """
    if isinstance(keys, str):
        raise TypeError("keys must be a list with a key or None for each payload, not a text")
    keys = list(keys)
    if len(keys) != len(targets):
        raise ValueError(f"keys must have one key or None for each of the {len(targets)} payloads, not {len(keys)}")
    batches: list[Batch] = []
    for has_key, group in itertools.groupby(zip(targets, keys, strict=True), lambda pair: pair[1] is not None):
        if has_key:
            for target, key in group:
                batches += batches_of([target], {**options, "key": key})
        else:
            batches += batches_of([target for target, _ in group], options)
    return batches


def _batch_of(target: Any, options: Mapping[str, object]) -> Batch:
    if isinstance(target, TaskCall):
        args, kwargs, arguments = target.parts()
        payload: JSON = {"args": args, "kwargs": kwargs}
        options = {**target.options, **options, **target.using}
        return Batch([payload], options, target.function, False, arguments, target.coding)
    if isinstance(target, Command):
        return Batch([target.payload], options, is_command=True)
    return Batch([target], options)

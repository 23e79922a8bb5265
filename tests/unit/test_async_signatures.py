"""``AsyncTaskQueue`` and ``AsyncTask`` have the methods of ``TaskQueue`` and ``Task``, with the same parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from dbtaskqueue import AsyncTask, AsyncTaskQueue, Task, TaskQueue, task
from dbtaskqueue.aio import AsyncFound, AsyncTaskFunction
from dbtaskqueue.finding import Found
from dbtaskqueue.functions import TaskFunction
from dbtaskqueue.options import ManyOptions, Options, options_of

SYNC_ONLY = {
    *("add_msg", "get_msg", "remove_msg"),  # the interface of a Perl plugin
    *(
        "submit",
        "enqueue_all",
        "enqueue_by",
        "serving",
        "store",
        "store_declarations",
        "disconnect",
        "read_with",
        "check_stored",
    ),  # for this package
    *("purge_in_steps", "prune_in_steps", "positional"),  # for the command line
    *("__enter__", "__exit__", "__iter__"),
}
ASYNC_ONLY = {"lifespan", "lifespan_with_worker", "__aenter__", "__aexit__", "__aiter__", "__call__", "follow"}
ASYNC_ONLY |= {"name", "backoff"}  # those of a TaskFunction and a TaskQueue are attributes of each object
NOT_AWAITED = {"lane", "use", "flow", "periodic", "task", "bind", "using", "as_link"}
"""Methods that neither read nor write."""
PAIRS = [(TaskQueue, AsyncTaskQueue), (Task, AsyncTask), (TaskFunction, AsyncTaskFunction)]


def members(owner: type) -> dict[str, Any]:
    """Return the methods and attributes that users see."""
    found = {name: getattr(owner, name) for name in dir(owner)}
    plain = set(dir(object)) | {"_payload_hint", "__orig_bases__", "__parameters__", "__class_getitem__"}
    return {name: thing for name, thing in found.items() if name not in plain and not name.startswith("_")}


def parameters(method: Callable[..., Any]) -> dict[str, tuple[object, object]]:
    """Return the kind and the default of each parameter. Options of a TypedDict count as if they were written out."""
    found = {}
    for name, parameter in inspect.signature(method).parameters.items():
        found[name] = (parameter.kind, parameter.default)
        for words in (Options, ManyOptions):
            if parameter.annotation == f"Unpack[{words.__name__}]":
                del found[name]
                options = options_of(words).items()
                found |= {name: (inspect.Parameter.KEYWORD_ONLY, option.default) for name, option in options}
    return found


def methods(owner: type) -> list[str]:
    return [name for name, thing in members(owner).items() if inspect.isfunction(thing) and name not in SYNC_ONLY]


CASES = [(sync, other, name) for sync, other in PAIRS for name in methods(sync)]


@pytest.mark.parametrize(("sync", "other", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_method_has_the_same_parameters_and_is_awaited(sync: type, other: type, name: str) -> None:
    method = getattr(other, name)
    assert parameters(method) == parameters(getattr(sync, name))
    assert inspect.iscoroutinefunction(method) == (name not in NOT_AWAITED)
    assert inspect.getdoc(method)


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_the_names_are_the_same(sync: type, other: type) -> None:
    assert set(members(sync)) - SYNC_ONLY == set(members(other)) - ASYNC_ONLY


def test_the_constructor_has_the_same_parameters_but_does_not_open() -> None:
    of_sync, of_async = parameters(TaskQueue.__init__), parameters(AsyncTaskQueue.__init__)
    assert of_async.pop("threads") == (inspect.Parameter.KEYWORD_ONLY, 4)
    assert [of_sync.pop("open")[1], of_async.pop("open")[1]] == [True, False]
    assert of_async == of_sync


def test_attributes_have_the_same_types() -> None:
    for name, thing in vars(Task).items():
        if isinstance(thing, property) and name not in ("blocked", "result"):
            [found] = vars(AsyncTask)[name].__orig_class__.__args__
            wanted = eval(thing.fget.__annotations__["return"], vars(task))
            text = getattr(found, "__forward_arg__", None)
            assert (found if text is None else eval(text, vars(task))) == wanted, name


def test_a_page_of_a_search_has_the_same_fields() -> None:
    assert AsyncFound._fields == Found._fields

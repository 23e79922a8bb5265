"""The options that ``options.py`` defines, compared with the signatures that repeat them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue import options as defined
from dbtaskqueue._executors import EXECUTORS
from dbtaskqueue._store.contract import NewTask
from dbtaskqueue.options import Option, options_of

SIGNATURES: list[tuple[type, Callable[..., Any]]] = [
    (defined.Options, TaskQueue.enqueue),
    (defined.ManyOptions, TaskQueue.enqueue_many),
    (defined.WorkerOptions, Worker.__init__),
    (defined.RunOptions, Worker.run),
]
OTHERS = {"self", "payload", "payloads", "keys", "url_or_queue", "queue", "queues", "callback", "batch"}
"""Parameters that are not options."""


@pytest.mark.parametrize(("call", "method"), SIGNATURES, ids=lambda value: value.__name__)
def test_a_signature_has_the_options_with_their_types_and_defaults(call: type, method: Callable[..., Any]) -> None:
    parameters = {name: each for name, each in inspect.signature(method).parameters.items() if name not in OTHERS}
    assert {name: each.default for name, each in parameters.items()} == {
        name: option.default for name, option in options_of(call).items()
    }
    assert {each.kind for each in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    if call is not defined.WorkerOptions:  # the signature has a more exact type for on_error
        hints = get_type_hints(method)
        assert {name: hints[name] for name in parameters} == get_type_hints(call)


ALL = [defined.UsingOptions, defined.FunctionOptions, defined.WorkerOptions, defined.RunOptions]
OPTIONS = {name: option for call in ALL for name, option in options_of(call).items()}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_column_of_an_option_exists(name: str) -> None:
    assert OPTIONS[name].column in {None, "waits", *NewTask._fields}


@pytest.mark.parametrize("call", ALL, ids=lambda value: value.__name__)
def test_each_option_is_defined_exactly_once(call: type) -> None:
    for hint in get_type_hints(call, include_extras=True).values():
        assert len([extra for extra in get_args(hint) if isinstance(extra, Option)]) == 1


def test_the_executors_are_those_that_exist() -> None:
    assert set(get_args(defined.ExecutorName)) == set(EXECUTORS)

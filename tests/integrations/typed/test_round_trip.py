"""Values of every annotation arrive as they were enqueued: with both coders, and with each executor."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.requirements import library

library("msgspec", "pydantic")

import typed_tasks  # noqa: E402
from integrations.typed.samples import SAMPLES  # noqa: E402
from integrations.typed.values import STRATEGIES, values_of  # noqa: E402
from typed_tasks import Job, Order  # noqa: E402

from dbtaskqueue import TaskQueue, Worker  # noqa: E402

CODERS = pytest.mark.parametrize("coder", ["msgspec", "pydantic"])
EXECUTORS = pytest.mark.parametrize("executor", ["thread", "asyncio", "process"])
CASES = [(coder, name) for coder in typed_tasks.OWN_KINDS for name in typed_tasks.kinds_of(coder)]
ONE = pytest.mark.one_engine("values are coded in Python; what is stored is compared on every engine below")


def examples(request: pytest.FixtureRequest, few: int, many: int) -> settings:
    """Return the settings of a property that is checked with this many examples; with ``--all-engines``, with many."""
    number = many if request.config.option.all_engines else few
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(deadline=None, suppress_health_check=health, max_examples=number)


def is_same(one: Any, other: Any) -> bool:
    """Return whether values are equal and of the same types; a date is equal to no datetime, 1 to no True."""
    if isinstance(one, datetime) and one.tzinfo is not None:
        return one == other and one.utcoffset() == other.utcoffset()
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(is_same, one, other))
    return type(one) is type(other) and bool(one == other)


@ONE
@pytest.mark.parametrize(("coder", "name"), CASES)
def test_what_is_stored_is_read_back(coder: str, name: str, request: pytest.FixtureRequest) -> None:
    coding = typed_tasks.echoes[coder][name].coding

    @examples(request, 25, 200)
    @given(STRATEGIES[name])
    def check(value: Any) -> None:
        args, _ = coding.encode([value, ""], {})
        stored = json.loads(json.dumps(args))
        assert is_same(coding.decode(stored, {})[0][0], value)
        assert is_same(coding.decode_result(json.loads(json.dumps(coding.encode_result(value)))), value)

    check()


@ONE
@CODERS
@EXECUTORS
def test_arguments_and_results_with_each_executor(
    queue: TaskQueue, executor: str, coder: str, request: pytest.FixtureRequest
) -> None:
    queue.functions = typed_tasks.queues[coder].functions
    functions = typed_tasks.echoes[coder]

    @examples(request, 2, 20)
    @given(values_of(coder))
    def check(values: list[tuple[str, Any]]) -> None:
        calls = [functions[name].bind(value, type(value).__name__) for name, value in values]
        tasks = queue.enqueue_many(calls)
        Worker(queue, executor=executor, concurrency=4).run(burst=True)
        for task, (name, value) in zip(tasks, values, strict=True):
            assert is_same(task.get_result(10), value), name

    check()


STORED: dict[str, Any] = {
    "date": "2026-11-28",
    "datetime": "2026-11-28T12:00:00Z",
    "uuid": "00000000-0000-0000-0000-000000000007",
    "decimal": "1.10",
    "path": "a/b.png",
    "enum": "red",
    "named_tuple": ["00000000-0000-0000-0000-000000000001", "2026-01-02"],
    "typed_dict": {"on": "2026-01-02", "size": 1},
    "tuple": [1, "2026-01-02"],
    "int_keys": {"7": "2026-01-02"},
}


@CODERS
def test_what_is_stored_is_plain_json(queue: TaskQueue, coder: str) -> None:
    """The same on each engine, so that SQL and other programs can read it."""
    functions = typed_tasks.echoes[coder]
    names = [*STORED, "bytes"]
    found = {name: queue.enqueue(functions[name].bind(SAMPLES[name], "")).id for name in names}
    stored = {name: queue.get(id).payload["args"][0] for name, id in found.items()}
    assert stored == {**STORED, "bytes": "/wA=" if coder == "msgspec" else "_wA="}


@ONE
def test_models_and_structs_are_stored_as_objects() -> None:
    order = Order(id=UUID(int=7), price=Decimal("1.10"), customerName="Ann")
    job = Job(Path("a"), datetime(2026, 1, 2), Job(Path("b"), datetime(2026, 1, 2)))
    assert typed_tasks.echoes["pydantic"]["model"].bind(order, "Order").payload["args"] == [
        {"id": "00000000-0000-0000-0000-000000000007", "price": "1.10", "lines": [], "name": "Ann"},
        "Order",
    ]
    assert typed_tasks.echoes["msgspec"]["struct"].bind(job, "Job").payload["args"][0] == {
        "file": "a",
        "at": "2026-01-02T00:00:00",
        "next": {"file": "b", "at": "2026-01-02T00:00:00", "next": None},
    }


@ONE
@CODERS
def test_sets_are_stored_as_lists(coder: str, request: pytest.FixtureRequest) -> None:
    @examples(request, 25, 200)
    @given(st.sets(st.dates(), max_size=5))
    def check(days: set[date]) -> None:
        [stored, _] = typed_tasks.echoes[coder]["set"].bind(days, "set").args
        assert isinstance(stored, list)
        assert sorted(stored) == sorted(map(str, days))

    check()

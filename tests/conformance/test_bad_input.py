"""Bad input is refused and nothing of it is stored; extreme but valid values come back equal."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import sqlite3
from collections import OrderedDict, UserDict
from datetime import datetime
from decimal import Decimal

import pytest
from helpers import until, with_option

from dbtaskqueue import PayloadError, RetryPolicy, TaskQueue, Worker

pytestmark = pytest.mark.one_engine("refused before a query is sent")


def nested(depth: int, kind: type = list) -> object:
    """Return a value that nests this many lists or objects."""
    value: object = 1
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


def circular() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


class Number(enum.IntEnum):
    ONE = 1


BAD = {
    "nan": (float("nan"), "nan"),
    "infinity": ({"a": [1, float("inf")]}, r"payload\.a\[1\]: inf"),
    "minus infinity": ([-math.inf], r"payload\[0\]"),
    "lone surrogate": ({"a": "\ud800"}, "surrogate"),
    "low surrogate": ("x\udfffy", "surrogate"),
    "surrogate in a key": ({"\ud800": 1}, "surrogate"),
    "nul": ({"a": {"b": "x\x00"}}, r"payload\.a\.b: U\+0000"),
    "nul in a key": ({"\x00": 1}, r"U\+0000"),
    "key of int": ({"a": {1: 2}}, r"payload\.a: the key 1"),
    "key of none": ({None: 2}, "key None"),
    "key of tuple": ({(1, 2): 2}, "key"),
    "key of bool": ({True: 2}, "key True"),
    "int over 64 bits": ({"n": 2**63}, r"payload\.n: .*64 bits"),
    "int under 64 bits": ([0, -(2**63) - 1], r"payload\[1\]: .*64 bits"),
    "huge int": (10**5000, "64 bits"),
    "101 lists": (nested(101), "100"),
    "101 objects": (nested(101, dict), "100"),
    "circular": (circular(), "100"),
    "100000 lists": (nested(100_000), "100"),
    "bytes": ({"raw": b"x"}, r"payload\.raw: bytes"),
    "set": ([{1}], "set"),
    "object": (object(), "object"),
    "datetime": (datetime(2020, 1, 1), "datetime"),
    "decimal": (Decimal(1), "Decimal"),
    "complex": (1j, "complex"),
    "function": (print, "not JSON"),
    "generator": ((n for n in range(3)), "generator"),
    "user dict": (UserDict(a=1), "UserDict"),
    "one byte over 1 MiB": ("x" * (1024 * 1024 - 1), "1048576"),
    "one byte over 1 MiB in UTF-8": ("ä" * (512 * 1024 - 1) + "x", "1048576"),
}

GOOD = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "minus zero": -0.0,
    "largest int": 2**63 - 1,
    "smallest int": -(2**63),
    "largest float": 1.7976931348623157e308,
    "1e308": 1e308,
    "smallest float": 5e-324,
    "a third": 1 / 3,
    "integral float": 1e15,
    "empty text": "",
    "astral": "😀 \U0010ffff 𝕏",
    "line separators": "\u2028\u2029\u0085\x0b\x1f\x7f",
    "quotes": "'\"\\/\b\f\n\r\t; DROP TABLE dbtaskqueue_task; --",
    "percent": "%s %(a)s {x} :name ?1 $1",
    "bom": "\ufeff",
    "noncharacter": "\uffff\ufffe",
    "combining": "e\u0301 is not é",
    "empty list": [],
    "empty object": {},
    "empty key": {"": {"": ""}},
    "odd keys": {"a.b": 1, "[0]": 2, "__proto__": 3, "😀": 4, " ": 5},
    "order of keys": {"z": 1, "a": 2, "m": 3},
    "100 lists": nested(100),
    "100 objects": nested(100, dict),
    "long list": list(range(20_000)),
    "text like null": "null",
    "exactly 1 MiB": "x" * (1024 * 1024 - 2),
    "exactly 1 MiB in UTF-8": "ä" * (512 * 1024 - 1),
    "300 characters": "x" * 300,
    "astral characters over the inline size": "😀" * 300,
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_payload_is_refused_and_nothing_stored(queue: TaskQueue, name: str) -> None:
    payload, place = BAD[name]
    with pytest.raises(PayloadError, match=place) as caught:
        queue.enqueue(payload)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()
    with pytest.raises(PayloadError, match=r"payloads\[1\]"):
        queue.enqueue_many(["good", payload, "good"])
    assert queue.tasks() == []


def same(one: object, other: object) -> bool:
    """Return whether values and types are equal; -0.0 differs from 0.0."""
    return json.dumps(one) == json.dumps(other) and type(one) is type(other) and one == other


@pytest.mark.every_engine("drivers and columns decide what comes back")
@pytest.mark.parametrize("name", GOOD)
def test_a_valid_extreme_value_comes_back_equal(queue: TaskQueue, url: str, name: str) -> None:
    value = GOOD[name]
    task = queue.enqueue(value)
    assert same(task.payload, value)
    assert same(queue.get(task.id).payload, value)
    seen: list[object] = []

    def callback(payload: object) -> object:
        seen.append(payload)
        return payload

    Worker(url).run(callback, burst=True)
    assert same(seen[0], value)
    assert same(queue.get(task.id).result, value)
    assert same(queue.tasks(state="done")[0].payload, value)


def test_tuples_become_lists_and_subclasses_become_their_base_classes(queue: TaskQueue) -> None:
    task = queue.enqueue({"t": (1, (2,)), "o": OrderedDict(a=Number.ONE)})
    assert queue.get(task.id).payload == {"t": [1, [2]], "o": {"a": 1}}
    assert type(queue.get(task.id).payload["o"]["a"]) is int


def test_the_task_from_enqueue_shows_the_stored_payload(queue: TaskQueue) -> None:
    assert queue.enqueue((1, 2)).payload == [1, 2]


def test_the_limit_is_configurable(url: str) -> None:
    with TaskQueue(with_option(url, "max_payload=10")) as queue:
        assert queue.enqueue("x" * 8).payload == "x" * 8
        with pytest.raises(PayloadError, match="10 bytes"):
            queue.enqueue("x" * 9)
    with TaskQueue(with_option(url, "max_payload=3000000")) as queue:
        task = queue.enqueue("x" * 2_500_000)
        assert len(queue.get(task.id).payload) == 2_500_000


@pytest.mark.parametrize("name", BAD)
def test_a_bad_result_fails_the_attempt_with_an_error(queue: TaskQueue, url: str, name: str) -> None:
    task = queue.enqueue("x", retry=RetryPolicy(delay=3600))
    value = BAD[name][0]
    Worker(url).run(lambda payload: value, burst=True)
    assert (task.refresh().state, task.result) == ("failed", None)
    assert "PayloadError" in (task.error or "")
    assert "result" in (task.error or "")


# -- rows that cannot be read ----------------------------------------------------------------------

ROWS = {
    "not JSON": {"payload": "{"},
    "two values": {"payload": "1 2"},
    "empty": {"payload": ""},
    "null": {"payload": None},
    "not UTF-8": {"payload": "CAST(X'22ff22' AS TEXT)"},
    "nested deep": {"payload": "[" * 200_000},
    "a huge number": {"payload": "9" * 10_000},
    "broken options": {"payload": "{", "options": "{"},
    "an invalid policy": {"payload": "{", "options": '{"retry": {"delay": "x", "colour": 1}}'},
    "a policy of huge numbers": {"payload": "{", "options": f'{{"retry": {{"delay": 1{"0" * 400}}}}}'},
    "a creation in a million years": {"payload": "{", "created_at": 2**63 - 1},
}


def spoil(url: str, id: int, columns: dict[str, str | int | None]) -> None:
    """Write invalid values into a task's row with plain SQL, without the library."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as connection, connection:
        for column, value in columns.items():
            literal = value if isinstance(value, str) and value.startswith(("CAST(", "X'")) else "?"
            connection.execute(
                f"UPDATE dbtaskqueue_task SET {column} = {literal} WHERE id = ?",
                (id,) if literal != "?" else (value, id),
            )


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_cannot_be_read_fails_its_task_and_the_worker_continues(
    queue: TaskQueue, url: str, name: str, batch: int
) -> None:
    policy = RetryPolicy(delay=3600, max_attempts=1)
    before, bad, after = [queue.enqueue(n, retry=policy) for n in range(3)]
    spoil(url, bad.id, ROWS[name])
    seen: list[object] = []
    Worker(url).run(seen.append, burst=True, batch=batch)
    assert seen == [0, 2]
    assert before.refresh().state == after.refresh().state == "done"
    assert bad.refresh().state in ("failed", "abandoned")
    assert bad.error
    assert {task.id for task in queue.tasks()} == {before.id, bad.id, after.id}


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("batch", [1, 10])
def test_a_function_name_that_is_not_utf_8_counts_as_unknown(queue: TaskQueue, url: str, batch: int) -> None:
    before, bad, after = [queue.enqueue(n) for n in range(3)]
    spoil(url, bad.id, {"function": "CAST(X'ff' AS TEXT)"})
    seen: list[object] = []
    Worker(url).run(seen.append, burst=True, batch=batch)
    assert seen == [0, 2]
    assert before.refresh().state == after.refresh().state == "done"
    assert (bad.refresh().state, bad.attempts()) == ("pending", [])


NUMBERS = (
    *(
        "budget",
        "retry_base",
        "attempt",
        "rank",
        "due",
        "due_set_at",
        "token",
        "retry_token",
        "created_at",
        "started_at",
    ),
    *("finished_at", "worker", "batched", "isolated", "cancel_requested"),
)
ENDLESS = {"delay": 10**400, "linear": 10**400, "factor": 10**400, "max_delay": 10**400, "max_attempts": 10**400}
NONSENSE: list[tuple[str, str | int]] = [
    *((column, number) for column in NUMBERS for number in (2**62, 2**63 - 1, -(2**63))),
    *(("options", json.dumps({"retry": {name: value}})) for name, value in ENDLESS.items()),
    *(
        ("options", text)
        for text in ("nonsense", "7", '{"retry": {"delay": -1}}', '{"time_limit": 1e999}', "[" * 100_000)
    ),
    *((column, "CAST(X'ff' AS TEXT)") for column in ("options", "meta", "function", "key")),
]


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize(("column", "value"), NONSENSE, ids=lambda value: str(value)[:24])
def test_an_invalid_column_does_not_end_the_worker(
    queue: TaskQueue, url: str, column: str, value: str | int, failing: bool
) -> None:
    def callback(payload: int) -> None:
        if payload == 1 and failing:
            raise ValueError

    policy = RetryPolicy(delay=3600, max_attempts=3)
    before, bad, after = [queue.enqueue(n, retry=policy) for n in range(3)]
    with contextlib.suppress(sqlite3.IntegrityError):
        spoil(url, bad.id, {column: value})
    Worker(url).run(callback, idle_timeout=0.05)
    assert before.refresh().state == after.refresh().state == "done"
    queue.stats()
    assert {task.start_at.year + task.created_at.year > 0 for task in queue.tasks()} == {True}


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("state", ["reserved", "running"])
@pytest.mark.parametrize(("column", "value"), NONSENSE, ids=lambda value: str(value)[:24])
def test_an_invalid_column_does_not_prevent_the_rescue_of_other_tasks(
    queue: TaskQueue, url: str, column: str, value: str | int, state: str
) -> None:
    """The other tasks of the dead worker are rescued."""
    before, bad, after = queue.enqueue_many(range(3), retry=RetryPolicy(delay=0, max_attempts=3))
    tasks = queue.fetch(3, timeout=10)
    if state == "running":
        assert all(task.start() for task in tasks)
    worker = tasks[0].worker
    with contextlib.suppress(sqlite3.IntegrityError):
        spoil(url, bad.id, {column: value})
    with TaskQueue(url) as rescuer:
        rescuer.store.deregister(worker or 0)

        def rescued() -> set[int]:
            tasks = rescuer.fetch(3, timeout=0)
            return {task.id for task in tasks} | {task.id for task in rescuer.tasks(state="reserved")}

        until(lambda: {before.id, after.id} <= rescued(), what="the rescue")


TYPED = [("budget", "many"), ("due", "soon"), ("token", 1.5), ("created_at", "long ago"), ("payload", "X'00ff'")]


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize(("column", "value"), TYPED)
def test_a_value_of_another_type_cannot_be_written(queue: TaskQueue, url: str, column: str, value: str) -> None:
    task = queue.enqueue()
    with pytest.raises(sqlite3.IntegrityError):
        spoil(url, task.id, {column: value})


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("column", ["token", "attempt"])
def test_the_largest_token_or_attempt_number_cannot_be_written(queue: TaskQueue, url: str, column: str) -> None:
    task = queue.enqueue()
    with pytest.raises(sqlite3.IntegrityError):
        spoil(url, task.id, {column: 2**63 - 1})


@pytest.mark.engine("sqlite")
def test_a_consumer_of_fetch_gets_a_payload_error_for_a_row_that_cannot_be_read(queue: TaskQueue, url: str) -> None:
    bad, good = queue.enqueue_many(["bad", "good"], retry=RetryPolicy(delay=3600))
    spoil(url, bad.id, {"payload": "{"})
    seen = []
    for task in queue.fetch(2, timeout=10):
        try:
            with task:
                seen.append(task.payload)
        except PayloadError:
            seen.append("unreadable")
    assert seen == ["unreadable", "good"]
    assert (bad.refresh().state, good.refresh().state) == ("failed", "done")


@pytest.mark.engine("sqlite")
def test_get_msg_raises_a_payload_error_for_a_row_that_cannot_be_read(queue: TaskQueue, url: str) -> None:
    bad, _good = queue.enqueue_many(["bad", "good"], retry=RetryPolicy(delay=3600))
    spoil(url, bad.id, {"payload": "{"})
    with pytest.raises(PayloadError):
        queue.get_msg()
    assert bad.refresh().state == "failed"
    assert queue.get_msg()[1] == "good"


@pytest.mark.engine("sqlite")
def test_an_invalid_state_cannot_be_written(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue()
    with pytest.raises(sqlite3.IntegrityError):
        spoil(url, task.id, {"state": "finished"})


@pytest.mark.engine("sqlite")
def test_a_result_that_cannot_be_read(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue()
    Worker(url).run(lambda payload: 1, burst=True)
    spoil(url, task.id, {"result": "{"})
    with pytest.raises(PayloadError, match="result"):
        _ = task.refresh().result
    assert until(lambda: queue.tasks(), what="the listing")

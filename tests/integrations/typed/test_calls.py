"""What typed arguments mean for calls, results, schedules, parents and providers, and what is refused."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Union
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from helpers import python_path
from servers.requirements import library

library("msgspec", "pydantic")

import msgspec  # noqa: E402
import pydantic  # noqa: E402
import typed_tasks  # noqa: E402
from typed_tasks import Job, Later, Order, Point, both, echoes  # noqa: E402

from dbtaskqueue import AsyncTaskQueue, Coder, PayloadError, Task, TaskCall, TaskFailed, TaskQueue, Worker  # noqa: E402
from dbtaskqueue.coding import CallCoding, CodingError  # noqa: E402
from dbtaskqueue.functions import Registry  # noqa: E402
from dbtaskqueue.integrations.msgspec import MsgspecCoder  # noqa: E402
from dbtaskqueue.integrations.pydantic import PydanticCoder  # noqa: E402
from dbtaskqueue.testing import run_tasks  # noqa: E402

pytestmark = pytest.mark.one_engine("coded in Python; what is stored on each engine is compared in test_round_trip")
EXECUTORS = pytest.mark.parametrize("executor", ["thread", "asyncio", "process"])
CODERS = pytest.mark.parametrize("coder", ["msgspec", "pydantic"])
DAY = date(2026, 11, 28)


@pytest.fixture
def typed(queue: TaskQueue) -> TaskQueue:
    """An empty queue whose workers know the functions of ``typed_tasks.both``."""
    queue.functions = both.functions
    return queue


@pytest.fixture(params=["msgspec", "pydantic"])
def own(request: pytest.FixtureRequest, url: str) -> Any:
    """A queue of the test, with one of both coders."""
    coder = MsgspecCoder() if request.param == "msgspec" else PydanticCoder()
    with TaskQueue(url, coders=[coder]) as queue:
        yield queue


def run(queue: TaskQueue, executor: str = "thread") -> None:
    Worker(queue, executor=executor).run(burst=True)  # type: ignore[arg-type]


def result(queue: TaskQueue, call: TaskCall[Any], executor: str = "thread") -> Any:
    task = queue.enqueue(call)
    run(queue, executor)
    return task.get_result(10)


# -- parameters ------------------------------------------------------------------------------------


@EXECUTORS
def test_every_kind_of_parameter(typed: TaskQueue, executor: str) -> None:
    """Annotated with texts, and with a class that is defined later in the module."""
    call = typed_tasks.late.bind(Later(DAY), DAY, DAY, size=Decimal(2), a=UUID(int=1), b=UUID(int=2))
    assert call.payload == {
        "args": [{"on": "2026-11-28"}, "2026-11-28", "2026-11-28"],
        "kwargs": {"size": "2", "a": str(UUID(int=1)), "b": str(UUID(int=2))},
    }
    assert result(typed, call, executor) == ["Later", "date", "date", "Decimal", "UUID", "UUID"]


def test_positional_only_and_keyword_only_parameters(typed: TaskQueue) -> None:
    assert result(typed, typed_tasks.positional.bind(DAY, 1, third=DAY)) == "date int date"
    assert result(typed, typed_tasks.positional.bind(DAY)) == "date int NoneType"


@EXECUTORS
def test_an_async_function(typed: TaskQueue, executor: str) -> None:
    assert result(typed, typed_tasks.tomorrow.bind(DAY), executor) == DAY + timedelta(days=1)


def test_the_result_of_a_function_that_returns_a_coroutine() -> None:
    def f() -> Coroutine[Any, Any, date]: ...

    f.__annotations__ = {"return": Coroutine[Any, Any, date]}
    assert CallCoding(f, "f", [MsgspecCoder()]).encode_result(DAY) == "2026-11-28"


def test_a_decorated_function(typed: TaskQueue) -> None:
    assert result(typed, typed_tasks.decorated.bind(timedelta(hours=1))) == timedelta(hours=2)


def test_a_plain_call_of_the_function_is_not_coded() -> None:
    assert typed_tasks.total([Decimal(1)]) == Decimal(1)


def test_annotations_that_only_a_type_checker_can_resolve(typed: TaskQueue) -> None:
    assert result(typed, typed_tasks.unresolved.bind("a", DAY)) == "str date"
    with pytest.raises(PayloadError, match="argument value: date is not JSON; its annotation 'Unknown' cannot be res"):
        typed.enqueue(typed_tasks.unresolved.bind(DAY, DAY))


def test_an_annotation_is_resolved_once_its_name_exists(own: TaskQueue) -> None:
    namespace: dict[str, Any] = {}
    code = "from __future__ import annotations\ndef function(day: Day) -> Day: ..."
    exec(code, namespace)
    function = own.task(name="later")(namespace["function"])
    assert function.bind("2026-11-28").args == ("2026-11-28",)
    namespace["Day"] = date
    assert function.bind(DAY).args == ("2026-11-28",)


class Spy(Coder):
    """A coder that notes the annotations that it is asked about."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def can(self, kind: object) -> bool:
        self.asked.append(kind)
        return False


def test_json_types_take_no_coder(url: str) -> None:
    spy = Spy()
    with TaskQueue(url, coders=[spy]) as queue:
        function = queue.task(typed_tasks.plain.__wrapped__)  # type: ignore[attr-defined]
        assert result(queue, function.bind(1, ["b"], {"c": [2.5]}, d="x")) == [1, ["b"], {"c": [2.5]}, "x", None]
        assert spy.asked == []
        queue.task(name="typed")(typed_tasks.positional.__wrapped__).bind(DAY)  # type: ignore[attr-defined]
    assert spy.asked == [date, date | None]


class Celsius(Coder):
    """A coder of one's own, for one class."""

    def can(self, kind: object) -> bool:
        return kind is Temperature

    def encode(self, value: Any, kind: Any) -> Any:
        return value.degrees

    def decode(self, value: Any, kind: Any) -> Any:
        if not isinstance(value, float):
            raise CodingError("no number", ".degrees")
        return Temperature(value)


class Temperature:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


@pytest.mark.parametrize("is_first", [True, False])
def test_a_coder_of_ones_own(url: str, is_first: bool) -> None:
    with TaskQueue(url, coders=[Celsius(), MsgspecCoder()][:: 1 if is_first else -1]) as queue:

        @queue.task(name="heat")
        def heat(start: Temperature, day: date) -> Temperature:
            return Temperature(start.degrees + day.day)

        assert result(queue, heat.bind(Temperature(20.5), DAY)).degrees == 48.5
        with pytest.raises(PayloadError, match=r"^heat: argument start\.degrees: no number$"):
            heat.bind(Temperature("hot"), DAY)  # type: ignore[arg-type]


class Pickled(Coder):
    """A coder that accepts everything, and encodes it as a text."""

    def can(self, kind: object) -> bool:
        return True

    def encode(self, value: Any, kind: Any) -> Any:
        return pickle.dumps(value, protocol=0).decode("latin-1")

    def decode(self, value: Any, kind: Any) -> Any:
        return pickle.loads(value.encode("latin-1"))


@pytest.mark.parametrize("named", [False, True])
def test_a_coder_that_does_not_encode_a_tuple_as_a_list(named: bool) -> None:
    """Several arguments are coded together only if the coder returns a value for each."""
    coding = CallCoding(typed_tasks.positional.__wrapped__, "f", [Pickled()])  # type: ignore[attr-defined]
    args, kwargs = coding.encode([DAY], {"third": DAY} if named else {})
    assert (len(args), list(kwargs)) == (1, ["third"] * named)
    assert coding.decode(args, kwargs) == ([DAY], {"third": DAY} if named else {})
    two = CallCoding(lambda one, two: None, "f", [Pickled()])
    two._function.__annotations__ = {"one": date, "two": date}
    assert two.decode(*two.encode([DAY, DAY], {})) == ([DAY, DAY], {})


def test_what_is_not_a_coder(url: str) -> None:
    with pytest.raises(TypeError, match=r"not classes: coders=\[MsgspecCoder\(\)\]"):
        TaskQueue(url, coders=[MsgspecCoder])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a coder must be a Coder, not str"):
        TaskQueue(url, coders="ab")  # type: ignore[arg-type]


# -- values that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: typed_tasks.positional.enqueue("soon"), "typed_tasks.positional: argument first: "),
        (lambda: typed_tasks.positional.using(priority=1).bind(7), "typed_tasks.positional: argument first: "),
        (lambda: typed_tasks.late.bind({"on": "x"}), r"typed_tasks.late: argument value\.on: "),
        (lambda: typed_tasks.late.bind(Later(DAY), DAY, "x"), r"typed_tasks.late: argument rest\[1\]: "),
        (lambda: typed_tasks.late.bind(Later(DAY), more="x"), r"typed_tasks.late: argument more\.more: "),
        (lambda: typed_tasks.total.bind([Decimal(1), object()]), r"typed_tasks.total: argument prices"),
        (lambda: echoes["pydantic"]["model"].bind({"id": 1, "price": "1"}, ""), r"argument value\.id: "),
        (lambda: echoes["msgspec"]["struct"].bind({"file": "a", "at": 1}, ""), r"argument value\.at: Expected `datet"),
        (lambda: echoes["pydantic"]["annotated"].bind(3, ""), "argument value: Input should be greater than 3"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_when_it_is_bound(call: Callable[[], object], message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        call()


def test_nothing_is_stored_for_a_value_that_does_not_fit(own: TaskQueue) -> None:
    function = own.task(typed_tasks.days_later)
    with pytest.raises(PayloadError):
        function.enqueue(7, 1)  # type: ignore[arg-type]
    assert own.tasks() == []


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str


UNIONS: dict[str, tuple[Any, Any, Any]] = {
    "text": (date | str, DAY, "2026-11-28"),
    "dataclasses": (Cat | Dog, Cat("a"), Dog("a")),
    "nested": (dict[str, list[date | str]], {"a": [DAY]}, {"a": ["2026-11-28"]}),
    "set": (set[date | str], {DAY, "soon"}, {"2026-11-28"}),
    "numbers": (Decimal | float | None, 1.5, Decimal("1.50")),
}


@pytest.mark.parametrize("name", UNIONS)
def test_a_union_whose_types_json_does_not_tell_apart(name: str) -> None:
    """Pydantic accepts such unions. A value that would be read as another type is refused, others are taken."""
    kind, good, other = UNIONS[name]

    def function(value): ...

    function.__annotations__["value"] = kind
    coding = CallCoding(function, "f", [PydanticCoder()])
    refused = []
    for value in (good, other):
        try:
            stored = coding.encode([value], {})[0]
        except PayloadError as error:
            refused.append((value, str(error)))
        else:
            [again] = coding.decode(stored, {})[0]
            assert (type(again), again) == (type(value), value)
    assert [value for value, _ in refused] in ([], [other])
    assert all("argument value: JSON does not tell the types of" in text for _, text in refused)
    assert refused or name == "numbers"


def test_a_date_in_a_text_is_not_mistaken_for_a_text(own: TaskQueue) -> None:
    function = own.task(name="f")(lambda value: None)
    function.__wrapped__.__annotations__["value"] = Union[datetime, date, int]  # type: ignore[attr-defined]  # noqa: UP007
    for value in (datetime(2026, 11, 28), DAY):
        try:
            args = function.bind(value).args
        except PayloadError:
            continue
        assert type(function.coding.decode(args, {})[0][0]) is type(value)  # type: ignore[union-attr]


@EXECUTORS
def test_stored_arguments_that_do_not_fit_end_the_task_at_once(typed: TaskQueue, executor: str) -> None:
    """Another attempt would fail in the same way."""
    task = typed.enqueue(TaskCall("typed_tasks.total", [["1", "x"]], {}, {}, {}), max_attempts=5)
    run(typed, executor)
    assert (task.refresh().state, task.attempt) == ("abandoned", 1)
    assert task.error_type == "dbtaskqueue.errors.PayloadError"
    assert "typed_tasks.total: argument prices[1]: " in (task.error or "")


def test_backoff_is_not_asked_about_arguments_that_do_not_fit(typed: TaskQueue) -> None:
    task = typed.enqueue(TaskCall("typed_tasks.patient", ["x"], {}, {}, {}))
    again = typed.enqueue(typed_tasks.patient.bind(DAY))
    run(typed)
    assert (task.refresh().state, again.refresh().state) == ("abandoned", "failed")


@EXECUTORS
def test_a_result_that_does_not_fit_fails_the_attempt(typed: TaskQueue, executor: str) -> None:
    task = typed.enqueue(typed_tasks.wrong_result.bind("never"))
    again = typed.enqueue(typed_tasks.wrong_result.bind("2026-11-28"))
    run(typed, executor)
    assert task.refresh().state == "failed"
    assert "PayloadError: typed_tasks.wrong_result: result: " in (task.error or "")
    assert again.get_result(10) == DAY


class OneTag(msgspec.Struct, tag="one"):
    on: date


class TwoTag(msgspec.Struct, tag="two"):
    on: date


class OneModel(pydantic.BaseModel):
    type: Literal["one"]


class TwoModel(pydantic.BaseModel):
    type: Literal["two"]


SECRETS: dict[str, tuple[Any, Any]] = {
    "date": (date, "my password"),
    "enum": (typed_tasks.Color, "my password"),
    "number": (typed_tasks.Level, 1234567),
    "nested": (list[Point], [{"x": "my password", "on": "2026-11-28"}]),
    "place": (typed_tasks.Color, "a - at `$.password` b"),
    "tag": (OneTag | TwoTag, {"type": "my password", "on": "2026-11-28"}),
    "model": (Annotated[OneModel | TwoModel, pydantic.Field(discriminator="type")], {"type": "my password"}),
    "zone": (ZoneInfo, "my password"),
}
UNSUPPORTED = {"tag": ["pydantic"], "model": ["msgspec"], "zone": ["msgspec"]}


@pytest.mark.parametrize(
    ("coder", "name"),
    [(coder, name) for coder in ("msgspec", "pydantic") for name in SECRETS if coder not in UNSUPPORTED.get(name, ())],
)
def test_a_value_never_gets_into_an_error(coder: str, name: str) -> None:
    """Errors of tasks are logged, and payloads never are."""
    kind, value = SECRETS[name]
    used = MsgspecCoder() if coder == "msgspec" else PydanticCoder()
    coding = CallCoding(lambda value: None, "f", [used])
    coding._function.__annotations__ = {"value": kind}
    with pytest.raises(PayloadError, match=r"^f: argument value.*: \S") as refused:
        coding.encode([value], {})
    assert not re.search("password|1234567", str(refused.value))
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_an_error_without_a_text_is_named() -> None:
    class Silent(Celsius):
        def decode(self, value: Any, kind: Any) -> Any:
            raise ValueError

    def f(start: Temperature) -> None: ...

    f.__annotations__ = {"start": Temperature}
    with pytest.raises(PayloadError, match=r"^f: argument start: ValueError$"):
        CallCoding(f, "f", [Silent()]).encode([Temperature(1.0)], {})


# -- without a coder -------------------------------------------------------------------------------


class Invoice(pydantic.BaseModel):
    on: date


HINT = r"; for its annotation, pip install 'dbtaskqueue\[msgspec\]' and use TaskQueue\(…, coders=\[MsgspecCoder\(\)\]\)"


def send(day: date, others: list[date] | None = None, note: object = None) -> date:
    return day


def test_without_a_coder_the_error_names_the_extra(queue: TaskQueue) -> None:
    function = queue.task(name="send")(send)
    with pytest.raises(PayloadError, match=f"^send: argument day: date is not JSON{HINT}$"):
        function.enqueue(DAY)
    with pytest.raises(PayloadError, match=rf"^send: argument others\[1\]: date is not JSON{HINT}$"):
        queue.enqueue_many([function.bind("a"), function.bind("b", others=["a", DAY])])  # type: ignore[arg-type,list-item]
    with pytest.raises(PayloadError, match=r"^payload.args\[2\]: date is not JSON$"):
        function.enqueue("a", None, DAY)  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match=f"^send: argument day: date is not JSON{HINT}$"):
        queue.schedule("daily", function.bind(DAY), every=60)
    with pytest.raises(PayloadError, match=f"^send: argument day: date is not JSON{HINT}$"):
        queue.periodic(every=60, args=[DAY])(function)
    assert queue.tasks() == []


def test_without_a_coder_a_model_needs_pydantic(queue: TaskQueue) -> None:
    def bill(invoices: list[Invoice]) -> None: ...

    bill.__annotations__ = {"invoices": list[Invoice]}
    with pytest.raises(PayloadError, match=r"'dbtaskqueue\[pydantic\]' and use .*PydanticCoder"):
        queue.task(bill).enqueue([Invoice(on=DAY)])


def test_without_a_coder_json_values_are_passed_as_they_are(queue: TaskQueue) -> None:
    assert result(queue, queue.task(name="send")(send).bind("2026-11-28")) == "2026-11-28"  # type: ignore[arg-type]


def today() -> date:
    return DAY


def test_without_a_coder_a_result_names_the_extra(queue: TaskQueue) -> None:
    task = queue.task(name="today", max_attempts=1)(today).enqueue()
    run(queue)
    with pytest.raises(TaskFailed, match=f"PayloadError: today: result: date is not JSON{HINT}$"):
        task.get_result(10)


def test_a_coder_that_does_not_take_the_annotation(own: TaskQueue) -> None:
    class Socket: ...

    def listen(on: Socket) -> None: ...

    listen.__annotations__ = {"on": Socket}
    with pytest.raises(PayloadError, match="argument on: Socket is not JSON; no coder of this queue takes"):
        own.task(listen).enqueue(Socket())


def test_the_first_coder_that_takes_an_annotation_is_used() -> None:
    job = Job(Path("a"), datetime(2026, 1, 1))
    order = Order(id=UUID(int=1), price=Decimal(1))

    def mixed(job: Job, order: Order, data: bytes, either: date | str) -> None: ...

    mixed.__annotations__ = {"job": Job, "order": Order, "data": bytes, "either": date | str}
    coding = CallCoding(mixed, "mixed", [MsgspecCoder(), PydanticCoder()])
    args = [job, order, b"\xff\x00", DAY]
    stored = coding.encode(args, {})[0]
    assert stored[2] == "/wA="
    assert coding.decode(stored, {})[0] == args


# -- results ---------------------------------------------------------------------------------------


def test_the_task_functions_own_handles_read_the_result(own: TaskQueue) -> None:
    function = own.task(name="f")(typed_tasks.days_later)
    tasks = [
        function.enqueue(DAY, 0),
        function.using(priority=1).enqueue(DAY, 0),
        own.enqueue(function.bind(DAY, 0)),
        *own.enqueue_many([function.bind(DAY, 0), function.bind(DAY, days=0)]),
        *own.enqueue_many([function.bind(DAY, 0)], keys=["k"]),
    ]
    with own.flow() as flow:
        node = flow.add(function.bind(DAY, 0))
    assert tasks[0].result is None
    run(own)
    assert [task.get_result(10) for task in [*tasks, node.task]] == [DAY] * 7
    assert [task.result for task in own.wait_all(tasks)] == [DAY] * 6


def test_a_task_that_is_read_by_its_id_has_the_stored_result(own: TaskQueue) -> None:
    function = own.task(name="f")(typed_tasks.days_later)
    task = function.enqueue(DAY, 1)
    run(own)
    assert own.get(task.id).get_result() == "2026-11-29"
    assert function.get(task.id).get_result() == function.get(own.get(task.id)).result == date(2026, 11, 29)
    other = own.task(name="g")(lambda: 1)
    with pytest.raises(ValueError, match=f"task {task.id} is not a call of g, but of f"):
        other.get(task)


def test_a_result_that_cannot_be_read_as_annotated(own: TaskQueue, url: str) -> None:
    """The annotation has changed since the task ran."""
    function = own.task(name="f")(typed_tasks.days_later)
    task = function.enqueue(DAY, 1)
    with TaskQueue(url) as other:
        other.task(name="f")(lambda day, days: "tomorrow")
        run(other)
    with pytest.raises(PayloadError, match=r"^f: result: "):
        task.get_result(10)


def test_a_task_that_reads_such_a_result_is_retried(own: TaskQueue) -> None:
    """Only arguments that do not fit would never fit."""
    inner = own.task(name="f")(typed_tasks.days_later).enqueue(DAY, 1)
    own.functions = Registry()
    own.task(name="f")(lambda day, days: "tomorrow")

    @own.task(name="outer", max_attempts=5)
    def outer() -> None:
        inner.get_result(10)

    task = outer.enqueue()
    run(own)
    assert inner.refresh().state == "done"
    assert (task.refresh().state, task.error_type) == ("failed", "dbtaskqueue.errors.PayloadError")


def test_a_task_that_had_the_key_may_be_one_of_another_function(own: TaskQueue) -> None:
    first = own.task(name="f")(lambda: "not a date").using(key="k").enqueue()
    second = own.task(name="g")(today).using(key="k").enqueue()
    assert second.deduplicated
    run(own)
    assert first.get_result(10) == second.get_result(10) == "not a date"


@EXECUTORS
def test_the_result_of_a_transaction(typed: TaskQueue, executor: str) -> None:
    assert result(typed, typed_tasks.committed.bind(DAY), executor) == DAY


# -- parents ---------------------------------------------------------------------------------------


@EXECUTORS
def test_results_of_parents_are_arguments(typed: TaskQueue, executor: str) -> None:
    prices = typed.enqueue_many([typed_tasks.price_of.bind(text) for text in ("1.10", "2.20")])
    day = typed.enqueue(typed_tasks.tomorrow.bind(DAY))
    single = typed.enqueue(typed_tasks.tomorrow.bind(day))
    fan_in = typed.enqueue(typed_tasks.total.bind([*prices, Decimal("0.05")], days=(day, 1)))
    assert fan_in.parents() == [*(task.id for task in prices), day.id]
    run(typed, executor)
    assert fan_in.get_result(10) == Decimal("3.35")
    assert single.get_result(10) == date(2026, 11, 30)


def test_values_beside_parents_are_checked() -> None:
    with pytest.raises(PayloadError, match=r"argument prices\[1\]: "):
        typed_tasks.total.bind([Task.__new__(Task), "x"])  # type: ignore[list-item]


def test_a_task_function_enqueues_a_child(own: TaskQueue) -> None:
    function = own.task(name="f")(typed_tasks.days_later)
    child = function.enqueue(function.enqueue(DAY, 1), 1)  # type: ignore[arg-type]
    run(own)
    assert child.get_result(10) == date(2026, 11, 30)


# -- schedules, JSON from elsewhere, older tasks ---------------------------------------------------


def test_the_arguments_of_a_schedule(own: TaskQueue) -> None:
    function = own.periodic(every=3600, args=[DAY], kwargs={"days": 2})(typed_tasks.days_later)
    assert own.store_declarations() == [function.name]
    own.schedule("mine", function.bind(DAY, 3), every=3600)
    from dbtaskqueue.schedules import run_now

    ids = [run_now(own.store, own.name, name) for name in (function.name, "mine")]
    assert own.get(ids[0]).payload == {"args": ["2026-11-28"], "kwargs": {"days": 2}}
    run(own)
    assert [function.get(id).get_result() for id in ids] == [date(2026, 11, 30), date(2026, 12, 1)]


def test_json_from_the_command_line_is_not_coded_again(typed: TaskQueue, url: str) -> None:
    words = ["enqueue", "--url", url, "--function", "typed_tasks.positional", '["2026-11-28"]', "--kwargs"]
    command = [sys.executable, "-m", "dbtaskqueue", *words, '{"third": "2026-11-28"}']
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": python_path()})
    task = typed.get(int(done.stdout))
    assert task.payload == {"args": ["2026-11-28"], "kwargs": {"third": "2026-11-28"}}
    run(typed)
    assert task.get_result(10) == "date int date"


def test_json_from_the_dashboard_is_not_coded_again(own: TaskQueue) -> None:
    """The dashboard makes calls of its own, from JSON."""
    function = own.task(name="f")(typed_tasks.days_later)
    task = own.enqueue_by("ann", TaskCall("f", ["2026-11-28"], {"days": 1}, {}, {}), {})
    run(own)
    assert function.get(task).get_result() == date(2026, 11, 29)


@CODERS
def test_older_tasks_after_a_new_field_with_a_default(typed: TaskQueue, coder: str) -> None:
    """A field that was removed is ignored."""
    functions = echoes[coder]
    point = {"x": 1, "on": "2026-11-28", "removed": True}
    tasks = [typed.enqueue(TaskCall(f"typed_tasks.{coder}_dataclass", [point, "Point"], {}, {}, {}))]
    if coder == "msgspec":
        job = {"file": "a", "at": "2026-11-28T00:00:00", "removed": 1}
        tasks.append(typed.enqueue(TaskCall("typed_tasks.msgspec_struct", [job, "Job"], {}, {}, {})))
        wanted: Any = Job(Path("a"), datetime(2026, 11, 28))
    else:
        order = {"id": str(UUID(int=1)), "price": "1", "removed": 1}
        tasks.append(typed.enqueue(TaskCall("typed_tasks.pydantic_model", [order, "Order"], {}, {}, {})))
        wanted = Order(id=UUID(int=1), price=Decimal(1))
    typed.functions = typed_tasks.queues[coder].functions
    run(typed)
    read = [functions["dataclass"].coding, functions["struct" if coder == "msgspec" else "model"].coding]
    assert [each.decode_result(task.refresh().result) for each, task in zip(read, tasks, strict=True)] == [
        Point(1, DAY, b""),
        wanted,
    ]


def test_a_coder_that_is_not_strict() -> None:
    def f(day: tuple[int, date]) -> None: ...

    f.__annotations__ = {"day": tuple[int, date]}
    stored = [["7", "2026-11-28"]]
    with pytest.raises(PayloadError, match=r"argument day\[0\]: Expected `int`, got `str`"):
        CallCoding(f, "f", [MsgspecCoder()]).decode(stored, {})
    assert CallCoding(f, "f", [MsgspecCoder(strict=False)]).decode(stored, {})[0] == [(7, DAY)]


def test_a_struct_with_a_key_that_is_wrong() -> None:
    def f(found: dict[int, date]) -> None: ...

    f.__annotations__ = {"found": dict[int, date]}
    with pytest.raises(PayloadError, match=r"^f: argument found: Expected `int`, got `str`$"):
        CallCoding(f, "f", [MsgspecCoder()]).decode([{"x": "2026-11-28"}], {})


# -- providers and child processes -----------------------------------------------------------------


@EXECUTORS
@pytest.mark.parametrize("is_provided", [True, False])
def test_functions_that_are_not_task_functions_in_a_child(url: str, executor: str, is_provided: bool) -> None:
    """They are coded by the coders of the worker's queue, which a child finds at the top of a module."""
    with TaskQueue(url, coders=[typed_tasks.msgspec_coder]) as queue:
        if is_provided:
            queue.functions = typed_tasks.provider
        else:
            queue.task(name="days_later")(typed_tasks.days_later)
        task = queue.enqueue(TaskCall("days_later", ["2026-11-28", 1], {}, {}, {}))
        run(queue, executor)
        assert (task.refresh().state, task.result, task.error) == ("done", "2026-11-29", None)


SCRIPT = """
import datetime

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue.integrations.msgspec import MsgspecCoder


def later(day: datetime.date) -> datetime.date:
    return day + datetime.timedelta(days=1)


queue = TaskQueue("sqlite:///:memory:", coders=[MsgspecCoder()])
registered = queue.task(later)

if __name__ == "__main__":
    task = registered.enqueue(datetime.date(2026, 11, 28))
    Worker(queue, executor="process").run(burst=True)
    print(task.get_result(10).isoformat())
"""


@EXECUTORS
@pytest.mark.parametrize("name", ["shared", "shared_async", "only_async"])
def test_a_function_has_the_coders_and_the_backoff_of_the_workers_queue(
    queue: TaskQueue, executor: str, name: str
) -> None:
    """Another queue, or an ``AsyncTaskQueue``, has a task function of its own in the module."""
    queue.functions = both.functions if name == "shared" else typed_tasks.async_typed.functions
    task = queue.enqueue(TaskCall(f"typed_tasks.{name}", ["2026-11-28"], {}, {"max_attempts": 5}, {}))
    run(queue, executor)
    assert task.refresh().state == "abandoned", "as backoff returns None"
    assert "LookupError: date" in (task.error or "")


def test_a_child_finds_the_coders_of_a_queue_at_the_top_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": python_path(), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("2026-11-29\n", "")


def test_a_child_that_cannot_find_the_coders(url: str) -> None:
    with TaskQueue(url, coders=[MsgspecCoder()]) as queue:
        queue.task(typed_tasks.days_later)
        with pytest.raises(TypeError, match="a child process cannot find the coder MsgspecCoder: assign it, or the Ta"):
            run(queue, "process")


def test_lanes_share_the_coders(own: TaskQueue) -> None:
    assert own.lane("mail").coders is own.coders
    function = own.lane("mail").task(name="f")(typed_tasks.days_later)
    task = function.enqueue(DAY, 1)
    run(own.lane("mail"))
    assert task.get_result(10) == date(2026, 11, 29)


# -- the libraries ---------------------------------------------------------------------------------


def test_a_missing_library_names_the_extra() -> None:
    code = "import sys; sys.modules['{0}'] = None\nimport dbtaskqueue.integrations.{0}"
    for name in ("msgspec", "pydantic"):
        command = [sys.executable, "-c", code.format(name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": python_path()})
        assert f"pip install 'dbtaskqueue[{name}]'" in done.stderr


def test_a_struct_that_forbids_unknown_fields(own: TaskQueue) -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        on: date

    def f(value: Strict) -> None: ...

    f.__annotations__ = {"value": Strict}
    coding = CallCoding(f, "f", [MsgspecCoder()])
    with pytest.raises(PayloadError, match="Object contains unknown field `old`"):
        coding.decode([{"on": "2026-11-28", "old": 1}], {})


def test_a_strict_model_reads_what_it_stored() -> None:
    class Strict(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True)
        on: date
        price: Decimal

    def f(value: Strict) -> None: ...

    f.__annotations__ = {"value": Strict}
    coding = CallCoding(f, "f", [PydanticCoder()])
    value = Strict(on=DAY, price=Decimal("1.10"))
    assert coding.decode(coding.encode([value], {})[0], {})[0] == [value]


def test_aliases_for_reading_and_for_writing() -> None:
    class Named(pydantic.BaseModel):
        read: date = pydantic.Field(validation_alias="readAs")
        written: date = pydantic.Field(serialization_alias="writtenAs")
        either: date = pydantic.Field(alias="eitherAs")

    def f(value: Named) -> None: ...

    f.__annotations__ = {"value": Named}
    coding = CallCoding(f, "f", [PydanticCoder()])
    value = Named(readAs=DAY, written=DAY, eitherAs=DAY)
    stored = {"read": DAY.isoformat(), "written": DAY.isoformat(), "either": DAY.isoformat()}
    assert coding.encode([value], {})[0] == [stored]
    for names in ({}, {"read": "readAs"}, {"either": "eitherAs"}):
        assert coding.decode([{names.get(name, name): text for name, text in stored.items()}], {})[0] == [value]


def test_an_async_queue_codes_too(url: str) -> None:
    async def main() -> None:
        async with AsyncTaskQueue(url, coders=[MsgspecCoder()]) as queue:
            function = queue.task(name="f")(typed_tasks.days_later)
            tasks = [await function.enqueue(DAY, 1), await queue.enqueue(function.bind(DAY, 1))]
            await asyncio.to_thread(run, queue.sync)
            assert [await task.get_result(10) for task in tasks] == [date(2026, 11, 29)] * 2
            assert await (await function.get(tasks[0].id)).get_result() == date(2026, 11, 29)
            with pytest.raises(PayloadError, match="f: argument day: "):
                await function.enqueue("soon", 1)  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_flask_queue_codes_too(url: str) -> None:
    flask = pytest.importorskip("flask")
    from dbtaskqueue.integrations.flask import FlaskTaskQueue

    queue = FlaskTaskQueue(coders=[MsgspecCoder()])
    function = queue.task(name="f")(typed_tasks.days_later)
    app = flask.Flask("typed")
    app.config["DBTASKQUEUE_URL"] = url
    queue.init_app(app)
    with app.app_context():
        task = function.enqueue(DAY, 1)
        run(queue)
        assert task.get_result(10) == date(2026, 11, 29)


def test_run_tasks_codes_too(own: TaskQueue) -> None:
    function = own.task(name="f")(typed_tasks.days_later)
    task = function.enqueue(DAY, 1)
    run_tasks(own)
    assert task.get_result(10) == date(2026, 11, 29)

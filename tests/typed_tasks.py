"""Task functions with typed arguments, at the top of a module, where a child process finds them."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pydantic
from typing_extensions import TypedDict

from dbtaskqueue import AsyncTaskQueue, TaskQueue, current_task
from dbtaskqueue.integrations.msgspec import MsgspecCoder
from dbtaskqueue.integrations.pydantic import PydanticCoder

if TYPE_CHECKING:
    from elsewhere import Unknown  # type: ignore[import-not-found]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Point:
    x: int
    on: date
    data: bytes = b""


@dataclass
class Tree:
    price: Decimal
    branches: list[Tree] = field(default_factory=list)


class Pair(NamedTuple):
    id: UUID
    on: date


class Options(TypedDict):
    on: date
    size: int


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    id: UUID
    price: Decimal
    lines: list[Point] = []
    name: str = pydantic.Field(default="", alias="customerName")


class Job(msgspec.Struct):
    file: Path
    at: datetime
    next: Job | None = None


KINDS: dict[str, Any] = {
    "date": date,
    "datetime": datetime,
    "time": time,
    "timedelta": timedelta,
    "uuid": UUID,
    "decimal": Decimal,
    "path": Path,
    "bytes": bytes,
    "enum": Color,
    "int_enum": Level,
    "dataclass": Point,
    "tree": Tree,
    "named_tuple": Pair,
    "typed_dict": Options,
    "set": set[date],
    "frozenset": frozenset[int],
    "tuple": tuple[int, date],
    "long_tuple": tuple[Decimal, ...],
    "list": list[UUID],
    "sequence": Sequence[date],
    "dict": dict[str, Decimal],
    "int_keys": dict[int, date],
    "mapping": Mapping[date, int],
    "optional": date | None,
    "union": date | int | None,
    "nested": dict[str, list[tuple[date, Point | None]]],
}
"""What both coders take, by name."""
OWN_KINDS: dict[str, dict[str, Any]] = {
    "msgspec": {"struct": Job, "structs": list[Job]},
    "pydantic": {
        "model": Order,
        "models": dict[str, Order],
        "text_union": date | str,
        "path_union": Path | int,
        "annotated": Annotated[int, pydantic.Field(gt=3)],
    },
}
"""What only one of them takes."""

msgspec_coder, pydantic_coder = MsgspecCoder(), PydanticCoder()
queues = {
    "msgspec": TaskQueue(queue="typed", open=False, coders=[msgspec_coder]),
    "pydantic": TaskQueue(queue="typed", open=False, coders=[pydantic_coder]),
    "both": TaskQueue(queue="typed", open=False, coders=[msgspec_coder, pydantic_coder]),
}


def _echo(name: str, kind: Any) -> Callable[..., Any]:
    def echo(value, what):
        """Return the value, whose type must be the one of that name."""
        assert type(value).__name__ == what, f"{type(value).__name__}, not {what}"
        return value

    echo.__annotations__ = {"value": kind, "return": kind}
    echo.__name__ = echo.__qualname__ = name
    return echo


def kinds_of(coder: str) -> dict[str, Any]:
    """Return the annotations that a coder takes, by name."""
    return KINDS | OWN_KINDS[coder]


echoes: dict[str, dict[str, Any]] = {}
"""A task function for each coder and annotation, which returns its argument."""
for _coder in OWN_KINDS:
    for _name, _kind in kinds_of(_coder).items():
        _path = f"{_coder}_{_name}"
        _function = queues[_coder].task(_echo(_path, _kind))
        globals()[_path] = echoes.setdefault(_coder, {})[_name] = _function

both = queues["both"]


@both.task
def late(value: Later, *rest: date, size: Decimal = Decimal(1), **more: UUID) -> list[Any]:
    """Annotated with a class that is defined below."""
    return [type(each).__name__ for each in (value, *rest, size, *more.values())]


@dataclass
class Later:
    on: date


@both.task
def positional(first: date, /, second: int = 0, *, third: date | None = None) -> str:
    return " ".join(type(each).__name__ for each in (first, second, third))


@both.task
async def tomorrow(day: date) -> date:
    return day + timedelta(days=1)


@both.task
def total(prices: list[Decimal], days: tuple[date, int] | None = None) -> Decimal:
    assert all(type(price) is Decimal for price in prices)
    assert days is None or type(days[0]) is date
    return sum(prices, Decimal(0))


@both.task
def price_of(text: str) -> Decimal:
    return Decimal(text)


@both.task
def unresolved(value: Unknown, day: date) -> str:
    return f"{type(value).__name__} {type(day).__name__}"


@both.task
def plain(a: int, b: list[str], c: dict[str, Any] | None = None, d: Literal["x", 1] = 1, e=None) -> list[Any]:
    return [a, b, c, d, e]


@both.task
def wrong_result(value: str) -> date:
    return value  # type: ignore[return-value]


@both.task
def committed(day: date) -> date:
    """End by its own transaction."""
    with current_task().transaction(day):
        pass
    return date.max


@both.task(backoff=lambda error, attempt: 3600)
def patient(day: date) -> None:
    raise LookupError


above = TaskQueue(queue="above", open=False)
"""A queue without coders."""
async_typed = AsyncTaskQueue(queue="typed", coders=[msgspec_coder])


@above.task
@both.task(backoff=lambda error, attempt: None, max_attempts=5)
def shared(day: date) -> None:
    raise LookupError(type(day).__name__)


@above.task
@async_typed.task(backoff=lambda error, attempt: None, max_attempts=5)
def shared_async(day: date) -> None:
    raise LookupError(type(day).__name__)


@async_typed.task(backoff=lambda error, attempt: None, max_attempts=5)
def only_async(day: date) -> None:
    raise LookupError(type(day).__name__)


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function as many people do."""

    @functools.wraps(function)
    def twice(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) * 2

    return twice


@both.task
@doubled
def decorated(pause: timedelta) -> timedelta:
    return pause


# -- a provider, and functions that are not task functions -------------------------------------------


def days_later(day: date, days: int) -> date:
    """Not a task function in this module."""
    assert type(day) is date
    return day + timedelta(days=days)


class Provider:
    """Finds a plain function."""

    def find(self, name: str) -> Callable[..., Any] | None:
        return days_later if name == "days_later" else None

    def names(self) -> list[str]:
        return ["days_later"]


provider = Provider()

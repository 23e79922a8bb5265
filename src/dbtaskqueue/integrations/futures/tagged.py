"""Python values as JSON with tags, for ``futures``: ``(1, b"x")`` is ``{"$": "tuple", "v": [1, {"$": "bytes", …}]}``.

The tags are those of a fixed table. Nothing that is stored is imported or evaluated. Standard library only.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PosixPath
from typing import Any, NamedTuple
from uuid import UUID

_TAG, _VALUE = "$", "v"


class _Kind(NamedTuple):
    """How the values of one type are stored: ``pack`` returns JSON or values to encode, and ``unpack`` reverses it."""

    tag: str
    type: type
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


def _packed_delta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _packed_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unpacked_dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {key: value for key, value in pairs}  # noqa: C416 - dict() would take other things than pairs


_KINDS = [
    _Kind("tuple", tuple, list, tuple),
    _Kind("set", set, list, set),
    _Kind("frozenset", frozenset, list, frozenset),
    _Kind("dict", dict, lambda value: [list(pair) for pair in value.items()], _unpacked_dict),
    _Kind("bytes", bytes, _packed_bytes, base64.b64decode),
    _Kind("bytearray", bytearray, _packed_bytes, lambda text: bytearray(base64.b64decode(text))),
    _Kind("int", int, str, int),
    _Kind("float", float, repr, float),
    _Kind("complex", complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    _Kind("range", range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    _Kind("datetime", datetime, lambda value: [value.isoformat(), value.fold], lambda parts: _datetime(*parts)),
    _Kind("date", date, date.isoformat, date.fromisoformat),
    _Kind("time", time, lambda value: [value.isoformat(), value.fold], lambda parts: _time(*parts)),
    _Kind("timedelta", timedelta, _packed_delta, lambda parts: timedelta(*parts)),
    _Kind("decimal", Decimal, str, Decimal),
    _Kind("uuid", UUID, str, UUID),
    _Kind("path", PosixPath, str, Path),
]
_BY_TYPE = {kind.type: kind for kind in _KINDS}
_BY_TAG = {kind.tag: kind for kind in _KINDS}
_LARGEST = 2**63


def _datetime(text: str, fold: int) -> datetime:
    return datetime.fromisoformat(text).replace(fold=fold)


def _time(text: str, fold: int) -> time:
    return time.fromisoformat(text).replace(fold=fold)


def encode(value: Any, place: str) -> Any:
    """Return a value as JSON. Raises TypeError, which names ``place``, if its type is not in the table."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int and -_LARGEST <= value < _LARGEST:
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list:
        return [encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if kind is dict and _TAG not in value and all(type(key) is str for key in value):
        return {key: encode(item, f"{place}[{key!r}]") for key, item in value.items()}
    if kind in (datetime, time) and type(value.tzinfo) not in (type(None), timezone):
        raise TypeError(f"{place}: a {kind.__name__} with the zone {value.tzinfo} cannot be stored; use one in UTC")
    found = _BY_TYPE.get(kind)
    if found is None:
        raise TypeError(f"{place}: a value of type {kind.__module__}.{kind.__qualname__} cannot be stored")
    return {_TAG: found.tag, _VALUE: encode(found.pack(value), place)}


def decode(value: Any) -> Any:
    """Return the value that was encoded. Raises ValueError for an unknown tag."""
    if type(value) is list:
        return [decode(item) for item in value]
    if type(value) is not dict:
        return value
    if _TAG not in value:
        return {key: decode(item) for key, item in value.items()}
    found = _BY_TAG.get(value[_TAG]) if type(value[_TAG]) is str else None
    if found is None:
        raise ValueError(f"a stored value has the unknown tag {value[_TAG]!r}")
    return found.unpack(decode(value.get(_VALUE)))

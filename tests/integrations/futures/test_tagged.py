"""Arguments and results of an executor's calls come back as they were, and nothing stored can choose what is called."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbtaskqueue._formats import payload
from dbtaskqueue.integrations.futures.tagged import decode, encode

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
zones = st.none() | st.just(UTC) | st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
hashable = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.complex_numbers(allow_nan=False)
        | text
        | st.binary()
        | st.dates()
        | st.datetimes(timezones=zones)
        | st.times(timezones=zones)
        | st.timedeltas()
        | st.decimals(allow_nan=False)
        | st.uuids()
        | text.map(Path)
        | st.builds(range, st.integers(), st.integers(), st.integers(1))
        | st.tuples(hashable, hashable)
        | st.frozensets(hashable, max_size=3)
    )
)
values = st.recursive(
    hashable | st.sets(hashable, max_size=3) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(text, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$", "v", "$$"]), inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=5,
)


def types(value: Any) -> Any:
    """Return the types in a value."""
    if isinstance(value, dict):
        return {key: types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [types(item) for item in value]
    return type(value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    stored = payload.encode(encode(value, "value"))
    found = decode(json.loads(stored))
    assert found == value
    assert types(found) == types(value)


def test_json_values_are_stored_as_they_are() -> None:
    value = {"a": [1, 2.5, None, True, {"b": "c"}]}
    assert encode(value, "value") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("nan"), complex("nan")])
def test_numbers_that_json_does_not_have(value: Any) -> None:
    assert repr(decode(json.loads(payload.encode(encode(value, "value"))))) == repr(value)


def test_the_second_of_two_equal_times_stays_the_second() -> None:
    moment = datetime(2026, 10, 25, 2, 30, fold=1)
    assert decode(encode(moment, "value")).fold == 1


class Colour(IntEnum):
    RED = 1


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Colour.RED,
        Pair(1, 2),
        OrderedDict(a=1),
        len,
        datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        time(1, tzinfo=ZoneInfo("Europe/Berlin")),
        ValueError(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_refused_by_their_place(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^args\[0\]\['a'\]\[1\]: "):
        encode({"a": (date(2026, 1, 1), value)}, "args[0]")


@pytest.mark.parametrize("stored", [{"$": "os.system", "v": "x"}, {"$": "eval"}, {"$": ["tuple"]}, {"$": None, "v": 1}])
def test_a_tag_that_is_not_in_the_table_is_refused(stored: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode(stored)


def test_the_uuid_is_what_was_given() -> None:
    assert decode({"$": "uuid", "v": str(UUID(int=7))}) == UUID(int=7)

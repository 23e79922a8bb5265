"""Encoding and decoding of JSON. conformance/test_bad_input.py tests the values through a queue."""

from __future__ import annotations

import enum

import pytest

from dbtaskqueue import PayloadError
from dbtaskqueue._formats.payload import MAX_ERROR, clip_error, decode, encode


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([1, 2.5, True, "ä"], '[1,2.5,true,"ä"]'),
        ({"b": 1, "a": {}}, '{"b":1,"a":{}}'),
        ((1, (2,)), "[1,[2]]"),
        (-0.0, "-0.0"),
        ("\u2028", '"\u2028"'),
        ("a\nb\x1f", '"a\\nb\\u001f"'),
    ],
    ids=repr,
)
def test_encode(value: object, text: str) -> None:
    assert encode(value) == text


class Colour(enum.StrEnum):
    RED = "red"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class Half(float):
    def __repr__(self) -> str:
        return "half"


def test_subclasses_are_encoded_like_their_base_classes() -> None:
    assert decode(encode([Colour.RED, Half(0.5)])) == ["red", 0.5]
    assert decode(encode([Loud("quiet")])) == ["quiet"]
    with pytest.raises(PayloadError):
        encode([Half("nan")])
    with pytest.raises(PayloadError):
        encode(Loud("\ud800"))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "payload"),
        ({"items": [0, {"price": float("inf")}]}, "payload.items[1].price"),
        ([[[float("nan")]]], "payload[0][0][0]"),
    ],
)
def test_the_message_names_the_place(value: object, place: str) -> None:
    with pytest.raises(PayloadError) as caught:
        encode(value)
    assert str(caught.value).startswith(f"{place}:")


def test_the_message_uses_the_given_name() -> None:
    with pytest.raises(PayloadError, match=r"^result\.a:"):
        encode({"a": object()}, name="result")


def test_a_message_stays_short_and_printable() -> None:
    value: object = object()
    for _ in range(90):
        value = {"key " * 20: value}
    for bad in (value, {"\ud800" * 500: float("nan")}, {"x" * 10_000: float("nan")}, {("t",) * 5000: 1}):
        with pytest.raises(PayloadError) as caught:
            encode(bad)
        message = str(caught.value)
        message.encode()
        assert len(message) < 1000


@pytest.mark.parametrize("limit", [2, 10, 1000])
def test_the_limit_counts_bytes_of_json(limit: int) -> None:
    assert len(encode("x" * (limit - 2), limit=limit)) == limit
    for value in ("x" * (limit - 1), "ä" * (limit // 2)):
        with pytest.raises(PayloadError, match=f"limit of {limit} bytes"):
            encode(value, limit=limit)


@pytest.mark.parametrize(
    "text", ["", " ", "{", "1 2", "[1,]", "nul", "'x'", '"\udcff"', None, b"1", 1, "[" * 100_000, "9" * 5000], ids=ascii
)
def test_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match="result") as caught:
        decode(text, name="result")
    str(caught.value).encode()


def test_an_error_is_clipped_in_the_middle() -> None:
    text = clip_error("start" + "ä" * 100_000 + "end")
    assert len(text.encode()) <= MAX_ERROR
    assert text.startswith("start")
    assert text.endswith("end")
    assert "bytes cut" in text


@pytest.mark.parametrize("text", ["", "short", "ä" * 1000, "x" * MAX_ERROR])
def test_an_error_that_fits_is_not_changed(text: str) -> None:
    assert clip_error(text) == text


def test_an_error_is_made_storable() -> None:
    assert clip_error("a\x00b\ud800c") == "a\\x00b\\ud800c"

"""Filters as values, words and JSON."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from dbtaskqueue._formats.filters import HIGHEST, LOWEST, Filters, Span, check_size, from_json, parse
from dbtaskqueue._formats.words import from_arguments, from_pairs, from_text, to_words

NOW = 1_900_000_000_000_000
HOUR = 3_600_000_000


def spans(name: str, value: object) -> list[tuple[int, int]]:
    return [tuple(span) for span in parse({name: value}, NOW).spans(name)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (3, 3, 3),
        ("3", 3, 3),
        ("=3", 3, 3),
        (">3", 4, HIGHEST),
        (">=3", 3, HIGHEST),
        ("<-3", LOWEST, -4),
        ("<=3", LOWEST, 3),
        ("3..5", 3, 5),
        ("-5..-3", -5, -3),
        ("3..", 3, HIGHEST),
        ("..5", LOWEST, 5),
        ("5..3", 1, 0),
        (10**25, 1, 0),
        (f"<{10**25}", LOWEST, HIGHEST),
    ],
)
def test_numbers(value: object, low: int, high: int) -> None:
    assert spans("priority", value) == [(low, high)]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("2h", NOW - 2 * HOUR, HIGHEST),
        ("<2h", NOW - 2 * HOUR, HIGHEST),
        (timedelta(hours=2), NOW - 2 * HOUR, HIGHEST),
        (">2h", LOWEST, NOW - 2 * HOUR - 1),
        ("3h..2h", NOW - 3 * HOUR, NOW - 2 * HOUR),
        ("2h..3h", NOW - 3 * HOUR, NOW - 2 * HOUR),
        ("..2h", LOWEST, NOW - 2 * HOUR),
        ("2h..", NOW - 2 * HOUR, HIGHEST),
        (datetime.fromtimestamp(NOW / 1e6, UTC), NOW, HIGHEST),
        ("2030-03-17T17:46:40+00:00", NOW, HIGHEST),
        ("2030-03-17T17:46:40Z..2030-03-17T18:46:40Z", NOW, NOW + HOUR),
        ("<2030-03-17T17:46:40Z", LOWEST, NOW - 1),
    ],
)
def test_times(value: object, low: int, high: int) -> None:
    assert spans("created", value) == [(low, high)]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("2h", NOW, NOW + 2 * HOUR),
        (">2h", NOW + 2 * HOUR + 1, HIGHEST),
        ("2h..3h", NOW + 2 * HOUR, NOW + 3 * HOUR),
        (timedelta(hours=2), NOW, NOW + 2 * HOUR),
    ],
)
def test_the_ages_of_due_count_into_the_future(value: object, low: int, high: int) -> None:
    assert spans("due", value) == [(low, high)]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (">1h", LOWEST, NOW - HOUR - 1),
        (">=1h", LOWEST, NOW - HOUR),
        ("1h", LOWEST, NOW - HOUR),
        (3600, LOWEST, NOW - HOUR),
        ("<1h", NOW - HOUR + 1, HIGHEST),
        ("1h..2h", NOW - 2 * HOUR, NOW - HOUR),
    ],
)
def test_a_duration_says_when_a_task_has_started(value: object, low: int, high: int) -> None:
    assert spans("runs", value) == [(low, high)]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("17", {"id": ["17"]}),
        ("17 18", {"id": ["17", "18"]}),
        ('"17"', {"text": ["17"]}),
        ("timed out", {"text": ["timed", "out"]}),
        ('"timed out"', {"text": ["timed out"]}),
        (
            'state:failed,abandoned error:"timed out" ended:24h',
            {"state": ["failed,abandoned"], "error": ["timed out"], "ended": ["24h"]},
        ),
        ('"a: b"', {"text": ["a: b"]}),
        ('"a \\"b\\" \\\\ c"', {"text": ['a "b" \\ c']}),
        ("TimeoutError: x", {"text": ["TimeoutError:", "x"]}),
        ("http://x/y", {"text": ["http://x/y"]}),
        ('payload.a.b:"x y"', {"payload.a.b": ["x y"]}),
        ("", {}),
        ("  ", {}),
    ],
)
def test_words_of_a_search_box(text: str, where: dict[str, list[str]]) -> None:
    assert from_text(text) == where


def test_an_argument_is_one_word() -> None:
    assert from_arguments(["error:timed out", "a b", "3"]) == {"error": ["timed out"], "text": ["a b"], "id": ["3"]}


def test_empty_values_of_a_form_are_left_out() -> None:
    assert from_pairs([("state", ""), ("state", "done"), ("key", "")]) == {"state": ["done"]}


@pytest.mark.parametrize(
    ("text", "named"), [('"open', "quote"), ("foo:bar", "foo"), ("state:", "state"), ('error:""', "error")]
)
def test_wrong_words(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse(from_text(text), NOW)


def test_the_size_of_a_query_is_limited() -> None:
    check_size([("id", "1")] * 30)
    with pytest.raises(ValueError, match="30 filters"):
        check_size([("id", "1")] * 31)
    with pytest.raises(ValueError, match="2000 characters"):
        check_size([("text", "x" * 2000)])


def test_filters_survive_json_and_words() -> None:
    choose = random.Random(3)
    samples = {
        "queue": ["a,b", "mail"], "state": ["failed", "done,failed"], "function": ["app.*", "a b"], "key": ['"', "k"],
        "error": ["timed out", "a: b", "\\"], "text": ["x", "a b"], "id": [3, "3-5"], "priority": [">=3", -1],
        "runs": [">1h"], "created": ["2h", timedelta(hours=1), datetime(2030, 1, 1, tzinfo=UTC)], "blocked": [True],
        "payload.a": [1, "x", "1", None, {"b": [1]}],
    }  # fmt: skip
    for _ in range(300):
        names = choose.sample(list(samples), choose.randrange(1, 6))
        filters = parse({name: choose.choice(samples[name]) for name in names}, NOW)  # type: ignore[arg-type]
        assert from_json(filters.to_json()) == filters
        assert parse(from_text(to_words(filters)), NOW) == filters, to_words(filters)
        assert parse(filters.where(), NOW) == filters


def test_filters_are_true_if_there_are_any() -> None:
    assert not Filters()
    assert parse({"id": 3}, NOW)
    assert parse({"id": None}, NOW) == Filters()
    assert parse({"id": 3}, NOW).get("id") == (Span(3, 3),)

"""Valid and invalid names of queues, keys and task functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbtaskqueue.checks import check_function, check_key, check_queue, check_served, is_pattern, is_served


@pytest.mark.parametrize("name", ["a", "Z", "0", ".", "_", ":", "-", "http.fetch:2_x-Y", "x" * 128])
def test_queues(name: str) -> None:
    assert check_queue(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 129, " ", "a b", "ä", "a\n", "a/b", "a@b", "a,b", "٣", None, 1, b"a"], ids=ascii
)
def test_bad_queues(name: str) -> None:
    with pytest.raises(ValueError, match="queue's name"):
        check_queue(name)


@pytest.mark.parametrize("name", ["a", "*", "a*", "http.fetch:2_x-Y*", "x" * 128, "x" * 128 + "*"])
def test_served_queues(name: str) -> None:
    assert check_served(name) == name
    assert is_pattern(name) is name.endswith("*")


@pytest.mark.parametrize(
    "name", ["", "**", "*a", "a*b", "a b*", "ä*", "a*\n", "a\n*", "x" * 129 + "*", None, 1], ids=ascii
)
def test_bad_served_queues(name: str) -> None:
    with pytest.raises(ValueError, match="queue's name"):
        check_served(name)


@pytest.mark.parametrize(
    ("names", "served"),
    [
        (["mail"], ["mail"]),
        (["mail*"], ["mail", "mail.a", "mailing"]),
        (["mail.*"], ["mail.a"]),
        (["*"], ["mail", "mail.a", "mailing", "Mail", "news", "webmail"]),
        (["news", "mail.*"], ["mail.a", "news"]),
        ([], []),
        ([None, 1, [], "new"], []),
    ],
    ids=str,
)
def test_which_queues_names_and_patterns_match(names: list[object], served: list[str]) -> None:
    assert [
        queue for queue in ["mail", "mail.a", "mailing", "Mail", "news", "webmail"] if is_served(queue, names)
    ] == served


@pytest.mark.parametrize("key", [None, "a", "two words", "ä😀", "x" * 255])
def test_keys(key: str | None) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00", "\ud800", 1, b"a", True], ids=ascii)
def test_bad_keys(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        check_key(key)


@pytest.mark.parametrize("name", ["f", "module.Class.method", "module.f.<locals>.<lambda>", "größe", "x" * 500])
def test_functions(name: str) -> None:
    assert check_function(name) == name


@pytest.mark.parametrize("name", ["", "x" * 501, "a\nb", "a\x00", "\ud800", None, 1], ids=ascii)
def test_bad_functions(name: str) -> None:
    with pytest.raises(ValueError, match="function's name"):
        check_function(name)


@pytest.mark.parametrize("check", [check_queue, check_key, check_function])
def test_a_message_shows_a_shortened_value(check: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="xxxx") as caught:
        check("x" * 100_000)
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match=r"\\ud800") as caught:
        check("\ud800")
    str(caught.value).encode()

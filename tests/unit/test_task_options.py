"""The column ``options`` of a task: what is stored, what is read, and what cannot be read."""

from __future__ import annotations

import json

import pytest

from dbtaskqueue import RetryPolicy
from dbtaskqueue._formats.limits import NONE, Limits
from dbtaskqueue._formats.task_options import TaskOptions, decode, encode, has_limits
from dbtaskqueue.retry import DEFAULT

KEYS = ("retry", "time_limit", "stall_limit", "memory_limit")


@pytest.mark.parametrize("limits", [NONE, Limits(1.5, None, 2**40), Limits(stall=3.0)])
@pytest.mark.parametrize("policy", [DEFAULT, RetryPolicy(1, 2, 3.5, 4, 0.5, 6), RetryPolicy(max_attempts=None)])
def test_options_are_stored_and_read(policy: RetryPolicy, limits: Limits) -> None:
    options = {"retry": policy, "time_limit": limits.time, "stall_limit": limits.stall, "memory_limit": limits.memory}
    assert decode(encode(options)) == TaskOptions(policy, limits)
    assert has_limits(encode(options)) == (limits != NONE)


def test_only_what_is_set_is_stored() -> None:
    assert encode({"retry": RetryPolicy(), "time_limit": None}) is None
    assert encode({"retry": DEFAULT, "stall_limit": 2.0}) == '{"stall_limit": 2.0}'
    assert list(json.loads(encode({"retry": RetryPolicy(delay=1)}) or "")) == ["retry"]


def test_keys_of_a_newer_version_are_ignored() -> None:
    text = '{"retry": {"of_a_newer_version": [1], "max_attempts": 3, "delay": 5}, "another": 7}'
    assert decode(text) == TaskOptions(RetryPolicy(delay=5, max_attempts=3))


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", "[" * 100_000, '{"time_limit": 1} x'])
def test_a_text_that_is_not_an_object_means_the_defaults(text: str) -> None:
    assert decode(text) == TaskOptions(unreadable=(*KEYS, "tick"))
    assert not has_limits(text)


@pytest.mark.parametrize(
    "stored",
    [
        *("[]", "1", "null", '{"delay": -1}', '{"delay": "x"}', '{"delay": NaN}', '{"delay": 1e999}'),
        *('{"max_attempts": 0}', '{"jitter": 2}', f'{{"delay": 1{"0" * 400}}}'),
    ],
    ids=lambda text: text[:20],
)
def test_a_policy_that_cannot_be_read_is_the_default(stored: str) -> None:
    options = decode(f'{{"retry": {stored}, "time_limit": 5}}')
    assert options == TaskOptions(limits=Limits(time=5), unreadable=("retry",))
    assert options.retry is DEFAULT


@pytest.mark.parametrize("key", KEYS[1:])
@pytest.mark.parametrize("value", ["-1", '"x"', "[]", "true", "0"])
def test_a_limit_that_cannot_be_read_is_none_and_the_others_apply(key: str, value: str) -> None:
    options = decode(json.dumps({"retry": {"delay": 5}, **dict.fromkeys(KEYS[1:], 9), key: "?"}).replace('"?"', value))
    assert options.unreadable == (key,)
    assert options.retry == RetryPolicy(delay=5)
    assert sorted(options.limits, key=str) == [9, 9, None]

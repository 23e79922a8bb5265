"""``RetryPolicy``: the delays of the design page, the cap, jitter, and invalid values."""

from __future__ import annotations

import math

import pytest

from dbtaskqueue import RetryPolicy


def delays(policy: RetryPolicy, count: int) -> list[float]:
    return [policy.delay_before(n) for n in range(1, count + 1)]


def test_the_defaults() -> None:
    wanted = [60, 120, 180, 240, 300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 76800, 86400, 86400]
    assert delays(RetryPolicy(), 15) == wanted


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (RetryPolicy(delay=0), [0, 0, 0, 0, 0, 0, 0]),
        (RetryPolicy(linear=1), [60, 120, 240, 480, 960]),
        (RetryPolicy(delay=1, linear=3, factor=1), [1, 2, 3, 3, 3]),
        (RetryPolicy(delay=1, linear=2, factor=10), [1, 2, 20, 200, 2000]),
        (RetryPolicy(delay=1, linear=1, factor=0), [1, 0, 0]),
        (RetryPolicy(delay=10, max_delay=25), [10, 20, 25, 25]),
        (RetryPolicy(max_delay=0), [0, 0]),
        (RetryPolicy(delay=0.001), [0.001, 0.002, 0.003]),
    ],
    ids=repr,
)
def test_the_table(policy: RetryPolicy, wanted: list[float]) -> None:
    assert delays(policy, len(wanted)) == pytest.approx(wanted)


def test_after_very_many_retries() -> None:
    assert RetryPolicy().delay_before(100_000) == 86400
    assert RetryPolicy(delay=0).delay_before(10**9) == 0
    assert RetryPolicy(max_delay=1e300, factor=1e300).delay_before(10**6) == 1e300
    assert RetryPolicy(delay=1e308, max_delay=1e308, linear=10**6).delay_before(10**6) == 1e308
    assert RetryPolicy(delay=10**308, jitter=1, max_delay=9).delay_before(10**400) <= 9


def test_jitter_spreads_before_the_cap() -> None:
    policy = RetryPolicy(delay=100, jitter=0.25, max_delay=110)
    seen = [policy.delay_before(1) for _ in range(2000)]
    assert min(seen) >= 75
    assert max(seen) == 110
    assert min(seen) < 80
    assert RetryPolicy(delay=100, jitter=1).delay_before(1) <= 200


@pytest.mark.parametrize(
    "options",
    [
        *({name: value} for name in ("delay", "factor", "max_delay", "jitter") for value in (-1, math.nan, math.inf)),
        *({name: value} for name in ("delay", "factor", "max_delay", "jitter") for value in ("1", None, True)),
        *({name: 10**400} for name in ("delay", "factor", "max_delay", "jitter", "linear", "max_attempts")),
        {"delay": 10**5000},
        {"jitter": 1.01},
        *({"linear": value} for value in (0, -1, 1.5, "5", None, True, 2**31)),
        *({"max_attempts": value} for value in (0, -1, 1.5, "5", True, 2**31)),
    ],
    ids=lambda options: next(iter(options)),
)
def test_values_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RetryPolicy(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1, 1.5, "1", True])
def test_retries_are_numbered_from_one(n: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RetryPolicy().delay_before(n)


def test_retries_without_limit_are_allowed() -> None:
    assert RetryPolicy(max_attempts=None).max_attempts is None


def test_a_policy_is_an_immutable_value() -> None:
    assert RetryPolicy(delay=5) == RetryPolicy(delay=5) != RetryPolicy(delay=6)
    with pytest.raises(AttributeError):
        RetryPolicy().delay = 5  # type: ignore[misc]

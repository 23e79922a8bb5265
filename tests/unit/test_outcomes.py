"""From the outcome of an attempt to what is stored: the one place that applies the retry policy."""

from __future__ import annotations

import pytest

from dbtaskqueue import RetryPolicy, outcomes
from dbtaskqueue._executors.lookup import FoundFunctions, Lookup
from dbtaskqueue._formats.task_options import encode
from dbtaskqueue._store.contract import TaskRecord
from dbtaskqueue._system import clock

NOW = 1_700_000_000_000_000
SECOND = 1_000_000


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "source", lambda: NOW)


def record(
    *, attempt: int = 1, budget: int | None = 10, retry_base: int = 0, policy: RetryPolicy | None = None
) -> TaskRecord:
    known = {
        "id": 7,
        "queue": "q",
        "state": "running",
        "token": 3,
        "attempt": attempt,
        "budget": budget,
        "retry_base": retry_base,
        "due": NOW - 5,
        "options": encode({"retry": policy}) if policy else None,
        "payload": "null",
        "flow": 0,
    }
    return TaskRecord(**{name: known.get(name) for name in TaskRecord._fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(("attempt", "wait"), [(1, 60), (2, 120), (5, 300), (6, 600), (9, 4800)])
def test_a_failure_is_due_again_by_the_policy(attempt: int, wait: int) -> None:
    end = outcomes.fail(record(attempt=attempt), "x")
    assert (end.verb, end.id, end.token, end.at, end.error) == ("fail", 7, 3, NOW, "x")
    assert (end.due, end.final) == (NOW + wait * SECOND, False)


@pytest.mark.parametrize(
    ("options", "final"),
    [
        ({"attempt": 9}, False),
        ({"attempt": 10}, True),
        ({"attempt": 11}, True),
        ({"attempt": 13, "retry_base": 4}, False),
        ({"attempt": 14, "retry_base": 4}, True),
        ({"attempt": 10_000, "budget": None}, False),
    ],
    ids=str,
)
def test_the_last_attempt_is_final(options: dict[str, int], final: bool) -> None:
    end = outcomes.fail(record(**options), "x")
    assert end.final is final
    assert (end.due is None) is final


def test_after_an_operators_retry_the_delays_start_again() -> None:
    assert outcomes.fail(record(attempt=8, retry_base=7), "x").due == NOW + 60 * SECOND


def test_without_a_retry_and_with_a_delay() -> None:
    assert outcomes.fail(record(), "x", retry=False).final
    assert outcomes.fail(record(), "x", delay=5).due == NOW + 5 * SECOND
    assert outcomes.fail(record(attempt=10), "x", delay=5).final


def test_a_start_that_is_not_stored_yet_counts() -> None:
    end = outcomes.fail(record(attempt=9), "x", started_at=NOW - 3)
    assert end.final
    assert end.started_at == NOW - 3
    assert outcomes.fail(record(attempt=0), "x", started_at=1).due == NOW + 60 * SECOND


def test_the_stored_policy_counts() -> None:
    policy = RetryPolicy(delay=7, linear=1, factor=3)
    assert outcomes.fail(record(attempt=3, policy=policy), "x").due == NOW + 63 * SECOND


def test_a_policy_that_cannot_be_read_is_logged_once_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    broken = record()._replace(options='{"retry": {"delay": "x"}}')
    assert outcomes.fail(broken, "x").due == NOW + 60 * SECOND
    [logged] = caplog.records
    assert logged.levelname == "WARNING"
    assert logged.fields == {"task_id": 7, "queue": "q"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options", [None, '{"retry": {"of_a_newer_version": 1}}', '{"retry": {"delay": 60.0}}', '{"time_limit": "x"}']
)
def test_a_policy_that_can_be_read_is_not_logged(caplog: pytest.LogCaptureFixture, options: str | None) -> None:
    assert outcomes.fail(record()._replace(options=options), "x").due == NOW + 60 * SECOND
    assert caplog.records == []


def test_a_delay_beyond_the_year_9999_gives_the_last_moment() -> None:
    policy = RetryPolicy(delay=1e300, max_delay=1e300)
    assert outcomes.fail(record(policy=policy), "x").due == clock.LATEST


def test_release() -> None:
    assert outcomes.release(record()).due == NOW
    assert outcomes.release(record(), 2.5).due == NOW + 2_500_000
    assert outcomes.release(record(), None).due is None


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "1"])
def test_release_with_a_bad_delay(delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        outcomes.release(record(), delay)


def test_the_first_lost_attempt_is_due_immediately() -> None:
    assert outcomes.retry_time(record(attempt=4), 0, NOW) == NOW
    assert outcomes.retry_time(record(attempt=4), 1, NOW) == NOW + 240 * SECOND


def test_finish() -> None:
    end = outcomes.finish(record(), '"x"', NOW, started_at=5)
    assert (end.verb, end.result, end.started_at, end.at) == ("finish", '"x"', 5, NOW)


def test_describe() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert outcomes.describe("text") == "text"
    try:
        raise ValueError("why")
    except ValueError as error:
        text = outcomes.describe(error)
    assert text.startswith("Traceback")
    assert "ValueError: why" in text
    assert "Hostile" in outcomes.describe(Hostile())
    assert len(outcomes.describe("x" * 10**6)) < 70_000


def test_the_text_of_an_error_starts_at_the_users_code() -> None:
    def users_code(payload: object) -> None:
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good") as raised:
        Lookup(users_code, FoundFunctions({})).call(record()._replace(payload="1"))
    outermost = raised.value.with_traceback(raised.tb.tb_next)  # without the frame of this test
    text = outcomes.describe(outermost)
    assert text.splitlines()[1].endswith("in users_code")
    assert text.count('  File "') == 1

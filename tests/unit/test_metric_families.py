"""Metrics of a census: read back by the parsers of prometheus_client, with hostile names, and within their limits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dbtaskqueue._formats import buckets
from dbtaskqueue._store.contract import ScheduleRecord
from dbtaskqueue.metrics.census import OUTCOMES, Census, Ended, Pair, Running, label
from dbtaskqueue.metrics.exposition import OPENMETRICS, TEXT, Exposition, expose
from dbtaskqueue.metrics.families import MOST_SAMPLES, Chosen, Families, unavailable
from dbtaskqueue.monitoring.snapshot import QueueSnapshot
from dbtaskqueue.states import TaskState

OTHERS = ("(other)", "(other)")
HOSTILE = [
    'a"b',
    "a\\",
    "a\\nb",
    "a\nb",
    "a\rb",
    "a\x00b",
    "\x1b[31m",
    "{a=1}",
    "# EOF",
    "ü你",
    "\u202e",
    "x" * 300,
    "",
]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def ended(attempts: int, seconds: float = 1.5) -> Ended:
    """``attempts`` attempts that were done, each after ``seconds``, and had waited for as long."""
    counts = [0] * buckets.SIZE
    counts[buckets.index_of(round(seconds * 1e6))] = attempts
    return Ended((attempts, 0, 0, 0, 0, 0), round(attempts * seconds * 1e6), counts, counts)


def queue(name: str, pending: int = 1, *, paused: bool = False) -> QueueSnapshot:
    return QueueSnapshot(name, {**dict.fromkeys(TaskState, 0), TaskState.PENDING: pending}, 12.5, paused, 1)


def census(
    queues: Iterable[QueueSnapshot] = (),
    ended: Mapping[Pair, Ended] = {},
    running: Mapping[Pair, Running] = {},
    schedules: Iterable[ScheduleRecord] = (),
) -> Census:
    return Census(list(queues), dict(running), dict(ended), Counter(alive=2), 3, list(schedules))


def schedule(name: str, missed: int = 2) -> ScheduleRecord:
    times = {"cron": None, "every": 1, "timezone": "UTC", "overlap": "allow", "catch_up": "none"}
    return ScheduleRecord("q", name, "{}", **times, catch_up_window=0, jitter=0, last_at=5_000_000, missed=missed)  # type: ignore[arg-type]


def samples(families: Iterable[Metric]) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def read(exposition: Exposition) -> Samples:
    """Read both formats, which must say the same."""
    text = samples(parse_text(exposition.text.decode()))
    openmetrics = samples(parse_openmetrics(exposition.openmetrics.decode()))
    assert text == openmetrics
    return text


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"dbtaskqueue_{name}", tuple(sorted(labels.items()))))


def test_both_formats_have_every_family() -> None:
    found = read(
        expose(
            Families().of(
                census(
                    [queue("q", 7, paused=True)],
                    {("q", "f"): ended(5)},
                    {("q", "f"): Running(2, 90.0, 1, 1)},
                    [schedule("nightly")],
                )
            )
        )
    )
    of_function = {"queue": "q", "function": "f"}
    assert value(found, "up") == 1
    assert value(found, "tasks", queue="q", state="pending") == 7
    assert value(found, "tasks", queue="q", state="done") == 0
    assert value(found, "queue_oldest_due_age_seconds", queue="q") == 12.5
    assert value(found, "queue_paused", queue="q") == 1
    assert value(found, "blocked_tasks", queue="q") == 1
    assert value(found, "attempts_total", **of_function, outcome="done") == 5
    assert {outcome: value(found, "attempts_total", **of_function, outcome=outcome) for outcome in OUTCOMES} == {
        **dict.fromkeys(OUTCOMES, 0),
        "done": 5,
    }
    assert value(found, "attempt_duration_seconds_count", **of_function) == 5
    assert value(found, "attempt_duration_seconds_sum", **of_function) == 7.5
    assert value(found, "wait_seconds_count", queue="q") == 5
    assert value(found, "running_tasks", **of_function) == 2
    assert value(found, "running_longest_seconds", **of_function) == 90
    assert value(found, "overdue_tasks", **of_function) == 1
    assert value(found, "stalled_tasks", **of_function) == 1
    assert value(found, "workers", state="alive") == 2
    assert value(found, "workers", state="lost") == 0
    assert value(found, "workers_lost_total") == 3
    assert value(found, "schedule_last_tick_timestamp_seconds", queue="q", schedule="nightly") == 5
    assert value(found, "schedule_missed_total", queue="q", schedule="nightly") == 2
    assert any(name == "dbtaskqueue_build_info" for name, _ in found)


def test_an_unavailable_database_has_only_up_and_the_version() -> None:
    found = read(expose(unavailable()))
    assert value(found, "up") == 0
    assert {name for name, _ in found} == {"dbtaskqueue_up", "dbtaskqueue_build_info"}


@pytest.mark.parametrize("seconds", [0.0005, 1.0, 1.5, 3600.0, 29 * 86400.0, 400 * 86400.0])
def test_a_duration_counts_in_every_bucket_from_its_own_on(seconds: float) -> None:
    found = read(expose(Families().of(census(ended={("q", "f"): ended(1, seconds)}))))
    bounds = {
        float(dict(labels)["le"]): number
        for (name, labels), number in found.items()
        if name == "dbtaskqueue_attempt_duration_seconds_bucket"
    }
    assert max(bound for bound in bounds if bound < math.inf) >= 30 * 86400
    longest = max(bound for bound in bounds if bound < math.inf)
    assert bounds == {bound: float(bound >= min(seconds, longest)) for bound in bounds}


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_label(name: str) -> None:
    pair = label(name), label(name)
    found = read(expose(Families().of(census([queue(label(name))], {pair: ended(1)}, {pair: Running(1)}))))
    assert value(found, "tasks", queue=label(name), state="pending") == 1
    assert value(found, "attempts_total", queue=pair[0], function=pair[1], outcome="done") == 1
    assert len(label(name)) <= 200
    assert label(name).isprintable()


@settings(deadline=None, max_examples=30)
@given(st.text())
def test_any_name_is_one_label(name: str) -> None:
    found = read(expose(Families().of(census(ended={("q", label(name)): ended(1)}))))
    assert value(found, "attempts_total", queue="q", function=label(name), outcome="done") == 1


# -- limits ----------------------------------------------------------------------------------------


def total(found: Samples, name: str) -> float:
    return sum(number for (each, _), number in found.items() if each == f"dbtaskqueue_{name}")


@pytest.mark.parametrize(("queues", "functions"), [(1, 1), (20, 50), (3, 400), (300, 4), (1000, 1)])
def test_the_samples_are_limited_and_their_sums_are_complete(queues: int, functions: int) -> None:
    names = [f"queue-{number}" for number in range(queues)]
    pairs = {(name, f"app.module.function_{number}"): number + 1 for name in names for number in range(functions)}
    exposition = expose(
        Families().of(
            census(
                map(queue, names),
                {pair: ended(number) for pair, number in pairs.items()},
                {pair: Running(1, number) for pair, number in pairs.items()},
                [schedule(f"schedule {number}") for number in range(queues)],
            )
        )
    )
    found = read(exposition)
    assert len(found) <= MOST_SAMPLES == 2000
    assert len(exposition.text) <= 400 * 1024
    assert total(found, "tasks") == queues
    assert total(found, "attempts_total") == sum(pairs.values())
    assert total(found, "attempt_duration_seconds_count") == sum(pairs.values())
    assert total(found, "wait_seconds_count") == sum(pairs.values())
    assert total(found, "running_tasks") == len(pairs)
    assert total(found, "schedule_missed_total") == 2 * queues
    assert max(number for (name, _), number in found.items() if name == "dbtaskqueue_running_longest_seconds") == (
        functions
    )


def test_the_busiest_functions_come_first() -> None:
    pairs = {("q", f"f{number}"): ended(number + 1) for number in range(1000)}
    found = read(expose(Families().of(census([queue("q")], pairs))))
    shown = {
        int(dict(labels)["function"][1:])
        for name, labels in found
        if name == "dbtaskqueue_attempt_duration_seconds_count" and dict(labels)["function"] != "(other)"
    }
    assert len(shown) > 20
    assert shown == set(range(1000 - len(shown), 1000))
    assert value(found, "attempts_total", queue="(other)", function="(other)", outcome="done") == sum(
        range(1, 1001 - len(shown))
    )


def test_counters_never_fall_when_another_function_becomes_busy() -> None:
    families, numbers = Families(), {("q", f"f{number}"): number + 1 for number in range(100)}
    before: Samples = {}
    for step in range(1, 100, 7):
        numbers["q", f"f{step}"] += 1000 * step
        numbers["q", f"new{step}"] = 10_000
        running = {("q", f"f{number}"): Running(1) for number in range(step)}
        found = read(
            expose(families.of(census([queue("q")], {pair: ended(n) for pair, n in numbers.items()}, running)))
        )
        assert len(found) <= MOST_SAMPLES
        fallen = {
            key: (old, found.get(key))
            for key, old in before.items()
            if key[0].endswith(("_total", "_count", "_bucket", "_sum")) and found.get(key, 0) < old
        }
        assert fallen == {}
        before = found


def test_names_keep_their_places() -> None:
    chosen = Chosen[str]()
    assert chosen.of({"a": 1, "b": 2}, 2, float, "rest") == {"b": 2, "a": 1}
    assert chosen.of({"a": 1, "b": 2, "c": 9}, 2, float, "rest") == {"b": 2, "rest": 10}
    assert chosen.of({"a": 1, "b": 2, "c": 99}, 2, float, "rest") == {"b": 2, "rest": 100}
    assert Chosen[str]().of({"a": 1, "b": 2, "c": 99}, 2, float, "rest") == {"c": 99, "rest": 3}


# -- Accept ----------------------------------------------------------------------------------------

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html", TEXT),
        (PROMETHEUS, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text ; q=0.2", OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=x", TEXT),
        ("application/openmetrics-text;version=;;q=0.3, text/plain;q=0.9", TEXT),
        ("application/openmetrics-text;version=\x00", OPENMETRICS),
        (",;,;=", TEXT),
    ],
)
def test_the_format_follows_the_accept_header(accept: str, expected: str) -> None:
    exposition = expose(unavailable())
    body = exposition.openmetrics if expected == OPENMETRICS else exposition.text
    assert exposition.answer(accept) == (body, expected)

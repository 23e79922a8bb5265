"""dbtaskqueue enqueue."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cli.running import Cli, assert_explained, assert_wrong_usage

from dbtaskqueue import TaskQueue


def test_it_prints_the_id_alone(cli: Cli) -> None:
    assert cli("enqueue", '{"page": 7}') == (0, "1\n", "")
    assert cli("enqueue", "null", "--queue", "other") == (0, "2\n", "")
    with TaskQueue(cli.url) as queue:
        assert queue.get(1).payload == {"page": 7}
        assert queue.get(2).queue == "other"


def test_all_options(cli: Cli) -> None:
    before = datetime.now(UTC)
    cli("enqueue", "1", "--in", "2h", "--priority", -5, "--max-attempts", 3, "--key", "k")
    assert cli("enqueue", "2", "--key", "k").out == "1\n", "the key belongs to an unfinished task"
    with TaskQueue(cli.url) as queue:
        task = queue.get(1)
    assert (task.payload, task.priority, task.max_attempts, task.key) == (1, -5, 3, "k")
    assert timedelta(0) <= task.start_at - before - timedelta(hours=2) < timedelta(minutes=1)


def test_in_takes_plain_seconds_too(cli: Cli) -> None:
    for words in ("90", "90s", "1.5m"):
        cli("enqueue", "1", "--in", words)
    with TaskQueue(cli.url) as queue:
        delays = [task.start_at - task.created_at for task in queue.tasks()]
    assert delays == [timedelta(seconds=90)] * 3


def test_a_naive_time_is_local(cli: Cli) -> None:
    cli("enqueue", "1", "--at", "2030-01-31T12:00", env={"TZ": "XYZ-3"})
    cli("enqueue", "1", "--at", "2030-01-31T12:00+01:00", env={"TZ": "XYZ-3"})
    cli("enqueue", "1", "--at", "2030-01-31T12:00Z", env={"TZ": "XYZ-3"})
    with TaskQueue(cli.url) as queue:
        assert [queue.get(id).start_at.hour for id in (1, 2, 3)] == [9, 11, 12]


def test_a_payload_from_stdin(cli: Cli, queue: TaskQueue) -> None:
    large = ["x" * 500_000]
    assert cli("enqueue", "-", stdin=json.dumps(large)).out == "1\n"
    assert queue.get(1).payload == large


def test_a_payload_that_the_queue_refuses(cli: Cli, queue: TaskQueue) -> None:
    assert_explained(cli("enqueue", '{"a": ["\\ud800"]}'), "payload.a[0]: a lone surrogate")
    assert_explained(cli("enqueue", "-", stdin=json.dumps("x" * 2**20)), "exceed the limit")
    assert_explained(cli("enqueue", str(2**63)), "an integer beyond 64 bits")
    assert_explained(cli("enqueue", b'"\xff"'.decode("utf-8", "surrogateescape")), "a lone surrogate")
    assert queue.tasks() == []


def test_limits(cli: Cli, queue: TaskQueue) -> None:
    cli("enqueue", "1", "--time-limit", "1.5m", "--stall-limit", 30, "--memory-limit", "512M")
    task = queue.get(1)
    assert (task.time_limit, task.stall_limit, task.memory_limit) == (90, 30, 512 * 2**20)
    for id, (text, size) in enumerate({"1000": 1000, "2g": 2**31, "1.5GiB": 3 * 2**29, "7KB": 7168}.items(), 2):
        assert cli("enqueue", "1", "--memory-limit", text).code == 0
        assert queue.get(id).memory_limit == size


def test_a_command_line(cli: Cli, queue: TaskQueue) -> None:
    run = cli(
        "enqueue",
        "--command",
        "--cwd",
        "/srv",
        "--env",
        "A=1=2",
        "--env",
        "B=",
        "--key",
        "k",
        "--",
        "ls",
        "-l",
        "--",
        "ü x",
    )
    assert run == (0, "1\n", "")
    task = queue.get(1)
    assert task.is_command
    assert task.key == "k"
    assert task.payload == {"argv": ["ls", "-l", "--", "ü x"], "cwd": "/srv", "env": {"A": "1=2", "B": ""}}
    assert cli("enqueue", "--command", "true").out == "2\n"
    assert queue.get(2).payload == {"argv": ["true"], "cwd": None, "env": None}
    assert_explained(
        cli("enqueue", "--command", "--", "ls", b"\xff".decode("utf-8", "surrogateescape")), "a lone surrogate"
    )


# -- calls of task functions -----------------------------------------------------------------------


def test_a_call_of_a_task_function(cli: Cli) -> None:
    assert cli("enqueue", "--function", "app.thumbnail", '["a.png", 2]', "--kwargs", '{"crop": true}').code == 0
    assert cli("enqueue", "--function", "app.thumbnail", "--priority", 3).code == 0
    with TaskQueue(cli.url) as queue:
        first, second = queue.get(1), queue.get(2)
        assert (first.function, first.payload) == ("app.thumbnail", {"args": ["a.png", 2], "kwargs": {"crop": True}})
        assert (second.payload, second.priority) == ({"args": [], "kwargs": {}}, 3)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--function", "f", "{}"], "array"),
        (["--function", "f", "[]", "--kwargs", "[]"], "object"),
        (["--function", "f", "[]", "--kwargs", "{"], "--kwargs"),
        (["--function", "", "[]"], "name"),
        (["--function", "f", "--command", "--", "ls"], "not both"),
        (["1", "--kwargs", "{}"], "needs --function"),
    ],
    ids=str,
)
def test_a_bad_call_is_refused(cli: Cli, words: list[str], why: str) -> None:
    assert_wrong_usage(cli("enqueue", *words), why)

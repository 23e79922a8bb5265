"""dbtaskqueue logs: the output of an attempt, and following a running task."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.running import WITHIN, Cli, assert_explained, assert_wrong_usage
from helpers import until

from dbtaskqueue import RetryPolicy, TaskQueue
from dbtaskqueue._store.contract import OUTPUTS, Claim, End, Note, TaskRecord
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership

TASKS = """
import os, time
from dbtaskqueue import current_task

def run(payload):
    print("first \\x1b[31mred\\x1b[0m of attempt", current_task().attempt, flush=True)
    while not os.path.exists("go"):
        time.sleep(0.02)
    if payload == "flood":
        os.write(1, b"z" * 200_000)
    if payload == "fail" and current_task().attempt == 1:
        raise ValueError("no luck")
    print("last", end="")
"""


@pytest.fixture
def go(cli: Cli) -> Callable[[], None]:
    """A file that lets the waiting tasks continue."""
    Path(cli.directory, "tasks.py").write_text(TASKS)
    return Path(cli.directory, "go").touch


def start(queue: TaskQueue, worker: int, output: str | None) -> TaskRecord:
    """Start a task with this output, as a worker with processes does."""
    [record] = queue.store.exchange(worker, claim=Claim(["default"], 1, clock.now(), start=True)).claimed
    tell(queue, worker, record, output)
    return record


def tell(queue: TaskQueue, worker: int, record: TaskRecord, output: str | None) -> None:
    notes = [] if output is None else [Note(record.id, record.token, "output", output)]
    queue.store.exchange(worker, notes=notes)


@pytest.fixture
def worker(queue: TaskQueue) -> int:
    return Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor="process").join()


def read_until(process: subprocess.Popen[bytes], text: str) -> str:
    """Read the standard output until it contains the text; return it."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    shown = b""

    def has_come() -> bool:
        nonlocal shown
        shown += process.stdout.read() or b""  # type: ignore[union-attr]
        return text in shown.decode()

    until(has_come, what=f"{text!r} on stdout")
    os.set_blocking(process.stdout.fileno(), True)
    return shown.decode()


# -- a task that is not followed -------------------------------------------------------------------


def test_the_last_attempt_or_the_one_with_a_number(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1, retry=RetryPolicy(delay=0))
    for number in (1, 2):
        record = start(queue, worker, f"output {number}\n")
        queue.store.exchange(worker, ends=[End("fail", record.id, record.token, clock.now(), error="x")])
    assert cli("logs", task.id) == (0, "output 2\n", "")
    assert cli("logs", task.id, "--attempt", 1) == (0, "output 1\n", "")
    assert_explained(cli("logs", task.id, "--attempt", 3), f"task {task.id} has no attempt 3; it has had 2 attempts")
    assert_explained(cli("logs", "-f", task.id, "--attempt", 3), "has no attempt 3")
    assert_explained(cli("logs", 77), "there is no task 77")
    assert_wrong_usage(cli("logs", task.id, "--attempt", 0), "0 is not in the range")
    assert_wrong_usage(cli("logs", "x"), "not a valid integer")


def test_an_old_attempt_of_very_many(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1, retry=RetryPolicy(delay=0, max_attempts=None))
    for number in range(1, OUTPUTS + 3):
        record = start(queue, worker, f"output {number}\n")
        queue.store.exchange(worker, ends=[End("fail", record.id, record.token, clock.now(), error="x")])
    assert task.attempts()[1].output is None
    assert cli("logs", task.id, "--attempt", 2) == (0, "output 2\n", "")
    assert json.loads(cli("logs", task.id, "--attempt", 2, "--json").out)["output"] == "output 2\n"
    queue.cancel(task.id)
    assert cli("logs", "-f", task.id, "--attempt", 2).out.splitlines() == [
        f"output {number}" for number in range(2, OUTPUTS + 3)
    ]


def test_with_json_the_whole_attempt_is_printed(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1)
    assert cli("logs", task.id, "--json") == (0, "null\n", "")
    start(queue, worker, "a \x1b[31mred\n")
    run = cli("logs", task.id, "--json")
    assert (run.code, run.err) == (0, "")
    shown, [attempt] = json.loads(run.out), task.attempts()
    assert shown == {**attempt._asdict(), "started_at": attempt.started_at.isoformat()}
    assert shown["output"] == "a \x1b[31mred\n"
    assert "\x1b" not in run.out
    assert_wrong_usage(cli("logs", task.id, "--json", "--follow"), "exclude each other")


def test_a_task_without_output_is_noted_on_stderr(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1)
    assert cli("logs", task.id) == (0, "", f"task {task.id} has not started\n")
    start(queue, worker, None)
    assert cli("logs", task.id) == (0, "", f"task {task.id} has no stored output\n")


def test_control_characters_in_output_are_escaped(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1)
    start(queue, worker, "10 %\r100 %\r\n\tred \x1b[31m:smile: [bold]x[/]\x07 \u202egnp \x9b31m")
    expected = "10 %\n100 %\n\tred \\x1b[31m:smile: [bold]x[/]\\x07 \\u202egnp \\x9b31m\n"
    assert cli("logs", task.id).out == expected
    assert cli.on_terminal("logs", task.id).out.expandtabs() == expected.expandtabs()


# -- following -------------------------------------------------------------------------------------


def test_a_running_task_is_followed_to_its_end(cli: Cli, queue: TaskQueue, go: Callable[[], None]) -> None:
    task = queue.enqueue("calm")
    with cli.started("worker", "tasks:run", "--executor", "process"), cli.started("logs", "-f", task.id) as logs:
        first = read_until(logs, "of attempt 1\n")
        assert task.refresh().state == "running"
        go()
        rest, errors = logs.communicate(timeout=WITHIN)
    assert first + rest.decode() == "first \\x1b[31mred\\x1b[0m of attempt 1\nlast\n"
    assert errors.decode().splitlines()[-1] == f"task {task.id} is done"
    assert logs.returncode == 0


def test_later_attempts_are_followed_too(cli: Cli, queue: TaskQueue, go: Callable[[], None]) -> None:
    task = queue.enqueue("fail", retry=RetryPolicy(delay=0))
    with cli.started("worker", "tasks:run", "--executor", "process"), cli.started("logs", "-f", task.id) as logs:
        first = read_until(logs, "of attempt 1\n")
        go()
        rest, errors = logs.communicate(timeout=WITHIN)
    said = errors.decode().splitlines()
    assert re.fullmatch(r"attempt 2 started on worker \d+; the previous one: failed", said[-2])
    assert said[-1] == f"task {task.id} is done"
    shown = (first + rest.decode()).splitlines()
    assert shown == [f"first \\x1b[31mred\\x1b[0m of attempt {number}" for number in (1, 2)] + ["last"]


def test_the_attempt_after_a_rescue_is_followed_too(cli: Cli, queue: TaskQueue, go: Callable[[], None]) -> None:
    task = queue.enqueue("calm")
    words = ("worker", "tasks:run", "--executor", "process")
    with cli.started(*words) as worker, cli.started("logs", "-f", task.id) as logs:
        shown = read_until(logs, "of attempt 1\n")
        worker.kill()
        with cli.started(*words):
            shown += read_until(logs, "of attempt 2\n")
            go()
            rest, errors = logs.communicate(timeout=WITHIN)
    said = errors.decode().splitlines()
    assert re.fullmatch(r"attempt 2 started on worker \d+; the previous one: lost", said[-2])
    assert said[-1] == f"task {task.id} is done"
    assert (shown + rest.decode()).splitlines()[-1] == "last"


def test_too_much_output_is_cut_and_the_gap_is_marked(cli: Cli, queue: TaskQueue, go: Callable[[], None]) -> None:
    task = queue.enqueue("flood")
    with cli.started("worker", "tasks:run", "--executor", "process"), cli.started("logs", "-f", task.id) as logs:
        shown = read_until(logs, "of attempt 1\n")
        go()
        shown += logs.communicate(timeout=WITHIN)[0].decode()
    left_out = re.findall(r"\n\[… (\d+) bytes left out …\]\n", shown)
    assert shown.count("first") == shown.count("last") == 1
    assert shown.count("z") + sum(map(int, left_out)) == 200_000
    assert left_out


def test_a_final_task_is_not_followed(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1)
    record = start(queue, worker, "all")
    queue.store.exchange(worker, ends=[End("finish", record.id, record.token, clock.now())])
    assert cli("logs", "--follow", task.id) == (0, "all\n", f"task {task.id} is done\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_following(cli: Cli, queue: TaskQueue, worker: int, number: signal.Signals) -> None:
    task = queue.enqueue(1)
    start(queue, worker, "so far")
    with cli.started("logs", "-f", task.id) as logs:
        shown = read_until(logs, "so far")
        logs.send_signal(number)
        rest, errors = logs.communicate(timeout=WITHIN)
    assert errors == b""
    if number == signal.SIGINT:
        assert (shown + rest.decode(), logs.returncode) == ("so far\n", 130)
    assert queue.get(task.id).state == "running"


def test_a_database_that_is_unavailable_for_a_while(cli: Cli, queue: TaskQueue, worker: int) -> None:
    task = queue.enqueue(1)
    record = start(queue, worker, "before\n")
    file, elsewhere = Path(cli.directory, "taskqueue.sqlite"), Path(cli.directory, "elsewhere")
    with cli.started("logs", "-f", task.id) as logs:
        shown = read_until(logs, "before\n")
        file.rename(elsewhere)
        assert logs.stderr is not None
        assert b"database unavailable, retrying: " in logs.stderr.readline()
        elsewhere.rename(file)
        assert logs.stderr.readline() == b"database available again\n"
        tell(queue, worker, record, "before\nafter\n")
        shown += read_until(logs, "after\n")
    assert shown == "before\nafter\n"

"""dbtaskqueue list, show, stats, workers: tables, JSON, terminals, and data that is up to no good."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli.running import Cli
from helpers import until

from dbtaskqueue import FunctionStats, QueueStats, RetryPolicy, Task, TaskQueue, Worker
from dbtaskqueue._store.contract import Claim, End, Note, TaskRecord
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership
from dbtaskqueue.cli.output import styled as harmless_cell

ATTRIBUTES = {name for name in vars(Task) if isinstance(vars(Task)[name], property)}
EVIL = ":smile: [bold red]x[/] \x1b[31mred\x1b[0m \x07 \u202egnp \x9b31m \r\n"


@pytest.fixture
def busy(queue: TaskQueue) -> TaskQueue:
    """A queue with a task in each state that can be had without a crash, and long payloads."""
    queue.enqueue_many([{"url": "http://example.com/" + "x" * 300, "n": n} for n in range(20)])
    queue.enqueue("ü你好" * 100, priority=-1)
    done, failed, abandoned, released = queue.fetch(4)
    for task in (done, failed, abandoned):
        task.start()
    done.finish({"status": "OK"})
    failed.fail(ValueError("the other side does not answer"))
    abandoned.fail("hopeless " * 20, retry=False)
    released.release()
    queue.cancel(7)
    return queue


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


# -- list ------------------------------------------------------------------------------------------


def test_list_shows_the_newest_first(cli: Cli, busy: TaskQueue) -> None:
    lines = cli("list").out.splitlines()
    assert lines[0].split() == ["id", "state", "attempt", "due", "payload"]
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(21, 0, -1))
    assert re.fullmatch(r'20 +pending +0/10 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\{"url": "http://exam.*…', lines[2])


def test_list_picks_state_limit_and_queue(cli: Cli, busy: TaskQueue) -> None:
    assert [task["id"] for task in cli("list", "--json", "--limit", 2).json] == [21, 20]
    assert [task["id"] for task in cli("list", "--json", "--state", "failed").json] == [2]
    with TaskQueue(cli.url, "other") as other:
        other.enqueue(1)
    assert [task["id"] for task in cli("list", "--json", "--queue", "other").json] == [22]


def test_an_empty_list_says_so_beside_the_output(cli: Cli, queue: TaskQueue) -> None:
    assert cli("list") == (0, "", "queue default has no tasks\n")
    assert cli("list", "--state", "done") == (0, "", "queue default has no done tasks\n")
    assert cli("workers") == (0, "", "no workers\n")


def test_the_json_of_a_list_has_the_attributes_of_the_tasks(cli: Cli, busy: TaskQueue) -> None:
    tasks = {task["id"]: task for task in cli("list", "--json").json}
    assert all(set(task) == ATTRIBUTES for task in tasks.values())
    done, known = tasks[1], busy.get(1)
    assert (done["state"], done["result"], done["attempt"], done["error"]) == ("done", {"status": "OK"}, 1, None)
    assert datetime.fromisoformat(done["finished_at"]) == known.finished_at
    assert datetime.fromisoformat(done["created_at"]).tzinfo == UTC
    assert "the other side does not answer" in tasks[2]["error"]


@pytest.mark.parametrize("columns", [80, 66, 132])
def test_tables_fit_the_terminal(cli: Cli, busy: TaskQueue, columns: int) -> None:
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_worker SET host = ?", ["h" * 100])
    for words in (("list",), ("workers",), ("show", 3), ("stats",)):
        shown = cli.on_terminal(*words, columns=columns, env={"NO_COLOR": "1"})
        assert shown.code == 0
        assert widest(shown.out) <= columns, words


def test_tables_fit_80_columns_on_a_pipe(cli: Cli, busy: TaskQueue) -> None:
    for words in (("list",), ("workers",), ("stats",)):
        assert widest(cli(*words).out) <= 80, words
    assert all(not line.endswith(" ") for line in cli("list").out.splitlines())


def test_colours_only_on_a_terminal(cli: Cli, busy: TaskQueue) -> None:
    for words in (("list",), ("workers",), ("show", 3), ("stats",), ("doctor",)):
        assert "\x1b" not in cli(*words, env={"FORCE_COLOR": "1"}).out, words
        assert "\x1b" in cli.on_terminal(*words).out, words
        assert "\x1b" not in cli.on_terminal(*words, env={"NO_COLOR": "1"}).out, words
        assert "\x1b" not in cli.on_terminal(*words, env={"TERM": "dumb"}).out, words
        plain = re.sub(r"\x1b\[[\d;]*m", "", cli.on_terminal(*words).out)
        assert plain.split()[:2] == cli(*words).out.split()[:2], words
    assert "\x1b" not in cli.on_terminal("list", "--json").out


def test_data_is_neither_obeyed_by_the_terminal_nor_by_rich(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue({"a": EVIL, EVIL: 1})
    task = queue.fetch()[0]
    task.start()
    task.fail(EVIL, retry=False)
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_task SET function = ?, key = ?", [EVIL, EVIL])
        connection.execute("UPDATE dbtaskqueue_worker SET host = ?", [EVIL])
    for words in (("list",), ("show", 1), ("workers",), ("list", "--json"), ("show", 1, "--json"), ("doctor",)):
        for run in (cli(*words), cli.on_terminal(*words, columns=300, env={"NO_COLOR": "1"})):
            assert run.code == 0
            assert not set("\x1b\x07\u202e\x9b\r") & set(run.out), words
            if words != ("doctor",):
                assert ":smile: [bold red]x" in run.out, words  # a long pid takes room from what comes last


def test_of_a_large_payload_only_what_fits_is_looked_at() -> None:
    """Escaping a hundred payloads of 1 MiB for a table that shows 40 characters of each took seconds."""
    assert len(harmless_cell("\x01" * 2**20)) < 2500


# -- show ------------------------------------------------------------------------------------------


def test_show_tells_everything(cli: Cli, busy: TaskQueue) -> None:
    shown = cli("show", 2).out
    assert re.search(r"^state +failed$", shown, re.MULTILINE)
    assert "x" * 300 in shown, "nothing is cut"
    assert re.search(r"^error +ValueError: the other side does not answer$", shown, re.MULTILINE)
    assert re.search(r"^1 +\d+ +\S+ \S+ +\d\.\d s +failed +ValueError: the other sid…$", shown, re.MULTILINE)


def test_show_in_json(cli: Cli, busy: TaskQueue) -> None:
    task = cli("show", 2, "--json").json
    assert set(task) == ATTRIBUTES | {"attempts", "runs_on", "usage"}
    assert (task["runs_on"], task["usage"]) == (None, None)
    assert [(one["number"], one["outcome"]) for one in task["attempts"]] == [(1, "failed")]


def test_a_task_of_any_queue_is_shown(cli: Cli, queue: TaskQueue) -> None:
    with TaskQueue(cli.url, "other") as other:
        other.enqueue(1)
    assert cli("show", 1, "--json").json["queue"] == "other"


def test_a_damaged_row_does_not_hide_the_others(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2])
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_task SET payload = '{bad' WHERE id = 1")
    assert "(the payload cannot be read)" in cli("list").out
    assert "(the payload cannot be read)" in cli("show", 1).out
    assert [task["payload"] for task in cli("list", "--json").json] == [2, None]


def test_numbers_without_sense_do_not_hide_the_others(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2])
    held = queue.fetch(2)
    assert all(task.start() for task in held)
    columns = (
        "due",
        "created_at",
        "started_at",
        "finished_at",
        "budget",
        "retry_base",
        "rank",
        "worker",
        "cancel_requested",
    )
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        for column in columns:
            connection.execute(f"UPDATE dbtaskqueue_task SET {column} = ? WHERE id = 1", [2**63 - 1])
            connection.execute(f"UPDATE dbtaskqueue_task SET {column} = ? WHERE id = 2", [-(2**63)])
        connection.execute("UPDATE dbtaskqueue_worker SET created_at = ?, pid = ?, started = ?", [2**63 - 1] * 3)
    for words in (("list",), ("show", 1), ("show", 2), ("stats",), ("workers",), ("doctor",)):
        for more in ((), ("--json",)):
            run = cli(*words, *more)
            assert (run.code, run.err) == (0, ""), (words, run)
    assert [task["id"] for task in cli("list", "--json").json] == [2, 1]


def test_a_task_at_the_end_of_all_days(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1, start_at=datetime.max.replace(tzinfo=UTC))
    for words in (("list",), ("show", 1), ("list", "--json")):
        assert "9999-12-31" in cli(*words, env={"TZ": "XYZ-14"}).out


@pytest.mark.parametrize(
    "error",
    [
        "dbtaskqueue.errors.LimitExceeded: it took too long\n\nits threads at that moment:\n  File x, line 1, in f",
        "Traceback (most recent call last):\n  File x, line 1\nLimitExceeded: it took too long",
    ],
)
def test_show_tells_why_each_attempt_ended(cli: Cli, queue: TaskQueue, error: str) -> None:
    queue.enqueue(1)
    [task] = queue.fetch()
    task.start()
    task.fail(error)
    row = cli("show", 1).out.splitlines()[-1]
    assert re.search(r"failed +LimitExceeded: it", row)


# -- what runs in processes ------------------------------------------------------------------------


@pytest.fixture
def long(queue: TaskQueue) -> TaskRecord:
    """A command that a process worker runs, its second attempt, which stands still."""
    queue.enqueue_command(
        ["ffmpeg", "-i", "a film"], time_limit=90, stall_limit=5, memory_limit=3 * 2**29, retry=RetryPolicy(delay=0)
    )
    member = Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor="process")
    worker = member.join()
    output = "".join(f"line {number}\x1b[31m\r" for number in range(30))
    for number in (1, 2):
        claim = Claim(["default"], 1, clock.now(), start=True, commands=True)
        [record] = queue.store.exchange(worker, claim=claim).claimed
        notes = [Note(record.id, record.token, "output", f"attempt\t{number}\n{output}")]
        ends = [End("fail", record.id, record.token, clock.now(), error="x", cpu=2_500_000, memory=2**30)]
        queue.store.exchange(worker, notes=notes, ends=ends if number == 1 else [])
    queue.suspend(record.id)
    return record


def test_a_suspended_task_is_shown_as_one(cli: Cli, long: TaskRecord) -> None:
    listed = cli("list").out
    assert "running (suspended)" in listed
    assert "ffmpeg -i 'a film'" in listed
    assert widest(listed) <= 80
    assert cli("list", "--json").json[0]["suspended"] is True
    assert re.search(r"^state +running, suspended$", cli("show", long.id).out, re.MULTILINE)


def test_show_tells_limits_output_and_what_it_took(cli: Cli, long: TaskRecord) -> None:
    for run in (cli("show", long.id), cli.on_terminal("show", long.id, env={"NO_COLOR": "1"})):
        assert re.search(r"^limits +90 s, 5 s without progress, 1\.5 GiB of memory$", run.out, re.MULTILINE)
        assert re.search(r"^command +ffmpeg -i 'a film'$", run.out, re.MULTILINE)
        assert "\nattempt 1 used 2.5 s of CPU, at most 1.0 GiB of memory\n" in run.out
        last = "".join(f"  line {number}\\x1b[31m\n" for number in range(20, 30))
        for number in (1, 2):
            assert f"\noutput of attempt {number}, last 10 of 31 lines:\n{last}" in run.out
        assert "line 19" not in run.out
        assert "\x1b" not in run.out
    first, second = cli("show", long.id, "--json").json["attempts"]
    assert (first["cpu_seconds"], first["peak_memory"]) == (2.5, 2**30)
    assert (second["cpu_seconds"], second["output"][:10]) == (None, "attempt\t2\n")


def test_show_tells_how_far_it_is_what_it_uses_and_where_it_runs(cli: Cli, queue: TaskQueue, long: TaskRecord) -> None:
    told = {
        "progress": json.dumps([45, 60, "page 45 \x1b[31m", 90.4]),
        "usage": f'{{"memory": {2**29}, "cpu": 12.5, "processes": 3}}',
    }
    [worker] = queue.store.workers()
    queue.store.exchange(worker.id, notes=[Note(long.id, long.token, name, value) for name, value in told.items()])
    place = f"pid {worker.pid} on {worker.host}"
    for run in (cli("show", long.id), cli.on_terminal("show", long.id, env={"NO_COLOR": "1"})):
        assert re.search(rf"^worker +{worker.id} \(alive, process, {place}\)$", run.out, re.MULTILINE)
        assert re.search(r"^progress +45 of 60, 75 %, 1m30s left, page 45 \\x1b\[31m$", run.out, re.MULTILINE)
        assert re.search(r"^uses +512\.0 MiB of memory, 12\.5 s of CPU so far, 3 processes$", run.out, re.MULTILINE)
        assert re.search(r"^started +\S+ \S+ \(\d+s ago\)$", run.out, re.MULTILINE)
        assert widest(run.out) <= 80
    shown = cli("show", long.id, "--json").json
    progress = {"done": 45, "total": 60, "message": "page 45 \x1b[31m", "eta": 90.4}
    assert shown["progress"] == progress
    assert cli("list", "--json").json[0]["progress"] == progress
    assert shown["usage"] == {"memory": 2**29, "cpu": 12.5, "processes": 3}
    assert (shown["runs_on"]["pid"], shown["runs_on"]["state"]) == (worker.pid, "alive")
    queue.store.exchange(worker.id, ends=[End("finish", long.id, long.token, clock.now())])
    queue.store.deregister(worker.id)
    assert re.search(rf"^worker +{worker.id} \(has left\)$", cli("show", long.id).out, re.MULTILINE)
    assert cli("show", long.id, "--json").json["runs_on"] is None


def test_show_has_the_stack_of_a_crash_once(cli: Cli, queue: TaskQueue) -> None:
    crash = "import ctypes\ndef run(payload):\n    print('started')\n    ctypes.string_at(0)\n"
    Path(cli.directory, "crash.py").write_text(crash)
    queue.enqueue(1, max_attempts=1)
    assert cli("worker", "crash:run", "--burst").code == 0
    shown = cli("show", 1).out
    assert "the child process was killed by SIGSEGV" in shown
    stack = [line.strip() for line in shown.splitlines() if line.strip().startswith("File ")]
    assert len(stack) == len(set(stack)) > 3
    assert re.search(r"^output of attempt 1: \d+ lines, which end as shown in the error$", shown, re.MULTILINE)
    assert cli("show", 1, "--json").json["attempts"][0]["output"].startswith("started\n")


def test_what_nobody_can_read_is_not_shown(cli: Cli, queue: TaskQueue, long: TaskRecord) -> None:
    [worker] = queue.store.workers()
    notes = [Note(long.id, long.token, name, "[[{") for name in ("progress", "usage")]
    queue.store.exchange(worker.id, notes=notes)
    run = cli("show", long.id)
    assert (run.code, run.err) == (0, "")
    assert not re.search("^(progress|uses) ", run.out, re.MULTILINE)
    assert cli("show", long.id, "--json").json["usage"] is None


def test_workers_tells_how_they_run_tasks(cli: Cli, long: TaskRecord) -> None:
    assert cli("workers", "--json").json[0]["executor"] == "process"
    assert re.search(r" 1 task +process +\S+$", cli("workers").out, re.MULTILINE)
    assert widest(cli("workers").out) <= 80


def test_stats_of_functions(cli: Cli, queue: TaskQueue) -> None:
    assert cli("stats", "--functions") == (0, "", "queue default has no finished attempts\n")
    assert cli("stats", "--functions", "--json").json == []

    @queue.task(name="f" * 100 + ":smile: [bold red]x[/]")
    def function(fails: bool) -> None:
        assert not fails

    for fails in (False, True, False):
        function.enqueue(fails)
    queue.enqueue(1, max_attempts=1)
    Worker(queue).run(lambda payload: None, burst=True)
    found = cli("stats", "--functions", "--json").json
    assert [(each["function"], each["count"], each["failures"]) for each in found] == [
        ("(callback)", 1, 0),
        (function.name, 3, 1),
    ]
    assert set(found[0]) == set(FunctionStats._fields)
    for run in (cli("stats", "--functions"), cli.on_terminal("stats", "--functions", env={"NO_COLOR": "1"})):
        assert re.fullmatch(
            r"attempts +failures +p50 +p95 +cpu p50 +memory +function", run.out.splitlines()[0].rstrip()
        )
        assert re.search(r"^3 +1 +\d+\.\d ms +\d+\.\d ms +fff", run.out, re.MULTILINE)
        assert widest(run.out) <= 80
        assert "\x1b" not in run.out


# -- stats and workers -----------------------------------------------------------------------------


def test_stats(cli: Cli, busy: TaskQueue) -> None:
    found = cli("stats", "--json").json
    assert set(found) == set(QueueStats._fields)
    expected = {"pending": 17, "failed": 1, "done": 1, "cancelled": 1, "abandoned": 1, "paused": False}
    assert {name: found[name] for name in expected} == expected
    assert 0 <= found["oldest_due"] < 60
    assert re.search(r"^pending +17$", cli("stats").out, re.MULTILINE)


def test_workers_tells_the_living_from_the_dead(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    held = queue.fetch()
    Path(cli.directory, "tasks.py").write_text("import time\ndef run(payload): time.sleep(60)\n")
    queue.enqueue(2)
    with cli.started("worker", "tasks:run") as process:
        until(lambda: queue.get(2).state == "running", what="the task runs")
        living = {worker["pid"]: worker for worker in cli("workers", "--json").json}
        assert (living[process.pid]["state"], living[process.pid]["holds"]) == ("alive", 1)
        # a worker that does not look is not rescued by this process
        process.send_signal(signal.SIGKILL)
        process.wait()
        dead = {worker["pid"]: worker for worker in cli("workers", "--json").json}[process.pid]
    assert dead["state"] == "lost"
    assert datetime.fromisoformat(dead["created_at"]).tzinfo == UTC
    assert re.search(
        rf"^\d+ +{process.pid} +lost +\S+ \S+ +\d tasks? +(?:process +)?\S+$", cli("workers").out, re.MULTILINE
    )
    held[0].release()


def test_a_worker_elsewhere_is_marked(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    held = queue.fetch()
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_worker SET boot = 'another machine', host = 'elsewhere.example'")
    assert "alive (elsewhere)" in cli("workers").out
    assert cli("workers", "--json").json[0]["elsewhere"] is True
    held[0].release()


def test_a_worker_that_left_is_not_shown(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    Worker(queue).run(lambda payload: None, burst=True)
    assert cli("workers", "--json").json == []

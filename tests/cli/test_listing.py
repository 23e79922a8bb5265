"""dbtaskqueue list, stats, queues and workers: tables, JSON, terminals, and hostile data."""

from __future__ import annotations

import re
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli.running import Cli, widest
from helpers import until

from dbtaskqueue import FunctionStats, QueueInfo, QueueStats, Task, TaskQueue, Worker
from dbtaskqueue._store.contract import TaskRecord
from dbtaskqueue._worker.membership import Membership
from dbtaskqueue.cli.output import styled

ATTRIBUTES = {name for name in vars(Task) if isinstance(vars(Task)[name], property)} - {"deduplicated"}
EVIL = ":smile: [bold red]x[/] \x1b[31mred\x1b[0m \x07 \u202egnp \x9b31m \r\n"


# -- list ------------------------------------------------------------------------------------------


def test_list_shows_the_newest_first(cli: Cli, busy: TaskQueue) -> None:
    lines = cli("list").out.splitlines()
    assert lines[0].split() == ["id", "state", "attempt", "due", "payload"]
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(21, 0, -1))
    assert re.fullmatch(r'20 +pending +0/10 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\{"url": "http://exam.*…', lines[2])


def test_list_filters_by_state_limit_and_queue(cli: Cli, busy: TaskQueue) -> None:
    assert [task["id"] for task in cli("list", "--json", "--limit", 2).json] == [21, 20]
    assert [task["id"] for task in cli("list", "--json", "--state", "failed").json] == [2]
    with TaskQueue(cli.url, "other") as other:
        other.enqueue(1)
    assert [task["id"] for task in cli("list", "--json", "--queue", "other").json] == [22]


def test_an_empty_list_is_noted_on_stderr(cli: Cli, queue: TaskQueue) -> None:
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


# -- how lists are printed -------------------------------------------------------------------------


def test_a_damaged_row_does_not_hide_the_others(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2])
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_task SET payload = '{bad' WHERE id = 1")
    assert "(the payload cannot be read)" in cli("list").out
    assert "(the payload cannot be read)" in cli("show", 1).out
    assert [task["payload"] for task in cli("list", "--json").json] == [2, None]


def test_absurd_numbers_do_not_hide_the_other_tasks(cli: Cli, queue: TaskQueue) -> None:
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
    for words in (("list",), ("show", 1), ("show", 2), ("stats",), ("workers",), ("queues",), ("doctor",)):
        for more in ((), ("--json",)):
            run = cli(*words, *more)
            assert (run.code, run.err) == (0, ""), (words, run)
    assert [task["id"] for task in cli("list", "--json").json] == [2, 1]


def test_a_task_due_in_the_year_9999(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1, start_at=datetime.max.replace(tzinfo=UTC))
    for words in (("list",), ("show", 1), ("list", "--json")):
        assert "9999-12-31" in cli(*words, env={"TZ": "XYZ-14"}).out


@pytest.mark.parametrize("columns", [80, 66, 132])
def test_tables_fit_the_terminal(cli: Cli, busy: TaskQueue, columns: int) -> None:
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_worker SET host = ?", ["h" * 100])
    for words in (("list",), ("workers",), ("queues",), ("show", 3), ("stats",)):
        shown = cli.on_terminal(*words, columns=columns, env={"NO_COLOR": "1"})
        assert shown.code == 0
        assert widest(shown.out) <= columns, words


def test_tables_fit_80_columns_on_a_pipe(cli: Cli, busy: TaskQueue) -> None:
    for words in (("list",), ("workers",), ("queues",), ("stats",)):
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


def test_control_characters_and_markup_in_data_have_no_effect(cli: Cli, queue: TaskQueue) -> None:
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
                assert ":smile: [bold red]x" in run.out, words  # a long pid leaves less space for the last column


def test_only_the_start_of_a_large_payload_is_escaped() -> None:
    """Escaping a hundred payloads of 1 MiB for a table that shows 40 characters of each took seconds."""
    assert len(styled("\x01" * 2**20)) < 2500


# -- stats and queues ------------------------------------------------------------------------------


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


def test_stats(cli: Cli, busy: TaskQueue) -> None:
    found = cli("stats", "--json").json
    assert set(found) == set(QueueStats._fields)
    expected = {"pending": 17, "failed": 1, "done": 1, "cancelled": 1, "abandoned": 1, "paused": False}
    assert {name: found[name] for name in expected} == expected
    assert 0 <= found["oldest_due"] < 60
    assert re.search(r"^pending +17$", cli("stats").out, re.MULTILINE)


def test_queues(cli: Cli, busy: TaskQueue) -> None:
    with TaskQueue(cli.url, "mail") as mail:
        mail.pause()
        found = mail.queues()
    assert [queue["name"] for queue in cli("queues", "--json").json] == ["default", "mail"]
    assert set(cli("queues", "--json").json[0]) == set(QueueInfo._fields)
    lines = cli("queues").out.splitlines()
    assert lines[0].split() == ["pending", "running", "failed", "done", "abandoned", "waits", "workers", "queue"]
    assert re.fullmatch(r" +17 +0 +1 +1 +1 +\d+s +0  default", lines[1])
    assert re.fullmatch(r" +0 +0 +0 +0 +0 +0  \(paused\) mail", lines[2])
    assert (found[0].cancelled, found[1].paused) == (1, True)
    wide = cli.on_terminal("queues", columns=120, env={"NO_COLOR": "1"}).out.splitlines()
    assert wide[0].split()[:7] == ["pending", "reserved", "running", "failed", "done", "cancelled", "abandoned"]


def test_queues_of_an_empty_database(cli: Cli, queue: TaskQueue) -> None:
    assert cli("queues") == (0, "", "no queues\n")
    assert cli("queues", "--json").json == []


def test_queues_counts_the_workers_that_serve_each(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    with TaskQueue(cli.url, "mail") as mail:
        mail.enqueue(2, start_in=3600)
    member = Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor="thread", queues=["mail"])
    member.join()
    assert {each["name"]: each["workers"] for each in cli("queues", "--json").json} == {"default": 0, "mail": 1}
    member.leave()


# -- workers ---------------------------------------------------------------------------------------


def test_workers_prints_the_executor(cli: Cli, long: TaskRecord) -> None:
    assert cli("workers", "--json").json[0]["executor"] == "process"
    assert re.search(r" 1 task +process +\S+$", cli("workers").out, re.MULTILINE)
    assert widest(cli("workers").out) <= 80


def test_workers_distinguishes_live_and_lost_workers(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    held = queue.fetch()
    Path(cli.directory, "tasks.py").write_text("import time\ndef run(payload): time.sleep(60)\n")
    queue.enqueue(2)
    with cli.started("worker", "tasks:run") as process:
        until(lambda: queue.get(2).state == "running", what="the task runs")
        listed = {worker["pid"]: worker for worker in cli("workers", "--json").json}
        assert (listed[process.pid]["state"], listed[process.pid]["holds"]) == ("alive", 1)
        # a stopped worker of the same place is not rescued
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


def test_a_worker_that_has_left_is_not_shown(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    Worker(queue).run(lambda payload: None, burst=True)
    assert cli("workers", "--json").json == []

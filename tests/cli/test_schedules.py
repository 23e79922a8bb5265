"""dbtaskqueue schedules and its subcommands, and what doctor says about schedules."""

from __future__ import annotations

import re
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli.running import Cli, assert_explained

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._maintenance.ticker import Ticker
from dbtaskqueue._system import clock

WEEK = 7 * 86400
APP = """
from dbtaskqueue import TaskQueue
queue = TaskQueue(open=False, queue="mail")

@queue.lane("other").periodic(every=3600, name="refresh")
@queue.periodic(cron="30 6 * * 1-5", timezone="Europe/Berlin", name="report")
def work() -> None: ...

plain = 7
"""


def change(cli: Cli, statement: str, *values: object) -> None:
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute(statement, values)


def make_due(cli: Cli, queue: TaskQueue, *, weeks: int = 1) -> None:
    """Make ticks that were due, up to now."""
    change(cli, "UPDATE dbtaskqueue_schedule SET next_at = next_at - ?", weeks * WEEK * 1_000_000)
    Ticker(queue.store, queue.events).tick()


def test_add_list_and_remove(cli: Cli, queue: TaskQueue) -> None:
    run = cli("schedules", "add", "clean", "--every", "7d", '{"a": 1}')
    assert re.fullmatch(r"schedule clean of queue default: next at \d{4}-\d\d-\d\d 00:00:00\n", run.out)
    words = ("--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--overlap", "replace", "--catch-up", "all")
    run = cli("schedules", "add", "backup", *words, "--queue", "cron", "--command", "--", "pg_dump", "-f", "db.sql")
    assert run.code == 0, run.err
    clean, backup = sorted(cli("schedules", "--json").json, key=lambda found: -len(found["queue"]))
    assert (clean["name"], clean["every"], clean["cron"], clean["timezone"]) == ("clean", WEEK, None, "UTC")
    assert [backup[name] for name in ("cron", "timezone", "overlap", "catch_up", "paused", "last_task")] == [
        *("0 3 * * *", "Europe/Berlin", "replace", "all", False, None)
    ]
    assert list(clean) == [
        *("name", "queue", "cron", "every", "timezone", "overlap", "catch_up", "paused", "next_at", "last_at"),
        *("last_task", "skipped", "missed", "declared"),
    ]
    lines = cli("schedules").out.splitlines()
    assert lines[0].split() == ["next", "last", "task", "skipped", "missed", "name"]
    assert [line.split()[-1] for line in lines[1:]] == ["cron/backup", "default/clean"]
    assert [found["name"] for found in cli("schedules", "--queue", "cron", "--json").json] == ["backup"]
    assert cli("schedules", "remove", "clean").out == "schedule clean is removed\n"
    assert cli("--queue", "cron", "schedules", "remove", "backup").code == 0
    empty = cli("schedules")
    assert (empty.code, empty.out, empty.err) == (0, "", "no schedules\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s", "1"), "give either --cron or --every"),
        (("s", "1", "--every", "5", "--cron", "@daily"), "give either --cron or --every"),
        (("s", "--every", "5"), "Missing argument 'PAYLOAD'"),
        (("s", "{", "--every", "5"), "not JSON"),
        (("s", "1", "2", "--every", "5"), "PAYLOAD must be one argument"),
        (("s", "--every", "5", "--command"), "--command needs a command line"),
        (("s", "1", "--every", "0.5"), "every must be at least 1 second"),
        (("s", "1", "--cron", "0 0 31 2 *"), "it can never fire"),
        (("s", "1", "--cron", "@daily", "--timezone", "Mars/Olympus"), "tzdata"),
        (("s", "1", "--every", "5", "--overlap", "never"), "'never' is not one of"),
        (("", "1", "--every", "5"), "a schedule's name must be"),
    ],
)
def test_wrong_usage_of_add(cli: Cli, queue: TaskQueue, words: tuple[str, ...], message: str) -> None:
    run = cli("schedules", "add", *words)
    assert run.code == 2
    assert message in run.err
    assert run.err.count("Error:") == 1
    assert queue.schedules() == []


@pytest.mark.parametrize("command", ["remove", "pause", "resume", "run", "history"])
def test_an_unknown_name_is_one_line(cli: Cli, queue: TaskQueue, command: str) -> None:
    run = cli("schedules", command, "nix")
    assert (run.code, run.out, run.err) == (1, "", "Error: queue default has no schedule 'nix'\n")


def test_a_name_that_was_mistyped_or_is_in_another_queue(cli: Cli, queue: TaskQueue) -> None:
    queue.schedule("report", 1, every=WEEK)
    queue.lane("other").schedule("crawl", 1, every=WEEK)
    queue.lane("other").schedule("reports", 1, every=WEEK)
    assert_explained(
        cli("schedules", "resume", "reprt"), "queue default has no schedule 'reprt'. Did you mean 'report'?"
    )
    assert_explained(cli("schedules", "run", "crawl"), "queue default has no schedule 'crawl', but queue other has one")


def test_pause_run_and_resume(cli: Cli, queue: TaskQueue) -> None:
    queue.schedule("s", {"a": 1}, every=WEEK)
    assert cli("schedules", "pause", "s").out == "schedule s is paused\n"
    assert cli("schedules").out.splitlines()[1].startswith("paused ")
    run = cli("schedules", "run", "s")
    assert queue.get(int(run.out)).payload == {"a": 1}
    assert cli("schedules", "history", "s").err == "schedule s has had no ticks in the last 30 days\n"
    assert cli("schedules", "resume", "s").out.startswith("schedule s is resumed: next at ")
    assert not queue.schedules()[0].paused


def test_a_queue_may_be_named_before_the_subcommand(cli: Cli, queue: TaskQueue) -> None:
    for lane in (queue, queue.lane("mail")):
        lane.schedule("s", 1, every=WEEK)
    assert cli("schedules", "--queue", "mail", "pause", "s").code == 0
    assert [lane.schedules()[0].paused for lane in (queue, queue.lane("mail"))] == [False, True]
    run = cli("schedules", "--json", "history", "s")
    assert run.code == 2
    assert "schedules history --json" in run.err


def test_history(cli: Cli, queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    make_due(cli, queue, weeks=3)
    [task] = queue.tasks()
    change(cli, "UPDATE dbtaskqueue_tick SET at = at - 1000000")
    make_due(cli, queue)
    found = cli("schedules", "history", "s", "--json").json
    assert [(tick["outcome"], tick["task"], tick["missed"]) for tick in found] == [
        *[("skipped", task.id, 0), ("ran", task.id, 0), ("missed", None, 2)]
    ]
    assert list(found[0]) == ["at", "outcome", "task", "missed"]
    assert datetime.fromisoformat(found[0]["at"]).utcoffset() == timedelta(0)
    assert len(cli("schedules", "history", "s", "--json", "--limit", 1).json) == 1
    lines = [line.split(maxsplit=2)[2] for line in cli("schedules", "history", "s").out.splitlines()[1:]]
    assert [line.split() for line in lines] == [["skipped", "1"], ["ran", "1"], ["missed", "2", "ticks"]]


def test_next_needs_no_database(cli: Cli) -> None:
    run = cli("schedules", "next", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", 400)
    words, *times = run.out.splitlines()
    assert words == "At 02:30 every day"
    moments = [datetime.fromisoformat(time) for time in times]
    assert len(moments) == 400
    assert moments == sorted(moments)
    assert {moment.utcoffset() for moment in moments} == {timedelta(hours=1), timedelta(hours=2)}
    assert run.err.count("clocks in Europe/Berlin go ") == 2
    assert len(cli("schedules", "next", "@hourly").out.splitlines()) == 11
    assert not Path(cli.directory, "taskqueue.sqlite").exists()


@pytest.mark.parametrize("words", [("61 * * * *",), ("@reboot",), ("* * * * *", "--timezone", "Mars/Olympus")])
def test_next_explains_an_invalid_expression(cli: Cli, words: tuple[str, ...]) -> None:
    run = cli("schedules", "next", *words)
    assert (run.code, run.out, run.err.count("Error: ")) == (2, "", 1)


def test_sync_stores_what_a_module_declares(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scheduled_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    run = cli("schedules", "sync", "scheduled_app:queue")
    assert (run.code, run.out) == (0, "2 schedules stored: report, refresh\n"), run.err
    assert [(found["queue"], found["name"]) for found in cli("schedules", "--json").json] == [
        *[("mail", "report"), ("other", "refresh")]
    ]
    for target in ("scheduled_app:plain", "scheduled_app:nix", "nix:queue"):
        run = cli("schedules", "sync", target)
        assert run.code == 1
        assert_explained(run)


def test_hostile_names_do_not_reach_the_terminal(cli: Cli, queue: TaskQueue) -> None:
    name = "a\x1b[31mb"
    queue.schedule(name, 1, every=WEEK)
    for words in (("schedules",), ("schedules", "pause", name), ("schedules", "history", name)):
        run = cli(*words)
        assert "\x1b" not in run.out + run.err
        assert run.code == 0


# -- doctor ----------------------------------------------------------------------------------------


def findings(cli: Cli) -> dict[str, Any]:
    return {finding["name"]: finding for finding in cli("doctor", "--json").json["findings"]}


def test_doctor_reports_late_schedules(cli: Cli, queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    assert "late schedules" not in findings(cli)
    change(cli, "UPDATE dbtaskqueue_schedule SET next_at = ?", clock.now() - 3_700_000_000)
    late = findings(cli)["late schedules"]
    assert re.fullmatch(r"1 schedule due for up to .*: s", late["value"])
    assert "worker MODULE:NAME" in late["advice"]
    change(cli, "UPDATE dbtaskqueue_schedule SET paused = 1")
    assert "late schedules" not in findings(cli)


def test_doctor_reports_ticks_that_were_missed_within_a_day(cli: Cli, queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=60)
    change(cli, "UPDATE dbtaskqueue_schedule SET next_at = next_at - 300000000")
    Ticker(queue.store, queue.events).tick()
    missed = findings(cli)["missed ticks"]
    assert re.fullmatch(r"\d ticks of schedule s of queue default within a day", missed["value"])
    assert "schedules history s" in missed["advice"]
    change(cli, "UPDATE dbtaskqueue_tick SET at = at - 90000000000")
    assert "missed ticks" not in findings(cli)


def test_doctor_reports_schedules_that_no_worker_declares(cli: Cli, queue: TaskQueue) -> None:
    @queue.periodic(every=WEEK, name="s")
    def work() -> None: ...

    queue.schedule("by hand", 1, every=WEEK)
    queue.store_declarations()
    assert "undeclared schedule" not in findings(cli)
    days = 31 * 86_400_000_000
    change(cli, "UPDATE dbtaskqueue_schedule SET declared_at = declared_at - ?", days)
    assert (
        findings(cli)["undeclared schedule"]["value"] == "schedule s of queue default has not been declared for 30 days"
    )
    assert "schedules remove s" in findings(cli)["undeclared schedule"]["advice"]
    queue.fetch(timeout=0)  # a worker that has run for longer may have declared it
    change(cli, "UPDATE dbtaskqueue_worker SET created_at = created_at - ?", days)
    assert "undeclared schedule" not in findings(cli)
    change(cli, "UPDATE dbtaskqueue_worker SET created_at = created_at + ?", days)
    assert "undeclared schedule" in findings(cli)
    Worker(queue).run(burst=True)
    assert "undeclared schedule" not in findings(cli)

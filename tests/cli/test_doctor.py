"""dbtaskqueue doctor."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.running import Cli, assert_explained
from helpers import until

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._store.sqlite import health
from dbtaskqueue._store.sqlite.store import SqliteStore
from dbtaskqueue._system import clock
from dbtaskqueue.cli.options import command_line

VERSION = SqliteStore.schema_version


def database(cli: Cli) -> Path:
    return Path(cli.directory, "taskqueue.sqlite")


def change(cli: Cli, statement: str) -> None:
    with sqlite3.connect(database(cli)) as connection:
        connection.execute(statement)


def findings(cli: Cli, *words: str) -> dict[str, Any]:
    found = cli("doctor", "--json", *words).json
    return {finding["name"]: finding for finding in found["findings"]}


def test_doctor_on_a_good_file(cli: Cli, queue: TaskQueue) -> None:
    run = cli("doctor")
    assert (run.code, run.err) == (0, "")
    names = [line.split("  ")[0] for line in run.out.partition("\n\n")[0].splitlines()]
    assert names == [
        *("schema", "engine", "version", "file", "size", "journal mode", "durability"),
        *("workers", "queues", "oldest due"),
    ]
    assert re.search(r"^journal mode +wal$", run.out, re.MULTILINE)
    assert re.search(r"^workers +0 alive, 0 lost$", run.out, re.MULTILINE)
    assert re.search(r"^oldest due +nothing is due$", run.out, re.MULTILINE)
    assert "synchronous=FULL" in run.out


def test_doctor_requires_no_action_where_none_is_needed(cli: Cli, queue: TaskQueue) -> None:
    """An old SQLite, as in Debian 12 and 13, is only mentioned."""
    version = findings(cli)["version"]
    if sqlite3.sqlite_version_info < (3, 44):
        assert version["value"] == f"{sqlite3.sqlite_version} (with the rare WAL-reset bug, fixed in 3.51.3)"
    assert (version["advice"], version["broken"]) == (None, False)
    run = cli("doctor")
    assert (run.code, run.err) == (0, "")
    assert run.out.endswith("\n\nNo action required.\n")


def test_doctor_in_json(cli: Cli, queue: TaskQueue) -> None:
    found = cli("doctor", "--json").json
    assert set(found) == {"broken", "findings"}
    assert found["broken"] is False
    assert all(set(finding) == {"name", "value", "advice", "broken"} for finding in found["findings"])


def test_doctor_prints_waiting_and_abandoned_tasks(cli: Cli) -> None:
    with TaskQueue(cli.url, "mail") as queue:
        queue.enqueue_many([1, 2])
        queue.purge()
        queue.enqueue(3)
        command = f"dbtaskqueue --url {cli.url}"
        found = findings(cli, "--queue", "mail")
        waited = r"a task of queue mail has waited \d+\.\d s; no worker is alive"
        assert re.fullmatch(waited, found["oldest due"]["value"])
        assert found["oldest due"]["advice"] == f"{command} worker --queue mail MODULE:NAME"
        assert found["abandoned"]["value"] == "2 tasks of queue mail"
        assert found["abandoned"]["advice"] == f"{command} list --queue mail --state abandoned"

        held = queue.fetch()
        found = findings(cli, "--queue", "mail")
        assert found["workers"]["value"] == "1 alive, 0 lost"
        assert found["oldest due"]["value"] == "nothing is due"
        held[0].release()


def test_doctor_names_tasks_that_run_much_longer_than_usual(cli: Cli, queue: TaskQueue) -> None:
    @queue.task(name="often")
    def often() -> None: ...

    @queue.task(name="seldom")
    def seldom() -> None: ...

    for function, times in ((often, 5), (seldom, 4)):
        for _ in range(times):
            function.enqueue()
    Worker(queue).run(burst=True)
    change(cli, "UPDATE dbtaskqueue_task SET started_at = finished_at - 2000000")
    for function in (often, seldom):
        function.enqueue()
    queue.enqueue("of no function")
    held = queue.fetch(3)
    assert all(task.start() for task in held)
    assert "slow" not in findings(cli)
    change(cli, "UPDATE dbtaskqueue_task SET started_at = started_at - 60000000 WHERE state = 'running'")
    found = findings(cli)["slow"]
    said = rf"task {held[0].id} has run for 6\d\.\d s; 95 % of often took at most 2\.0 s"
    assert re.fullmatch(said, found["value"])
    assert found["advice"] == f"dbtaskqueue --url {cli.url} show {held[0].id}"
    assert [each["name"] for each in cli("doctor", "--json").json["findings"]].count("slow") == 1
    assert cli("doctor").code == 0
    with TaskQueue(cli.url, "other") as other:
        other.enqueue(1)
    assert "slow" not in findings(cli, "--queue", "other")
    change(cli, "UPDATE dbtaskqueue_task SET suspended = token WHERE state = 'running'")
    assert "slow" not in findings(cli)
    for task in held:
        task.finish()


def test_doctor_names_a_paused_queue_and_its_fix_works(cli: Cli, queue: TaskQueue) -> None:
    queue.pause()
    advice = findings(cli)["paused"]["advice"]
    assert advice == f"dbtaskqueue --url {cli.url} resume"
    assert cli("doctor").code == 0
    cli(*advice.split()[3:])
    assert "paused" not in findings(cli)


def test_doctor_covers_all_queues_unless_one_is_given(
    cli: Cli, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue_many([1, 2])
    queue.purge()
    with TaskQueue(cli.url, "mail") as mail, TaskQueue(cli.url, "web") as web, TaskQueue(cli.url, "quiet") as quiet:
        an_hour_ago = clock.now() - 3600 * 1_000_000
        with monkeypatch.context() as earlier:
            earlier.setattr(clock, "source", lambda: an_hour_ago)
            mail.enqueue(1)
        mail.pause()
        web.enqueue(2)
        web.purge()
        web.enqueue(3)
        quiet.pause()
    run = cli("doctor", "--json")
    command = f"dbtaskqueue --url {cli.url}"
    found = [(one["name"], one["value"], one["advice"]) for one in run.json["findings"]]
    assert [one for one in found if one[0] in ("queues", "paused", "abandoned")] == [
        ("queues", "default, mail, quiet, web", None),
        ("paused", "queue mail", f"{command} resume --queue mail"),
        ("paused", "queue quiet", f"{command} resume --queue quiet"),
        ("abandoned", "2 tasks of queue default", f"{command} list --state abandoned"),
        (
            "abandoned",
            "1 task of queue web",
            f"{command} list --queue web --state abandoned",
        ),
    ]
    [(_, oldest, advice)] = [one for one in found if one[0] == "oldest due"]
    assert re.fullmatch(r"a task of queue mail has waited 36\d\d\.\d s; no worker is alive", oldest)
    assert advice == f"{command} worker --queue mail MODULE:NAME"
    for chosen in (
        cli("doctor", "--json", "--queue", "web"),
        cli("doctor", "--json", env={"DBTASKQUEUE_QUEUE": "web"}),
    ):
        values = {one["name"]: one["value"] for one in chosen.json["findings"]}
        assert values["queues"] == "web"
        assert values["oldest due"].startswith("a task of queue web ")
        assert "paused" not in values


def test_doctor_names_functions_that_no_live_worker_knows(cli: Cli, queue: TaskQueue) -> None:
    Path(cli.directory, "app.py").write_text(APP)
    queue.submit([{"args": [], "kwargs": {}}] * 2, {}, "app.missing")
    queue.submit([{"args": [], "kwargs": {}}], {"start_in": 3600}, "app.later")
    queue.submit([{"args": [], "kwargs": {}}], {}, "app.known")
    queue.enqueue("plain")
    queue.enqueue_command(["true"])
    assert "function" not in findings(cli), "without a worker there is another finding"
    with cli.started("worker", "app:queue", "--executor", "thread"):
        until(lambda: queue.stats().done == 1, what="the known one is done")
        until(lambda: all(queue.get(id).start_at > queue.get(id).created_at for id in (1, 2, 5)), what="releases")
        assert cli("doctor").code == 0
        found = [one for one in cli("doctor", "--json").json["findings"] if one["name"] == "function"]
        command = f"dbtaskqueue --url {cli.url} worker MODULE:NAME"
        assert {one["advice"] for one in found} == {f"start a worker with the code for it: {command}"}
        assert [one["value"] for one in found] == [
            "1 task waits without a function, and no live worker of the queue default has a callback",
            "app.missing: 2 tasks wait, and no live worker of the queue default knows it; the live workers know:"
            " app.known",
        ]
        with TaskQueue(cli.url, queue="other") as other:
            other.enqueue()
        assert "function" not in findings(cli, "--queue", "other")
        place = "host, pid, boot, namespace, started, lease, created_at"
        change(cli, f"INSERT INTO dbtaskqueue_worker ({place}) SELECT {place} FROM dbtaskqueue_worker")
        assert "function" not in findings(cli), "a worker that does not say what it knows may know it"


APP = """
from dbtaskqueue import TaskQueue
queue = TaskQueue()

@queue.task(name="app.known")
def known(): pass
"""


def test_doctor_does_not_list_a_thousand_queues(cli: Cli, queue: TaskQueue) -> None:
    for number in range(30):
        with TaskQueue(cli.url, f"q{number:02}") as lane:
            lane.enqueue(1)
    assert findings(cli)["queues"]["value"] == "q00, q01, q02, q03, q04, q05, q06, q07, q08, q09 and 20 more"


ODD = "it's $(touch evil) a;b.sqlite"


def test_a_suggested_command_works_in_a_shell_whatever_the_file_name(cli: Cli) -> None:
    cli.url = f"sqlite:///{cli.directory}/{ODD}"
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    with contextlib.closing(sqlite3.connect(Path(cli.directory, ODD))) as connection:
        connection.execute("CREATE TABLE t (x)")
    command = cli("stats").err.partition("create it with: ")[2]
    run = cli.run(["sh", "-c", command], env={"PATH": path})
    assert (run.code, run.out) == (0, f"schema: none before, version {VERSION} now\n")
    assert Path(cli.directory, ODD).exists()
    with TaskQueue(cli.url) as queue:
        queue.pause()
    assert cli.run(["sh", "-c", findings(cli)["paused"]["advice"]], env={"PATH": path}).code == 0
    assert "paused" not in findings(cli)
    assert not Path(cli.directory, "evil").exists()


def test_suggested_fixes_quote_the_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / ODD)
    monkeypatch.setattr(health, "not_writable", lambda path: [path])
    monkeypatch.setattr(health, "_LARGE_LOG", -1)
    monkeypatch.setattr(health, "_pragma", lambda connection, statement: "broken")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        found = {finding.name: finding.advice for finding in health.findings(path, "FULL", connection)}
    for name in ("journal mode", "rights", "log", "integrity"):
        assert path in shlex.split(found[name] or ""), name


def test_no_suggested_command_shows_a_password() -> None:
    shown = command_line("postgresql://me:secret@host/db", "resume")
    assert shown == "dbtaskqueue --url 'postgresql://me:***@host/db' resume"


def test_doctor_on_a_missing_file(cli: Cli) -> None:
    assert_explained(cli("doctor"), "does not exist", "or name another database with --url or $DBTASKQUEUE_URL")
    run = cli("doctor", "--json")
    assert_explained(run, "does not exist")
    assert run.json["broken"] is True
    assert run.json["findings"][0]["broken"] is True
    assert not database(cli).exists()


def test_doctor_on_a_file_that_is_not_a_database(cli: Cli) -> None:
    database(cli).write_bytes(b"a text, and a long one at that\n" * 200)
    assert_explained(cli("doctor"), "not a SQLite database, or a damaged one")


def test_doctor_on_a_file_of_another_program(cli: Cli) -> None:
    change(cli, "CREATE TABLE customer (name TEXT)")
    assert_explained(cli("doctor"), "has no dbtaskqueue schema", "migrate")


def test_doctor_on_a_damaged_file(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(["x" * 200] * 2000)
    queue.close()
    change(cli, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(database(cli).read_bytes())
    middle = len(content) // 4096 // 2 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    database(cli).write_bytes(content)
    run = cli("doctor")
    assert run.code == 1
    assert "Traceback" not in run.err
    assert run.err.startswith("Error: ")
    assert run.err.count("\n") == 1


def test_damage_that_only_doctor_finds(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("x" * 1000)
    queue.close()
    change(cli, "PRAGMA wal_checkpoint(TRUNCATE)")
    with sqlite3.connect(database(cli)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'dbtaskqueue_large'").fetchone()[0]
    content = bytearray(database(cli).read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    database(cli).write_bytes(content)
    assert cli("stats").code == 0
    run = cli("doctor", "--json")
    assert_explained(run, "must be repaired: integrity")
    assert run.json["broken"] is True
    integrity = next(finding for finding in run.json["findings"] if finding["broken"])
    assert (integrity["name"], ".recover" in integrity["advice"]) == ("integrity", True)


def test_doctor_fits_the_terminal(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    table, _, advice = cli.on_terminal("doctor", env={"NO_COLOR": "1"}).out.partition("\n\n")
    assert max(len(line) for line in table.splitlines()) <= 80
    assert f"dbtaskqueue --url {cli.url} worker MODULE:NAME\n" in advice, "a command can be copied in one piece"

"""dbtaskqueue audit, and that each operator's command leaves a row."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from cli.running import Cli, assert_wrong_usage
from cli.test_operating import finish_all
from engines import execute

from dbtaskqueue import Actor, TaskQueue

EVIL = "\x1b[31mred\x1b[0m [bold]x[/]"
KEYS = ["id", "at", "who", "via", "verb", "queue", "task", "detail", "count", "outcome"]


def rows(cli: Cli, *words: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("audit", "--json", *words).json
    return found


def test_actions_are_listed_newest_first_and_selected(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(2))
    queue.cancel(1)
    assert cli("audit") == (0, "", "no actions\n")
    queue.cancel(2, actor="alice")
    queue.pause(actor="bob")
    queue.retry(2, actor=Actor("alice", "dashboard"))
    everything = rows(cli)
    assert list(everything[0]) == KEYS
    assert [(row["who"], row["via"], row["verb"]) for row in everything] == [
        ("alice", "dashboard", "retry"),
        ("bob", "python", "pause"),
        ("alice", "python", "cancel"),
    ]
    assert rows(cli, "--limit", 1) == everything[:1]
    assert rows(cli, "--before", everything[0]["id"]) == everything[1:]
    assert (
        rows(cli, "--who", "bob") == rows(cli, "--verb", "pause") == rows(cli, "--queue", "default") == [everything[1]]
    )
    assert rows(cli, "--task", 2) == [everything[0], everything[2]]
    assert rows(cli, "--who", "carol") == []
    assert_wrong_usage(cli("audit", "--limit", 0), "--limit")


def test_the_queue_of_the_environment_hides_no_actions(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    cli("cancel", 1)
    assert len(cli("audit", "--json", env={"DBTASKQUEUE_QUEUE": "default"}).json) == 1


def test_a_table_escapes_hostile_text(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    queue.cancel(1, actor=EVIL)
    cli("cancel", "--where", f"payload:{EVIL}", "--yes")
    out = cli("audit").out
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out
    assert "\x1b" not in cli("audit", "--json").out


def test_commands_log_who_ran_them(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    cli("cancel", 1, env={"LOGNAME": "alice"})
    [row] = rows(cli)
    assert row["who"] == f"alice@{socket.gethostname()}"
    assert (row["via"], row["verb"], row["task"], row["count"], row["outcome"]) == ("cli", "cancel", 1, 1, "done")
    cli("cancel", 1, env={"LOGNAME": "a" * 1000})
    assert len(rows(cli)[0]["who"]) == 255


def test_refusals_are_logged(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    assert cli("retry", 1).code == cli("delete", 1).code == cli("retry", 9).code == cli("suspend", 1).code == 1
    found = [(row["verb"], row["task"], row["count"], row["outcome"]) for row in reversed(rows(cli))]
    assert found == [
        ("retry", 1, 0, "it is pending"),
        ("delete", 1, 0, "it is pending"),
        ("retry", 9, 0, "it does not exist"),
        ("suspend", 1, 0, "it is pending"),
    ]


COMMANDS = {
    "cancel": ("cancel", 1),
    "cancel --tree": ("cancel", 1, "--tree"),
    "cancel --where": ("cancel", "--where", "state:pending", "--yes"),
    "retry": ("retry", 2),
    "retry --where": ("retry", "--where", "state:done", "--yes"),
    "reschedule": ("reschedule", 1, "--in", "5m"),
    "delete": ("delete", 2),
    "delete --where": ("delete", "--where", "id:2", "--yes"),
    "pause": ("pause",),
    "resume": ("resume",),
    "purge": ("purge", "--yes"),
    "prune": ("prune", "0s", "--yes"),
    "schedule": ("schedules", "add", "t", "--every", "1h"),
    "pause a schedule": ("schedules", "pause", "s"),
    "resume a schedule": ("schedules", "resume", "s"),
    "run": ("schedules", "run", "s"),
    "unschedule": ("schedules", "remove", "s"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_each_command_leaves_one_row(cli: Cli, queue: TaskQueue, case: str) -> None:
    queue.enqueue_many(range(2))
    [_, second] = queue.fetch(2)
    second.start()
    second.finish()
    queue.get(1)._store.cancel(1, 1)
    queue.retry(1)
    queue.schedule("s", {"secret": "canary"}, every=3600)
    words = COMMANDS[case]
    payload = ("null",) if words[1:2] == ("add",) else ()
    run = cli(*words, *payload)
    assert run.code == 0, run
    [row] = rows(cli)
    assert row["verb"] == case.split()[0]
    assert (row["via"], row["count"], row["outcome"]) == ("cli", 1, "done")
    assert "canary" not in str(row)
    if words[0] == "schedules":
        assert row["queue"] == "default"
        assert row["detail"] == {"schedule": words[2]}


def test_suspend_and_continue_leave_a_row(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    [held] = queue.fetch()
    held.start()
    execute(cli.url, "UPDATE dbtaskqueue_worker SET executor = 'process'")
    cli("suspend", 1)
    cli("continue", 1)
    assert [(row["verb"], row["task"], row["outcome"]) for row in rows(cli)] == [
        ("continue", 1, "done"),
        ("suspend", 1, "done"),
    ]
    held.finish()


def test_each_cancelled_parent_has_its_row(cli: Cli, queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    cli("cancel", child.id, "--tree")
    assert [(row["verb"], row["task"]) for row in rows(cli)] == [("cancel", parent.id), ("cancel", child.id)]
    finish_all(queue)

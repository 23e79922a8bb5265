"""dbtaskqueue retry, cancel, suspend, continue, pause, resume, purge and prune, and their questions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cli.running import Cli, assert_explained, assert_wrong_usage

from dbtaskqueue import TaskQueue


def test_retry(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    queue.cancel(task.id)
    assert cli("retry", 1) == (0, "task 1 is pending\n", "")
    assert task.refresh().state == "pending"
    assert_explained(cli("retry", 1), "retry: task 1 is pending")


def test_cancel(cli: Cli, queue: TaskQueue) -> None:
    running, pending = queue.enqueue_many([1, 2])
    held = queue.fetch()[0]
    held.start()
    assert cli("cancel", pending.id).out == "task 2 is cancelled\n"
    assert cli("cancel", running.id).out == "task 1: cancellation requested\n"
    assert running.refresh().cancel_requested
    held.finish()
    assert_explained(cli("cancel", running.id), "cancel: task 1 is done")


def test_a_cancellation_is_requested_only_until_the_task_ends(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    held = queue.fetch()[0]
    held.start()
    cli("cancel", task.id)
    assert "running, cancellation requested\n" in cli("show", task.id).out
    held.finish()
    assert "cancellation requested" not in cli("show", task.id).out


def test_suspend_and_continue(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    held = queue.fetch()[0]
    assert_explained(cli("suspend", 1), "suspend: task 1 is reserved; only a running task can be suspended")
    held.start()
    assert_explained(cli("suspend", 1), "suspend: task 1 was fetched by a program")
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_worker SET executor = 'process'")
    assert cli("suspend", 1) == (0, "task 1 will be suspended\n", "")
    assert task.refresh().suspended
    assert cli("continue", 1) == (0, "task 1 will continue\n", "")
    assert not task.refresh().suspended
    held.finish()
    assert_explained(cli("continue", 1), "continue: task 1 is done")


def test_pause_and_resume(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    assert cli("pause") == (0, "queue default is paused\n", "")
    assert queue.stats().paused
    assert queue.fetch(timeout=0) == []
    with TaskQueue(cli.url, "other") as other:
        assert not other.stats().paused
    assert cli("resume").out == "queue default is resumed\n"
    assert not queue.stats().paused


def test_purge(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    with TaskQueue(cli.url, "other") as other:
        other.enqueue(1)
    assert cli("purge", "--queue", "other", "--yes").out == "1 task abandoned\n"
    assert cli("purge", "--yes").out == "3 tasks abandoned\n"
    assert queue.stats().abandoned == 3


def finish_all(queue: TaskQueue) -> None:
    while tasks := queue.fetch(10, timeout=0):
        for task in tasks:
            with task:
                pass


def test_prune(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    queue.enqueue(4, start_in=60)
    finish_all(queue)
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_task SET finished_at = finished_at - 86400000000 WHERE id = 1")
    assert cli("prune", "2d", "--yes").out == "0 tasks deleted\n"
    assert cli("prune", "12h", "--yes").out == "1 task deleted\n"
    assert cli("prune", "0s", "--state", "cancelled", "--yes").out == "0 tasks deleted\n"
    assert cli("prune", "0s", "--yes").out == "2 tasks deleted\n"
    assert [task.id for task in queue.tasks()] == [4]


def test_prune_of_abandoned_tasks(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    queue.purge()
    assert cli("prune", "0s", "--yes").out == "0 tasks deleted\n"
    assert cli("prune", "0s", "--state", "abandoned", "--yes").out == "1 task deleted\n"


@pytest.mark.parametrize("command", [("purge",), ("prune", "0s")], ids=lambda words: words[0])
def test_destructive_commands_ask_on_a_terminal(cli: Cli, queue: TaskQueue, command: tuple[str, ...]) -> None:
    queue.enqueue_many(range(3))
    if command[0] == "prune":
        finish_all(queue)
    before = queue.stats()

    refused = cli.on_terminal(*command, answer="n")
    assert refused.code == 1
    assert "[y/N]: n" in refused.out
    assert refused.out.endswith("Aborted!\n")
    assert queue.stats()[:7] == before[:7]

    accepted = cli.on_terminal(*command, answer="y")
    assert accepted.code == 0
    assert "queue default" in accepted.out
    assert "3 tasks" in accepted.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "steps"),
    [(("purge",), ["1000/2500", "2000/2500"]), (("prune", "0s", "--state", "abandoned"), ["1000/?", "2000/?"])],
    ids=["purge", "prune"],
)
def test_long_commands_show_their_progress(
    cli: Cli, queue: TaskQueue, command: tuple[str, ...], steps: list[str]
) -> None:
    queue.enqueue_many(range(2500))
    if command[0] == "prune":
        queue.purge()
    shown = cli.on_terminal(*command, "--yes", env={"NO_COLOR": "1"}).out
    places = [shown.find(step) for step in steps]
    assert -1 not in places, shown
    assert places == sorted(places)
    assert shown.splitlines()[-1].endswith("2500 tasks abandoned" if command[0] == "purge" else "2500 tasks deleted")
    assert "/" not in cli(*command, "--yes").err, "on a pipe nothing moves"


def test_the_question_has_the_number_of_tasks(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    assert "Abandon 3 unfinished tasks of queue default?" in cli.on_terminal("purge", answer="n").out


@pytest.mark.parametrize("command", [("purge",), ("prune", "0s")], ids=lambda words: words[0])
def test_yes_skips_the_question(cli: Cli, queue: TaskQueue, command: tuple[str, ...]) -> None:
    run = cli.on_terminal(*command, "--yes")
    assert run.code == 0
    assert "[y/N]" not in run.out


@pytest.mark.parametrize("command", [("purge",), ("prune", "0s")], ids=lambda words: words[0])
def test_purge_and_prune_need_yes_if_stdin_is_not_a_terminal(
    cli: Cli, queue: TaskQueue, command: tuple[str, ...]
) -> None:
    queue.enqueue_many(range(3))
    if command[0] == "prune":
        finish_all(queue)
    before = queue.stats()
    for redirection in ("< /dev/null", "<&-"):
        run = cli.run(["sh", "-c", f'exec "$@" {redirection}', "sh", *cli.line(*command)])
        assert_wrong_usage(run, f"stdin is not a terminal; confirm {command[0]} with --yes")
    assert queue.stats()[:7] == before[:7]
    variable = f"DBTASKQUEUE_{command[0].upper()}_YES"
    assert "3 tasks" in cli(*command, env={variable: "1"}).out

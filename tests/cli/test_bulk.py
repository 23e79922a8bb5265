"""dbtaskqueue retry, cancel, reschedule and delete: one task, or all that match."""

from __future__ import annotations

import re

import pytest
from cli.running import Cli, assert_explained, assert_wrong_usage
from cli.test_operating import finish_all
from helpers import until

from dbtaskqueue import TaskQueue

COMMANDS = ["retry", "cancel", "delete", "reschedule"]
EVIL = "\x1b[31mred\x1b[0m [bold]x[/]"


def options(command: str) -> list[str]:
    return ["--priority", "5"] if command == "reschedule" else []


def states(queue: TaskQueue) -> list[str]:
    return [str(task.state) for task in reversed(queue.tasks())]


def test_reschedule_one(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    code, out, err = cli("reschedule", 1, "--at", "2031-01-01T12:00", "--priority", 7, "--to-queue", "other")
    assert (code, out, err) == (0, "task 1 of queue other is pending, due 2031-01-01 12:00:00\n", "")
    task = queue.get(1)
    assert (task.queue, task.priority) == ("other", 7)
    assert cli("reschedule", 1, "--in", "5m").code == 0
    assert_explained(cli("reschedule", 2, "--in", "5m"), "there is no task 2")


def test_reschedule_needs_a_change(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    assert_wrong_usage(cli("reschedule", 1), "--in", "--priority", "--to-queue")
    assert_wrong_usage(cli("reschedule", 1, "--in", "5m", "--at", "2031-01-01T12:00"), "exclude")
    assert_wrong_usage(cli("reschedule", 1, "--priority", 40000), "--priority")
    assert_wrong_usage(cli("reschedule", 1, "--to-queue", ""), "--to-queue")


def test_delete_one(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    assert_explained(cli("delete", 1), "delete: task 1 is pending")
    finish_all(queue)
    assert cli("delete", 1) == (0, "task 1 is deleted\n", "")
    assert queue.tasks() == []
    assert_explained(cli("delete", 1), "there is no task 1")


def test_all_that_match_are_changed_and_refusals_are_counted(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    finish_all(queue)
    queue.enqueue_many(range(4))
    assert cli("cancel", "--where", "id:2-5", "--yes") == (0, "cancelled 2 tasks; refused: it is done (2)\n", "")
    assert states(queue) == ["done"] * 3 + ["cancelled"] * 2 + ["pending"] * 2
    assert cli("retry", "--where", "state:cancelled", "--yes").out == "retried 2 tasks\n"
    assert cli("reschedule", "--where", "state:pending", "--in", "1h", "--yes").out == "rescheduled 4 tasks\n"
    assert queue.fetch(timeout=0) == []
    assert cli("delete", "--where", "state:done", "--yes").out == "deleted 3 tasks\n"
    assert states(queue) == ["pending"] * 4
    assert cli("cancel", "--where", "id:99", "--yes").out == "cancelled 0 tasks\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dry_run_changes_nothing(cli: Cli, queue: TaskQueue, command: str) -> None:
    queue.enqueue_many(range(2))
    queue.cancel(1)
    before = [task._record for task in queue.tasks()]
    out = cli(command, "--where", "id:1-2", "--dry-run", *options(command)).out
    assert re.fullmatch(f"would {command} 1 task; refused: it is [a-z]+ \\(1\\)\n", out)
    assert [task._record for task in queue.tasks()] == before
    assert queue.audit() == []


def test_other_queues_on_request_only(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    with queue.lane("other") as other:
        other.enqueue(2)
        other.enqueue(3)
    assert cli("cancel", "--where", "id:1-2", "--dry-run").out == "would cancel 1 task\n"
    assert cli("cancel", "--where", "queue:other", "--dry-run").out == "would cancel 2 tasks\n"
    assert cli("cancel", "--where", "state:pending", "--queue", "other", "--dry-run").out == "would cancel 2 tasks\n"
    assert cli("cancel", "--where", "state:pending", "--all-queues", "--yes").out == "cancelled 3 tasks\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "Missing argument 'ID'"),
        (("1", "2"), "give one id"),
        (("state:failed",), "--where"),
        (("--where", "--yes"), "at least one filter"),
        (("1", "--where", "--yes"), "not both"),
        (("1", "--where", "state:failed", "--yes"), "id:1"),
        (("--where", "stat:failed", "--yes"), "stat"),
        (("--where", "state:broken", "--yes"), "state"),
        (("--where", "state:failed"), "--yes"),
        (("1", "--dry-run"), "--dry-run needs --where"),
        (("1", "--all-queues"), "--all-queues needs --where"),
        ((EVIL,), "give one id"),
        (("--where", f"{EVIL}:x", f"state:{EVIL}", "--yes"), "state"),
    ],
)
def test_wrong_usage(cli: Cli, queue: TaskQueue, command: str, words: tuple[str, ...], named: str) -> None:
    queue.enqueue(1)
    run = cli(command, *words, *options(command))
    assert_wrong_usage(run, named)
    assert "\x1b" not in run.err
    assert states(queue) == ["pending"]


def test_options_of_the_other_form_are_refused(cli: Cli, queue: TaskQueue) -> None:
    assert_wrong_usage(cli("retry", 1, "--spread", "5m"), "--spread needs --where")
    assert_wrong_usage(cli("cancel", "--where", "id:1", "--tree", "--yes"), "--tree needs an id")


def test_a_spread_delays_tasks_differently(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(20))
    cli("cancel", "--where", "state:pending", "--yes")
    assert cli("retry", "--where", "state:cancelled", "--spread", "1h", "--yes").out == "retried 20 tasks\n"
    due = [task.start_at for task in queue.tasks()]
    assert len(set(due)) == 20
    assert 2000 < (max(due) - min(due)).total_seconds() <= 3600
    assert queue.audit(limit=1, verb="retry")[0].detail["spread"] == 3600  # type: ignore[index]


def test_the_question_says_the_filters_and_the_number(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2, EVIL])
    refused = cli.on_terminal("cancel", "--where", "state:pending", "payload:red", answer="n")
    assert refused.code == 1
    assert "Cancel 1 task that matches queue:default state:pending payload:red? [y/N]: n" in refused.out
    assert states(queue) == ["pending"] * 3
    escaped = cli.on_terminal("cancel", "--where", f"payload:{EVIL}", "payload:red", answer="n", columns=200)
    assert "\\x1b[31mred" in escaped.out
    accepted = cli.on_terminal("cancel", "--where", "state:pending", answer="y")
    assert accepted.code == 0
    assert "Cancel 3 tasks that match queue:default state:pending?" in accepted.out
    assert accepted.out.endswith("cancelled 3 tasks\n")
    nothing = cli.on_terminal("cancel", "--where", "id:1-3")
    assert nothing == (0, "cancelled 0 tasks; refused: it is cancelled (3)\n", "")


def test_tasks_enqueued_during_the_question_are_left_alone(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(2))
    with cli.terminal("cancel", "--where", "state:pending") as terminal:
        until(lambda: "[y/N]:" in terminal.shown)
        queue.enqueue("later")
        terminal.press("y\n")
        assert terminal.leaves() == 0
        assert "cancelled 2 tasks" in terminal.shown
    assert states(queue) == ["cancelled", "cancelled", "pending"]


def test_a_long_action_shows_its_progress(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(1200))
    run = cli.on_terminal("cancel", "--where", "state:pending", "--yes", columns=120)
    for shown in ("cancelling tasks", "500/1200", "1000/1200", "cancelled 1200 tasks"):
        assert shown in run.out

"""dbtaskqueue why and tree, and what the other commands show of parents, children and expiry."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cli.running import Cli, assert_explained, assert_wrong_usage, widest
from helpers import until

from dbtaskqueue import RetryPolicy, Task, TaskQueue


class Family:
    """A task that waits for three parents, one of which is running, with a grandparent and a child."""

    def __init__(self, queue: TaskQueue) -> None:
        function = queue.task(name="app.work")(lambda *_: None)
        self.grandparent = function.enqueue()
        [done] = queue.fetch(timeout=10)
        done.start()
        done.finish()
        self.parents = [function.using(after=self.grandparent).enqueue(n) for n in range(3)]
        self.task = function.using(after=self.parents, expires_in=3600).enqueue()
        self.child = queue.lane("other").enqueue("child", after=self.task)
        self.held = queue.fetch(2, timeout=10)
        self.held[0].start()
        self.held[0].finish()
        self.held[1].start()
        self.ids = [task.id for task in (self.grandparent, *self.parents, self.task, self.child)]
        assert self.ids == [1, 2, 3, 4, 5, 6]


def plain(text: str) -> str:
    """Return what a terminal shows, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def family(queue: TaskQueue) -> Family:
    return Family(queue)


# -- why -------------------------------------------------------------------------------------------


def test_why(cli: Cli, family: Family) -> None:
    run = cli("why", 5)
    first, parents, worker = run.out.splitlines()
    assert (run.code, run.err, first) == (0, "", "task 5 is pending:")
    assert re.fullmatch(r"  parents    2 of 3 parents have not ended: 3 running for \d+ s; 4 pending", parents)
    assert worker.startswith("  no_worker  no live worker serves the queue default; ")


def test_why_as_json(cli: Cli, family: Family, queue: TaskQueue) -> None:
    found = cli("why", 6, "--json").json
    assert found[0] == {"code": "parents", "text": "1 of 1 parent has not ended: 5 pending, blocked"}
    assert found == [reason._asdict() for reason in queue.why(6)]
    assert cli("why", 1, "--json").json == []


def test_why_of_tasks_that_wait_for_nothing(cli: Cli, queue: TaskQueue) -> None:
    done, failed, running, reserved, cancelled = queue.enqueue_many(range(5))
    queue.cancel(cancelled.id)
    held = queue.fetch(4, timeout=10)
    for task in held[:3]:
        task.start()
    held[0].finish()
    held[1].fail("boom\x1b[2J", retry=False)
    assert cli("why", done.id).out == "task 1 is done\n"
    assert cli("why", failed.id).out == "task 2 is abandoned: boom\\x1b[2J\n"
    assert cli("why", running.id).out == "task 3 is running\n"
    assert cli("why", reserved.id).out == f"task 4 is reserved by worker {held[3].worker}, which will start it\n"
    assert cli("why", cancelled.id).out == "task 5 is cancelled\n"


def test_why_of_a_task_that_failed_before_it_was_done(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue("x", retry=RetryPolicy(delay=0))
    for error in ("boom", None):
        [held] = queue.fetch(timeout=10)
        held.start()
        held.fail(error) if error else held.finish()
    assert (task.refresh().state, task.error) == ("done", "boom")
    assert cli("why", task.id).out == "task 1 is done\n"


def test_why_of_a_task_that_a_parent_has_cancelled(cli: Cli, queue: TaskQueue) -> None:
    parent = queue.enqueue(1)
    queue.enqueue(2, after=parent)
    queue.cancel(parent.id)
    out = cli("why", 2).out
    assert out == "task 2 is cancelled: cancelled, since it waits for task 1 to be done, and that ended cancelled\n"


def test_why_of_a_task_that_starts_soon(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    with cli.started("worker", "builtins:print"):
        until(lambda: not [reason for reason in queue.why(task.id) if reason.code == "no_worker"])


def test_why_on_a_terminal(cli: Cli, family: Family) -> None:
    run = cli.on_terminal("why", 5, columns=60)
    assert widest(plain(run.out)) <= 60
    assert "3 running" in run.out


# -- tree ------------------------------------------------------------------------------------------


def test_tree(cli: Cli, family: Family) -> None:
    lines = cli("tree", 5).out.splitlines()
    assert [" ".join(re.sub(r"for \d+ s", "for N s", line).split()) for line in lines] == [
        "task state queue function",
        "5 waits for 2 of 3 tasks default app.work",
        "parents",
        "2 done default app.work",
        "1 done default app.work",
        "3 running for N s default app.work",
        "1 done default app.work",
        "4 pending default app.work",
        "1 done default app.work",
        "children",
        "6 waits for 1 of 1 task other (callback)",
    ]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    assert indents == [0, 0, 0, 2, 4, 2, 4, 2, 4, 0, 2]


def test_the_queue_is_shown_only_if_there_are_several(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(2, after=queue.enqueue(1))
    assert cli("tree", 1).out.splitlines()[0].split() == ["task", "state", "function"]
    assert cli("tree", 1).out.splitlines()[1].split() == ["1", "pending", "(callback)"]


def test_tree_of_a_done_task_whose_parent_is_retried(cli: Cli, queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    for _ in (parent, child):
        [held] = queue.fetch(timeout=10)
        held.start()
        held.finish()
    queue.retry(parent.id)
    assert [line.split()[:2] for line in cli("tree", child.id).out.splitlines()[1:]] == [
        ["2", "done"],
        ["parents"],
        ["1", "pending"],
    ]


def test_tree_as_json(cli: Cli, family: Family) -> None:
    found = cli("tree", 5, "--json").json
    assert (found["id"], found["state"], found["blocked"], found["queue"]) == (5, "pending", True, "default")
    assert [(each["id"], each["state"]) for each in found["parents"]] == [(2, "done"), (3, "running"), (4, "pending")]
    assert [each["id"] for parent in found["parents"] for each in parent["parents"]] == [1, 1, 1]
    assert [(each["id"], each["queue"], each["children"]) for each in found["children"]] == [(6, "other", [])]
    assert (found["more_parents"], found["more_children"]) == (False, False)


def test_a_task_that_is_in_a_tree_twice_is_followed_once(cli: Cli, queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    joint = queue.enqueue("joint", after=root)
    two = [queue.enqueue(n, after=joint) for n in range(2)]
    last = queue.enqueue("last", after=two)
    found = cli("tree", last.id, "--json").json
    first, second = (parent["parents"][0] for parent in found["parents"])
    assert [first["id"], second["id"]] == [joint.id, joint.id]
    assert (first["again"], second["again"]) == (False, True)
    assert [each["id"] for each in first["parents"]] == [root.id]
    assert second["parents"] == []
    assert cli("tree", last.id).out.count("(callback) (shown elsewhere)") == 1


def test_a_wide_tree_is_cut_and_shows_open_parents_first(cli: Cli, queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(30))
    for task in queue.fetch(29, timeout=10):
        task.start()
        task.finish()
    child = queue.enqueue("child", after=parents)
    found = cli("tree", child.id, "--json", "--width", 3).json
    assert [each["id"] for each in found["parents"]] == [1, 2, 30]
    assert found["more_parents"] is True
    lines = cli("tree", child.id).out.splitlines()
    assert len(lines) == 14
    assert lines[-1] == "  … more"


def test_a_deep_tree_is_cut(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(0)
    for n in range(9):
        task = queue.enqueue(n, after=task)
    assert len(cli("tree", 1, "--depth", 3).out.splitlines()) == 7
    assert cli("tree", 1, "--depth", 3).out.splitlines()[-1] == "        … more"
    assert len(cli("tree", 1, "--depth", 100).out.splitlines()) == 12
    assert "more" not in cli("tree", 1, "--depth", 9).out


def test_a_tree_has_at_most_200_tasks_each_way(cli: Cli, queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    children = queue.enqueue_many(range(150), after=root)
    for child in children[:3]:
        queue.enqueue_many(range(150), after=child)
    found = cli("tree", root.id, "--json", "--width", 200).json

    def size(node: Any) -> int:
        return 1 + sum(map(size, node["children"]))

    assert size(found) == 200
    assert len(found["children"]) == 150, "nearer generations come first"


def test_control_characters_in_a_tree_are_escaped(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(2, after=queue.enqueue(1))
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("UPDATE dbtaskqueue_task SET function = ?", ("a\x1b[31m\nb",))
    assert "a\\x1b[31m\\nb" in cli("tree", 1).out
    assert "\x1b" not in cli("tree", 1).out
    assert cli("tree", 1, "--json").json["function"] == "a\x1b[31m\nb"
    assert "\x1b[31m\n" not in cli.on_terminal("tree", 1).out


def test_a_pruned_parent_of_a_finished_task(cli: Cli, queue: TaskQueue) -> None:
    parent = queue.enqueue(1)
    child = queue.enqueue(2, after=parent)
    queue.cancel(parent.id)
    with sqlite3.connect(Path(cli.directory, "taskqueue.sqlite")) as connection:
        connection.execute("DELETE FROM dbtaskqueue_task WHERE id = 1")
    assert re.search(r"^  1 +no longer exists$", cli("tree", child.id).out, re.MULTILINE)
    assert cli("tree", child.id, "--json").json["parents"][0]["state"] is None


def test_a_tree_on_a_terminal(cli: Cli, family: Family) -> None:
    run = cli.on_terminal("tree", 5, columns=60)
    assert run.code == 0
    assert widest(plain(run.out)) <= 60


@pytest.mark.parametrize("command", ["why", "tree"])
def test_an_unknown_task(cli: Cli, queue: TaskQueue, command: str) -> None:
    assert_explained(cli(command, 7), "there is no task 7")
    assert_wrong_usage(cli(command, "x"), "'x' is not a valid integer")
    assert_wrong_usage(cli(command))


# -- what other commands show ----------------------------------------------------------------------


def test_list_marks_blocked_tasks(cli: Cli, family: Family) -> None:
    rows = {line.split()[0]: line for line in cli("list").out.splitlines()}
    assert "waits for 2 of 3 tasks" in rows["5"]
    assert "waits" not in rows["4"]
    blocked = {each["id"]: each["blocked"] for each in cli("list", "--json").json}
    assert blocked == {5: {"reasons": ["parents"], "open": 2, "total": 3}, 4: None, 3: None, 2: None, 1: None}


def test_list_only_blocked_tasks(cli: Cli, family: Family, queue: TaskQueue) -> None:
    other = queue.enqueue("another", after=family.task)
    assert [each["id"] for each in cli("list", "--blocked", "--json").json] == [other.id, 5]
    assert [each["id"] for each in cli("list", "--blocked", "--json", "--limit", 1).json] == [other.id]
    assert [each["id"] for each in cli("list", "--blocked", "--json", "--state", "pending").json] == [other.id, 5]
    assert cli("list", "--blocked", "--state", "failed").err == "queue default has no blocked failed tasks\n"
    assert [each["id"] for each in cli("list", "--blocked", "--queue", "other", "--json").json] == [6]
    queue.cancel(5)
    assert cli("list", "--blocked").err == "queue default has no blocked tasks\n"


def test_show_has_parents_children_and_expiry(cli: Cli, family: Family) -> None:
    shown = dict(line.split(maxsplit=1) for line in cli("show", 5).out.splitlines())
    assert shown["blocked"] == "waits for 2 of 3 tasks"
    assert re.fullmatch(r"2 done; 3 running for \d+ s; 4 pending", shown["parents"])
    assert shown["children"] == "6 pending, blocked"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["expires"])
    plain = dict(line.split(maxsplit=1) for line in cli("show", 1).out.splitlines()[:12])
    assert not {"blocked", "parents", "expires"} & set(plain)


def test_show_as_json_has_parents_children_and_expiry(cli: Cli, family: Family) -> None:
    found = cli("show", 5, "--json").json
    assert (found["parents"], found["children"]) == ([2, 3, 4], [6])
    assert found["blocked"] == {"reasons": ["parents"], "open": 2, "total": 3}
    assert found["expires_at"] == family.task.expires_at.isoformat()  # type: ignore[union-attr]
    plain = cli("show", 1, "--json").json
    assert (plain["parents"], plain["children"], plain["blocked"], plain["expires_at"]) == ([], [2, 3, 4], None, None)


def test_show_names_the_first_of_many_parents(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("child", after=queue.enqueue_many(range(1200)))
    shown = dict(line.split(maxsplit=1) for line in cli("show", 1201).out.splitlines())
    assert shown["parents"].endswith("10 pending; and 1,190 more")
    assert shown["blocked"] == "waits for 1,200 of 1,200 tasks"


def test_stats_and_queues_count_blocked_tasks(cli: Cli, family: Family, queue: TaskQueue) -> None:
    assert ["blocked", "1"] in [line.split() for line in cli("stats").out.splitlines()]
    assert cli("stats", "--json").json["blocked"] == 1
    names, *rows = [line.split() for line in cli("queues").out.splitlines()]
    counts = {row[-1]: row[names.index("blocked")] for row in rows}
    assert counts == {"default": "1", "other": "1"}
    assert [each["blocked"] for each in cli("queues", "--json").json] == [1, 1]
    queue.cancel(5)
    assert "blocked" not in cli("queues").out.splitlines()[0], "the column is only there if a task is blocked"


def test_watch_shows_blocked_tasks(cli: Cli, family: Family) -> None:
    with cli.terminal("watch", "--interval", "0.1s") as terminal:
        until(lambda: len(terminal.frame) > 3 and "blocked" in terminal.frame[2])
        rows = {line.split()[0]: line.split() for line in terminal.frame[3:6] if line.strip()}
        assert rows["default"][2] == "1", "after the name and the number of pending tasks"
        terminal.press("q")
        assert terminal.leaves() == 0
    with cli.started("watch", "--json", "--interval", "0.1s") as process:
        assert process.stdout is not None
        snapshot = json.loads(process.stdout.readline())
    assert [queue["blocked"] for queue in snapshot["queues"]] == [1, 1]
    with cli.started("watch", "--interval", "0.1s") as process:
        assert process.stdout is not None
        assert b"queue default pending=2 " in (line := process.stdout.readline())
        assert b" blocked=1" in line


def test_doctor_finds_blocked_tasks_whose_parents_no_worker_serves(cli: Cli, queue: TaskQueue) -> None:
    parent = queue.lane("media").enqueue(1)
    queue.enqueue_many([2, 3], after=parent)

    def findings() -> list[Any]:
        return [each for each in cli("doctor", "--json").json["findings"] if each["name"] == "blocked"]

    found = findings()
    value = "2 tasks wait for parents in the queue media, which no live worker serves (task 2)"
    assert [each["value"] for each in found] == [value]
    assert found[0]["advice"].endswith("worker --queue media MODULE:NAME")
    with cli.started("worker", "builtins:print", "--queue", "media"):
        until(lambda: not findings())


# -- enqueue and cancel ----------------------------------------------------------------------------


def test_enqueue_after_other_tasks(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2])
    assert cli("enqueue", '"x"', "--after", "2, 1", "--when", "ended", "--expires-in", "5m").out == "3\n"
    child = queue.get(3)
    assert child.parents() == [2, 1]
    assert child.expires_at is not None
    assert (child.expires_at - child.created_at).total_seconds() == 300
    queue.cancel(1)
    queue.cancel(2)
    assert child.refresh().blocked is None
    assert child.state == "pending", "with --when ended, it does not matter how they end"


def test_after_may_be_repeated(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2, 3])
    assert cli("enqueue", '"x"', "--after", "3", "--after", "1,2").out == "4\n"
    assert queue.get(4).parents() == [3, 1, 2]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--after", "1,x"), "'1,x' must be ids of tasks, separated by commas, such as 17,18"),
        (("--after", ""), "must be ids of tasks"),
        (("--after", "0"), "must be a task's id, not 0"),
        (("--after", ",".join(map(str, range(1, 10_002)))), "at most 10,000 parents, not 10,001"),
        (("--after", "1", "--when", "never"), "is not one of 'done', 'ended', 'failed'"),
        (("--when", "ended"), "--when needs --after"),
        (("--expires-in", "0"), "expires_in must be"),
        (("--expires-in", "soon"), "invalid duration 'soon'"),
    ],
)
def test_wrong_options_of_enqueue(cli: Cli, queue: TaskQueue, words: tuple[str, ...], why: str) -> None:
    queue.enqueue(1)
    assert_wrong_usage(cli("enqueue", '"x"', *words), why)
    assert queue.stats().pending == 1


def test_enqueue_after_an_unknown_task(cli: Cli, queue: TaskQueue) -> None:
    assert_explained(cli("enqueue", '"x"', "--after", "7"), "after: there is no task 7")
    assert queue.tasks() == []


def states(*tasks: Task) -> list[str]:
    return [str(task.refresh().state) for task in tasks]


def test_cancel_a_tree(cli: Cli, queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    own, shared = queue.enqueue_many(["own", "shared"], after=root)
    task = queue.enqueue("task", after=[own, shared])
    other = queue.enqueue("other", after=shared)
    child = queue.enqueue("child", after=task)
    run = cli("cancel", task.id, "--tree")
    assert run.out == f"task {task.id} is cancelled\ncancelled 1 parent that no other task needs: {own.id}\n"
    assert states(root, own, shared, task, other, child) == [
        *("pending", "cancelled", "pending", "cancelled", "pending", "cancelled")
    ]
    run = cli("cancel", other.id, "--tree")
    assert run.out.splitlines()[1] == f"cancelled 2 parents that no other task needs: {shared.id}, {root.id}"
    assert states(root, shared, other) == ["cancelled"] * 3


def test_cancel_a_tree_with_a_running_and_a_done_parent(cli: Cli, family: Family, queue: TaskQueue) -> None:
    assert cli("cancel", 5, "--tree").out.splitlines() == [
        "task 5 is cancelled",
        "cancelled 1 parent that no other task needs: 4",
        "requested the cancellation of 1 parent that no other task needs: 3",
    ]
    assert [str(queue.get(id).state) for id in family.ids] == [
        *("done", "done", "running", "cancelled", "cancelled", "cancelled")
    ]
    assert queue.get(3).cancel_requested


def test_cancel_a_diamond(cli: Cli, queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    sides = queue.enqueue_many(["left", "right"], after=root)
    last = queue.enqueue("last", after=sides)
    cli("cancel", last.id, "--tree")
    assert states(root, *sides, last) == ["cancelled"] * 4


def test_cancel_leaves_parents_alone_without_tree(cli: Cli, queue: TaskQueue) -> None:
    parent = queue.enqueue(1)
    child = queue.enqueue(2, after=parent)
    assert cli("cancel", child.id).out == "task 2 is cancelled\n"
    assert states(parent, child) == ["pending", "cancelled"]
    assert_explained(cli("cancel", 7, "--tree"), "there is no task 7")

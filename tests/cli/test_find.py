"""dbtaskqueue find: words, pages, JSON, hostile data."""

from __future__ import annotations

import pytest
from cli.running import Cli

from dbtaskqueue import TaskQueue

EVIL = "\x1b[31mred\x1b[0m [bold]x[/]"


def ids(cli: Cli, *words: object) -> list[int]:
    return [task["id"] for task in cli("find", *words, "--json").json["tasks"]]


def test_words_are_filters(cli: Cli, busy: TaskQueue) -> None:
    every = [task.id for task in busy.tasks()]
    assert ids(cli) == every
    assert ids(cli, "state:failed") == [2]
    assert ids(cli, "state:done,failed") == [2, 1]
    assert ids(cli, "state:done", "state:failed") == [2, 1]
    assert ids(cli, "3") == [3]
    assert ids(cli, "id:3-5") == [5, 4, 3]
    assert ids(cli, "does not answer") == [2]
    assert ids(cli, 'error:"does not answer"') == [2]
    assert ids(cli, "error:does not answer", "state:done") == []


def test_pages_continue_where_the_search_ended(cli: Cli, busy: TaskQueue) -> None:
    first = cli("find", "--limit", 5, "--json").json
    assert set(first) == {"tasks", "next", "scanned", "back_to", "complete"}
    assert first["complete"] is False
    second = cli("find", "--limit", 5, "--cursor", first["next"], "--json").json
    both = [task["id"] for page in (first, second) for task in page["tasks"]]
    assert both == [task.id for task in busy.tasks(limit=10)]


def test_a_table_says_how_far_the_search_came(cli: Cli, busy: TaskQueue) -> None:
    code, out, err = cli("find", "state:failed")
    assert code == 0
    assert out.splitlines()[0].split() == ["id", "queue", "state", "attempt", "due", "payload"]
    assert out.splitlines()[1].split()[:3] == ["2", "default", "failed"]
    assert err == "1 task found\n"
    err = cli("find", "--limit", 5).err
    assert "5 tasks found so far; looked at 5 tasks, back to task 17" in err
    assert "--cursor newest.17" in err
    assert cli("find", "state:cancelled", "id:1") == (0, "", "no task found\n")


def test_other_queues_are_searched_on_request(cli: Cli, queue: TaskQueue) -> None:
    with queue.lane("other") as other:
        one, two = queue.enqueue(1).id, other.enqueue(2).id
    assert ids(cli) == [one]
    assert ids(cli, "--all-queues") == [two, one]
    assert ids(cli, "queue:other") == [two]
    assert ids(cli, "--queue", "other") == [two]
    assert ids(cli, "--sort", "line", "--all-queues") == [one, two]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("stat:done",), "stat"),
        (("state:finished",), "state"),
        (("ended:yesterday",), "ended: invalid time 'yesterday': must be like 24h, 2030-01-31T12:00 or"),
        (("state:",), "state"),
        (("--cursor", "x"), "cursor"),
        (("--sort", "oldest"), "sort"),
        (("id:1",) * 31, "30 filters"),
        (("x" * 2000,), "2000 characters"),
        ((f"{EVIL}:x", "state:x"), "state"),
    ],
)
def test_wrong_words_are_wrong_usage(cli: Cli, queue: TaskQueue, words: tuple[str, ...], named: str) -> None:
    code, out, err = cli("find", *words)
    assert (code, out) == (2, "")
    assert named in err
    assert "\x1b" not in err


def test_stored_text_does_not_reach_the_terminal(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue({"evil": EVIL}, key=EVIL)
    out = cli("find", f"key:{EVIL}").out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2

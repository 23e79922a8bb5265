"""dbtaskqueue history, overdue and retention: charts, JSON, hostile names, wrong usage."""

from __future__ import annotations

from datetime import datetime

import pytest
from cli.running import Cli, widest

from dbtaskqueue import HistoryPoint, Retention, TaskQueue
from dbtaskqueue._maintenance.upkeep import take_samples
from dbtaskqueue._store.contract import Claim, End, HistoryRecord, NewTask
from dbtaskqueue._system import clock
from dbtaskqueue.cli.history import bars
from dbtaskqueue.overdue import Unusual

EVIL = "[red]x[/]\x1b[31m\x07\u202e"
MINUTE = 60_000_000


def rows(queue: TaskQueue, *, name: str = "default", function: str = "f", done: int = 7) -> None:
    """Store what two minutes had, of which the second one is now."""
    now = clock.now()
    at = now - now % MINUTE
    row = HistoryRecord(60, at, 1, name, function, done=done, failed=2, lost=1, seconds=90_000_000, memory=2**20)
    row = row._replace(run_times=f'{{"3": {done + 3}}}', wait_times=f'{{"-2": {done + 3}}}')
    queue.store.write_history([row, row._replace(at=at - 10 * MINUTE)])


# -- history ---------------------------------------------------------------------------------------


def test_the_json_has_the_points(cli: Cli, queue: TaskQueue) -> None:
    rows(queue)
    rows(queue, name="other", done=100)
    points = cli("history", "--json", "--since", "20m").json
    assert list(points[0]) == list(HistoryPoint._fields)
    assert sum(point["done"] for point in points) == 214
    assert datetime.fromisoformat(points[0]["at"]).minute % 10 == 0
    queue.enqueue()
    mine = cli("history", "--json", "--queue", "default", "--since", "20m").json
    assert [(point["queue"], point["function"]) for point in mine] == [("default", None)] * 3
    assert sum(point["done"] for point in mine) == 14
    of_f = cli("history", "--json", "--function", "f", "--since", "20m", "--step", "1m").json
    assert len(of_f) == 21
    assert sum(point["done"] for point in cli("history", "--json", "--function", "g").json) == 0


def test_a_chart_shows_when_attempts_ended(cli: Cli, queue: TaskQueue) -> None:
    rows(queue)
    queue.enqueue_many(range(3))
    take_samples(queue.store, clock.now())
    out = cli("history", "--since", "1h").out
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["failures"].count("█") >= 1
    assert lines["failures"].endswith("max 3")
    assert "max 3" in lines["pending"]
    assert "·" in lines["pending"], "nothing was sampled before"
    assert lines["lost"].split() == ["lost", "2"]
    assert lines["run"].split()[-2:] == ["180.0", "s"]
    assert widest(out) <= 80


def test_a_chart_fits_a_narrow_terminal(cli: Cli, queue: TaskQueue) -> None:
    rows(queue)
    out = cli("history", "--since", "7d", env={"COLUMNS": "60"}).out
    assert widest(out) <= 60
    assert "█" in out


def test_without_history(cli: Cli, queue: TaskQueue) -> None:
    assert cli("history") == (0, "", "no attempt has ended, and no worker has run, in this time\n")


def test_bars() -> None:
    assert bars([0, 1, 4, 8, None]) == " ▂▅█·"
    assert bars([0.001, 100]) == "▁█"
    assert bars([]) == ""
    assert bars([0, 0]) == "  "


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--since", "soon"], "invalid duration 'soon'"),
        (["--step", "0s"], "step"),
        (["--since", "400d", "--step", "1m"], "10,000 points"),
        (["--queue", "dfault"], "no such queue"),
    ],
)
def test_wrong_usage_of_history(cli: Cli, queue: TaskQueue, words: list[str], message: str) -> None:
    queue.enqueue()
    ended = cli("history", *words)
    assert ended.code in (1, 2)
    assert message in ended.err


# -- overdue ---------------------------------------------------------------------------------------


def late(queue: TaskQueue) -> int:
    """Return the id of an overdue task of a function with a hostile name."""
    worker = queue._membership.join()
    now = clock.now()
    for ago in (100, 99, 98, 97, 96, 95):
        started = now - ago * 1_000_000
        new = NewTask("default", 0, started, 10, started, None, EVIL, None, "1")
        [id] = queue.store.enqueue([[new]]).ids
        [record] = queue.store.exchange(worker, claim=Claim(["default"], 1, started, start=True)).claimed
        if ago > 95:
            queue.store.exchange(worker, ends=[End("finish", id, record.token, started + 1_000_000)])
    return id


def test_overdue_tasks_are_listed(cli: Cli, queue: TaskQueue) -> None:
    assert cli("overdue") == (0, "", "no running task is overdue, stalled, suspended or being cancelled\n")
    id = late(queue)
    out = cli("overdue").out
    header, line = out.splitlines()
    assert header.split() == ["id", "trouble", "for", "queue", "function", "why"]
    assert line.split()[:2] == [str(id), "overdue"]
    assert "\x1b" not in out
    assert "\u202e" not in out
    [found] = cli("overdue", "--json").json
    assert list(found) == list(Unusual._fields)
    assert (found["id"], found["function"], found["expected"]) == (id, EVIL, 60.0)
    queue.lane("other").enqueue()
    assert cli("overdue", "--json", "--queue", "other").json == []


# -- retention -------------------------------------------------------------------------------------


def test_retention_is_shown_and_stored(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue()
    assert cli("retention") == (0, "", "everything is kept in all queues\n")
    shown = cli("retention", "--done", "30d", "--most", 1000).out.splitlines()
    assert shown[0].split() == ["done", "cancelled", "abandoned", "most", "queue"]
    assert shown[1].split() == ["30d00h", "kept", "kept", "1000", "default"]
    assert queue.retention() == Retention(done=30 * 86400.0, most=1000)
    cli("retention", "--cancelled", "12h", "--done", "none")
    assert queue.retention() == Retention(cancelled=12 * 3600.0, most=1000)
    cli("retention", "--queue", "mail", "--abandoned", "0s")
    assert cli("retention", "--json").json == [
        {"queue": "default", "done": None, "cancelled": 43200.0, "abandoned": None, "most": 1000},
        {"queue": "mail", "done": None, "cancelled": None, "abandoned": 0.0, "most": None},
    ]
    assert [each["queue"] for each in cli("retention", "--json", "--queue", "mail").json] == ["mail"]
    cli("retention", "--cancelled", "none", "--most", "none")
    assert queue.retention() == Retention()


@pytest.mark.parametrize(
    "words", [["--done", "30"], ["--done", "-1d"], ["--most", "-1"], ["--most", "1.5"], ["--most", "99999999999"]]
)
def test_wrong_usage_of_retention(cli: Cli, queue: TaskQueue, words: list[str]) -> None:
    ended = cli("retention", *words)
    assert (ended.code, ended.out) == (2, "")
    assert "invalid" in ended.err
    assert queue.store.retentions() == []

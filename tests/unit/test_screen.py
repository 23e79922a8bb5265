"""The output of watch, without a terminal: it fits, what matters comes first, and control characters are escaped."""

from __future__ import annotations

import random

import pytest

from dbtaskqueue._formats.display import short_duration
from dbtaskqueue._formats.progress import Progress, Usage, part_done, read_usage
from dbtaskqueue.cli.screen import bar, changes, number, screen, shares
from dbtaskqueue.monitoring.snapshot import (
    Ended,
    Failure,
    QueueSnapshot,
    Running,
    ScheduleSnapshot,
    Snapshot,
    WorkerSnapshot,
    cpu_share,
)
from dbtaskqueue.states import TaskState

NOW = 1_800_000_000_000_000
EVIL = "\x1b[31m[bold]:smile:\x9b\u202e\x07\r\n你好"


def queue(name: str = "default", waited: float | None = None, paused: bool = False, **counts: int) -> QueueSnapshot:
    return QueueSnapshot(name, {state: counts.get(state, 0) for state in TaskState}, waited, paused)


def worker(id: int, state: str = "alive", host: str = "machine", executor: str | None = "process") -> WorkerSnapshot:
    return WorkerSnapshot(id, state, executor, host, 4000 + id, NOW - 3_600_000_000)


def running(id: int, **changed: object) -> Running:
    task = Running(
        id=id,
        token=1,
        queue="default",
        what='crawl {"args": [7]}',
        attempt=1,
        max_attempts=10,
        started_at=NOW - 187_000_000,
        worker=1,
        progress=Progress(45, 60, "page 45", 90.0),
        usage=Usage(512 * 2**20, 12.5, 3),
        cpu=1.5,
        words=(),
    )
    return task._replace(**changed)  # type: ignore[arg-type]


def failure(id: int, state: str = "failed", error: str = "ValueError: no") -> Failure:
    return Failure(id, "default", state, 3, 10, NOW - 60_000_000, NOW + 30_000_000, error)


def schedule(name: str = "hourly", **changed: object) -> ScheduleSnapshot:
    known = ScheduleSnapshot(name, "default", False, NOW + 60_000_000, NOW - 3_540_000_000, "ran", 17)
    return known._replace(**changed)  # type: ignore[arg-type]


def snapshot(**changed: object) -> Snapshot:
    taken = Snapshot(NOW, [queue(pending=3, running=1)], [worker(1)], [running(17)], False, [failure(9)], [])
    return taken._replace(**changed)  # type: ignore[arg-type]


def lines(current: Snapshot | None, columns: int = 80, rows: int = 24, **more: str) -> list[str]:
    return [line.plain.rstrip() for line in screen(current, columns, rows, now=NOW, **more)]


def row(shown: list[str], start: str) -> list[str]:
    [found] = [line for line in shown if line.startswith(start)]
    return found.split()


# -- parts of the screen---------------------------------------------------------------------------


def test_each_part_of_the_screen() -> None:
    shown = lines(snapshot(), title="sqlite:///x.sqlite")
    assert shown[0].startswith("dbtaskqueue sqlite:///x.sqlite  ")
    assert shown[0].endswith("q quits")
    assert row(shown, "default") == ["default", "3", "0", "1", "0", "0", "0"]
    assert row(shown, "1 ") == ["1", "alive", "process", "1", "1h00m", "4001", "machine"]
    assert row(shown, "17")[:9] == ["17", "3m07s", "██████░░", "75%", "1m30s", "512.0", "MiB", "150%", "page"]
    assert row(shown, "9 ") == ["9", "failed", "3/10", "1m00s", "30s", "ValueError:", "no"]


def test_blocked_tasks_have_a_column_if_there_are_any() -> None:
    assert "blocked" not in lines(snapshot())[2]
    blocked = snapshot(queues=[queue(pending=3, reserved=8, running=1)._replace(blocked=2), queue("other")])
    shown = lines(blocked)
    assert shown[2].split() == ["queues", "pending", "blocked", "running", "failed", "done", "abandoned", "waits"]
    assert row(shown, "default") == ["default", "3", "2", "1", "0", "0", "0"]
    wide = lines(blocked, columns=132)
    assert row(wide, "default") == ["default", "3", "2", "8", "1", "0", "0", "0", "0"]


def test_schedules_are_a_part_if_there_are_any() -> None:
    assert not any("schedules" in line for line in lines(snapshot()))
    never = schedule("never", next_at=None, last_at=None, outcome=None, task=None)
    shown = lines(snapshot(schedules=[schedule(), schedule("off", paused=True, next_at=None), never]), rows=40)
    assert row(shown, "   1m00s") == ["1m00s", "59m00s", "ran", "17", "hourly"]
    assert row(shown, "  paused") == ["paused", "59m00s", "ran", "17", "off"]
    assert row(shown, "   never") == ["never", "never"]
    assert "default" in row(lines(snapshot(schedules=[schedule()]), columns=132, rows=40), "   1m00s")


def test_a_wide_screen_has_more() -> None:
    shown = lines(snapshot(), columns=140)
    assert row(shown, "17")[1:3] == ["1/10", "default"]
    assert 'page 45 · crawl {"args": [7]}' in next(line for line in shown if line.startswith("17"))
    assert "cancelled" in shown[2]


def test_empty_parts_have_a_note() -> None:
    shown = lines(Snapshot(NOW, [], [], [], False, [], []))
    assert {"no tasks in any queue", "no workers", "no running tasks", "no failed tasks"} <= set(shown)
    assert lines(None, warning="reading …")[1] == "reading …"


def test_a_warning_is_at_the_top_and_the_last_snapshot_stays() -> None:
    shown = lines(snapshot(), warning=f"the database is unavailable {EVIL}")
    assert shown[1].startswith("the database is unavailable \\x1b")
    assert row(shown, "17")


def test_suspended_and_cancelled_tasks_and_paused_queues_are_marked() -> None:
    shown = lines(snapshot(running=[running(5, words=("suspended", "cancellation requested"))]), columns=140)
    assert "(suspended, cancellation requested) page 45 · crawl" in next(
        line for line in shown if line.startswith("5 ")
    )
    assert row(lines(snapshot(queues=[queue("slow", paused=True)])), "(paused)")[:2] == ["(paused)", "slow"]


def test_live_workers_and_busy_queues_come_first() -> None:
    workers = [worker(1, "lost"), worker(2, "lost"), worker(3, "silent"), worker(4)]
    shown = lines(snapshot(workers=workers, queues=[queue("a", done=9), queue("b", pending=1)]))
    order = [line.split()[1] for line in shown[shown.index("") :] if "process" in line.split()[2:3]]
    assert order == ["alive", "silent", "lost", "lost"]
    assert [line[0] for line in shown if line.startswith(("a ", "b "))] == ["b", "a"]
    assert row(lines(snapshot(workers=[worker(1, executor=None)])), "1 ")[2] == "(fetch)"


def test_unknown_values_are_blank() -> None:
    bare = running(3, progress=None, usage=None, cpu=None, started_at=None, max_attempts=None, what="7")
    assert row(lines(snapshot(running=[bare])), "3 ") == ["3", "7"]


# -- it fits ---------------------------------------------------------------------------------------


def crowd(dice: random.Random) -> Snapshot:
    """Return a snapshot with far more rows than fit, and with control characters in its texts."""
    names = [f"{'q' * dice.randrange(1, 128)}{n}" for n in range(30)]
    return Snapshot(
        NOW,
        [queue(name, 1e9, bool(n % 2), pending=10**n, done=2**63) for n, name in enumerate(names)],
        [worker(n, dice.choice(["alive", "lost", "silent"]), EVIL * 30) for n in range(40)],
        [running(10**n, what=EVIL * n, worker=n, cpu=10.0**n, words=("suspended",)) for n in range(18)],
        True,
        [failure(n, "abandoned", EVIL * n) for n in range(10)],
        [],
        [schedule(EVIL * n, next_at=NOW + 10**n, task=10**n) for n in range(20)],
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (132, 50), (66, 20), (40, 10), (300, 100), (10, 3), (1, 1)])
def test_the_output_fits_every_screen(columns: int, rows: int, seed: int) -> None:
    shown = screen(crowd(random.Random(seed)), columns, rows, now=NOW, title=EVIL * 50, warning=EVIL * 50)
    assert len(shown) <= rows
    assert max(line.cell_len for line in shown) <= columns
    assert all(line.plain.isprintable() for line in shown)


def test_rows_that_do_not_fit_are_counted() -> None:
    shown = lines(snapshot(running=[running(n) for n in range(100, 140)], more=True))
    assert len(shown) <= 24
    listed = [line for line in shown if line.startswith("1") and "page" in line]
    [rest] = [line for line in shown if "more" in line]
    assert rest == f"… and {40 - len(listed)} more, at least"
    assert len(listed) >= 5
    assert row(shown, "9 "), "a long part leaves room for the short ones"


def test_rows_are_shared_fairly() -> None:
    assert shares([3, 1, 40, 2], 16) == [3, 1, 10, 2]
    assert shares([9, 9, 9, 9], 4) == [1, 1, 1, 1]
    assert shares([1, 1], 10) == [1, 1]
    assert shares([5], -1) == [0]
    assert shares([], 5) == []


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (-5, "0s"),
        (59.9, "59s"),
        (61, "1m01s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (90_000, "1d01h"),
        (100 * 86400, "100d"),
        (1e300, "99999d"),
        (float("nan"), ""),
        ("nonsense", ""),
    ],
)
def test_short_durations_have_at_most_six_characters(seconds: float | None, words: str) -> None:
    assert short_duration(seconds) == words
    assert len(words) <= 6


def test_progress_as_a_bar_or_as_a_number() -> None:
    assert bar(None) == ""
    assert bar(Progress(0, 10)) == "░░░░░░░░   0%"
    assert bar(Progress(99.9, 100)) == "███████░  99%"
    assert bar(Progress(300, 10)) == "████████ 100%"
    assert bar(Progress(17)) == bar(Progress(17, 0)) == "17"
    assert bar(Progress("x", [])) == ""  # type: ignore[arg-type]
    assert part_done(Progress(-1, 5)) == 0


def test_numbers_and_shares() -> None:
    assert [number(n) for n in (0, 9_999_999, 12_345_678)] == ["0", "9999999", "12M"]
    assert cpu_share([(0.0, 1.0)]) is None
    assert cpu_share([(0.0, 1.0), (2.0, 4.0)]) == 1.5
    assert cpu_share([(0.0, 1.0), (1.0, 9.0), (2.0, 1.0)]) == 0
    assert cpu_share([(1.0, 1.0), (1.0, 2.0)]) is None


def test_usage_that_cannot_be_read() -> None:
    assert read_usage('{"memory": 5, "cpu": 1.5, "processes": 2}') == Usage(5, 1.5, 2)
    for text in (
        None,
        "",
        "{",
        "[]",
        "null",
        '{"memory": 5}',
        '{"memory": 1e999, "cpu": 1, "processes": 1}',
        "[" * 9999,
    ):
        assert read_usage(text) is None


# -- on a pipe -------------------------------------------------------------------------------------


def change_lines(before: Snapshot | None, after: Snapshot) -> list[str]:
    return [line.partition(" ")[2] for line in changes(before, after)]


def test_the_first_snapshot_prints_everything() -> None:
    assert change_lines(None, snapshot()) == [
        "queue default pending=3 reserved=0 running=1 failed=0 done=0 abandoned=0 cancelled=0",
        "worker 1 alive executor=process pid=4001 machine",
        'task 17 runs queue=default attempt=1/10 worker=1 crawl {"args": [7]}',
        "task 17 75% eta=1m30s page 45",
        "task 9 failed queue=default attempt=3/10 ValueError: no",
    ]


def test_later_snapshots_print_changes_only() -> None:
    assert change_lines(snapshot(), snapshot(at=NOW + 1)) == []
    after = snapshot(running=[running(17, cpu=0.0, usage=None, progress=Progress(45.1, 60, "page 45.1", 89.0))])
    assert change_lines(snapshot(), after) == [], "less than one percent and usage are not worth a line"
    after = snapshot(running=[running(17, progress=Progress(60, 60, "page 60", 0.0))])
    assert change_lines(snapshot(), after) == ["task 17 100% eta=0s page 60"]
    assert change_lines(snapshot(), snapshot(running=[running(17, words=("suspended",))])) == ["task 17 suspended"]
    assert change_lines(snapshot(running=[running(17, words=("suspended",))]), snapshot()) == ["task 17 continues"]
    assert change_lines(snapshot(), snapshot(running=[], ended=[Ended(17, "default", "done", 1)])) == [
        "task 17 is done queue=default attempt=1"
    ]
    assert change_lines(snapshot(), snapshot(workers=[])) == ["worker 1 has left"]
    assert change_lines(snapshot(), snapshot(workers=[worker(1, "lost")])) == [
        "worker 1 lost executor=process pid=4001 machine"
    ]
    assert change_lines(snapshot(failures=[]), snapshot(failures=[failure(2, "abandoned")])) == [
        "task 2 abandoned queue=default attempt=3/10 ValueError: no"
    ]
    assert change_lines(snapshot(running=[]), snapshot(running=[running(17, token=2)]))[0].startswith("task 17 runs")


def test_ticks_and_blocked_tasks_on_a_pipe() -> None:
    before, later = snapshot(schedules=[schedule()]), NOW + 60_000_000
    assert change_lines(None, before)[4] == "schedule hourly ran queue=default task=17"
    assert change_lines(before, before) == []
    skipped = schedule(last_at=later, outcome="skipped", task=None)
    assert change_lines(before, snapshot(schedules=[skipped])) == ["schedule hourly skipped queue=default"]
    assert change_lines(before, snapshot(schedules=[schedule(), schedule("old")])) == [], "its tick is not new"
    new = schedule("new", last_at=later)
    assert change_lines(before, snapshot(schedules=[new])) == ["schedule new ran queue=default task=17"]
    [line] = change_lines(before, before._replace(queues=[queue(pending=3, running=1)._replace(blocked=2)]))
    assert line.endswith(" cancelled=0 blocked=2")


def test_control_characters_are_escaped_on_a_pipe() -> None:
    evil = crowd(random.Random(1))
    for line in changes(None, evil):
        assert line.isprintable()
        assert len(line) < 6000

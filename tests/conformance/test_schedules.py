"""Schedules: the sentences of the design page, and what must not go wrong with ticks.

Each tick makes at most one task, and each tick that was due has a row. Most tests set ``next_at`` back in the database
in place of waiting, and run the duty that makes ticks by hand. Clock changes, rare expressions and the arithmetic of
outages are in unit/test_timetable.py; kills and many workers in processes/schedules.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engines import execute
from helpers import Background, until

from dbtaskqueue import (
    Command,
    PayloadError,
    Schedule,
    StoreUnavailable,
    Task,
    TaskQueue,
    TaskQueueError,
    Tick,
    Worker,
    current_task,
)
from dbtaskqueue._maintenance.ticker import Ticker
from dbtaskqueue._store.contract import ScheduleRecord, TickPlan, TickRecord
from dbtaskqueue._system import clock
from dbtaskqueue.schedules import plan_ticks, run_now, set_paused, tick_infos

WEEK = 7 * 86400
"""Seconds between ticks in most tests: so long that none comes while a test runs."""
PERIOD = WEEK * 1_000_000
DAY = 86_400_000_000


def ticker(queue: TaskQueue) -> Ticker:
    return Ticker(queue.store, queue.events)


def tick(queue: TaskQueue) -> int:
    """Make the ticks that are due, as a worker that has just started does."""
    return ticker(queue).tick()


def record(queue: TaskQueue, name: str = "s") -> ScheduleRecord:
    [found] = queue.store.schedules(queue.name, name)
    return found


def schedule(queue: TaskQueue, name: str = "s") -> Schedule:
    return next(each for each in queue.schedules() if each.name == name)


def ticks(queue: TaskQueue, name: str = "s") -> list[TickRecord]:
    """Return the ticks, oldest first."""
    return queue.store.ticks(queue.name, name, 10_000)[::-1]


def outcomes(queue: TaskQueue, name: str = "s") -> list[str]:
    return [each.outcome for each in ticks(queue, name)]


def now_of(queue: TaskQueue) -> int:
    """Return the time by the clock that decides ticks."""
    return queue.store.outlook(clock.now()).now


def be_due(queue: TaskQueue, name: str = "s", *, missed: int = 0) -> int:
    """Make a schedule due: its last tick until now, and ``missed`` ticks before it. Return the last tick."""
    found = record(queue, name)
    last = plan_ticks(found._replace(next_at=0, catch_up="latest"), now_of(queue), 0).ticks[-1].at
    first = last - missed * (found.every or PERIOD)
    move(queue, name, first)
    return last


def move(queue: TaskQueue, name: str, next_at: int) -> None:
    statement = "UPDATE dbtaskqueue_schedule SET next_at = %s WHERE queue = %s AND name = %s"
    execute(queue.url, statement, next_at, queue.name, name)


def fire(queue: TaskQueue, name: str = "s") -> Task | None:
    """Make the next tick of a schedule happen now: the last one before it is moved away. Return its task."""
    forget(queue, name)
    be_due(queue, name)
    tick(queue)
    last = ticks(queue, name)[-1]
    return queue.get(last.task) if last.outcome == "ran" and last.task is not None else None


def forget(queue: TaskQueue, name: str = "s") -> None:
    """Move the ticks of a schedule one day into the past, one after the other."""
    for each in ticks(queue, name):
        statement = "UPDATE dbtaskqueue_tick SET at = %s WHERE queue = %s AND schedule = %s AND at = %s"
        execute(queue.url, statement, each.at - DAY, queue.name, name, each.at)
    for task in queue.tasks():  # the tick of a waiting task is in its options, too
        row = queue.store.get(task.id)
        assert row is not None
        options = json.loads(row.options or "{}")
        if "tick" in options:
            options["tick"]["at"] -= DAY
            execute(queue.url, "UPDATE dbtaskqueue_task SET options = %s WHERE id = %s", json.dumps(options), task.id)


def run_one(queue: TaskQueue) -> Task:
    """Fetch a task and start it."""
    [task] = queue.fetch(timeout=10)
    assert task.start()
    return task


# -- declaring -------------------------------------------------------------------------------------


def test_a_new_schedule_has_missed_no_ticks(queue: TaskQueue) -> None:
    found = queue.schedule("s", {"a": 1}, every=WEEK)
    assert found == Schedule(
        *("s", "default", None, float(WEEK), "UTC", "skip", "latest", False, found.next_at, None, None, 0, 0, None)
    )
    assert found.next_at is not None
    assert timedelta(0) < found.next_at - clock.to_datetime(now_of(queue)) <= timedelta(seconds=WEEK)
    assert found.next_at.timestamp() % WEEK == 0
    assert queue.schedules() == [found]
    assert tick(queue) == 0
    assert queue.tasks() == []
    assert ticks(queue) == []


def test_a_tick_makes_one_task(queue: TaskQueue) -> None:
    queue.schedule("s", {"a": 1}, every=WEEK)
    at = be_due(queue)
    assert tick(queue) == 1
    assert tick(queue) == 0
    [task] = queue.tasks()
    assert (task.payload, task.start_at, task.state) == ({"a": 1}, clock.to_datetime(at), "pending")
    assert ticks(queue) == [TickRecord("default", "s", at, "ran", task.id, 0)]
    found = schedule(queue)
    assert (found.last_at, found.last_task, found.skipped, found.missed) == (clock.to_datetime(at), task.id, 0, 0)
    assert record(queue).next_at == at + PERIOD


def test_targets(queue: TaskQueue) -> None:
    @queue.task(name="f", max_attempts=3, priority=2, time_limit=9)
    def f(path: str, width: int = 1) -> None: ...

    queue.schedule("call", f.using(priority=9, key="k", meta={"m": 1}).bind("a", width=2), every=WEEK)
    queue.schedule("command", Command(["true"], cwd="/tmp"), every=WEEK)
    queue.schedule("large", "x" * 5000, every=WEEK)
    queue.schedule("elsewhere", f.using(queue="other").bind("b"), every=WEEK)
    queue.schedule("later", f.using(start_in=30, expires_in=90).bind("c"), every=WEEK)
    at = be_due(queue, "later")
    for name in ("call", "command", "large", "elsewhere"):
        be_due(queue, name)
    tick(queue)
    call, command, large, elsewhere, later = (
        queue.get(schedule(queue, name).last_task or 0) for name in ("call", "command", "large", "elsewhere", "later")
    )
    assert (call.function, call.payload) == ("f", {"args": ["a"], "kwargs": {"width": 2}})
    assert (call.priority, call.max_attempts, call.key, call.meta, call.time_limit) == (9, 3, "k", {"m": 1}, 9.0)
    assert command.is_command
    assert command.payload["cwd"] == "/tmp"
    assert large.payload == "x" * 5000
    assert elsewhere.queue == "other"
    assert later.start_at == clock.to_datetime(at + 30_000_000)
    assert later.expires_at is not None
    assert abs((later.expires_at - later.created_at).total_seconds() - 90) < 1


@pytest.mark.one_engine("checked before the database is used")
def test_what_cannot_be_scheduled(queue: TaskQueue) -> None:
    @queue.task(name="f")
    def f(task: Any = None) -> None: ...

    parent = queue.enqueue()
    later = datetime.now(UTC) + timedelta(days=1)
    for options in ({"after": parent}, {"before": parent}, {"start_at": later}, {"expires_at": later}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} cannot be an option of a schedule's task"):
            queue.schedule("s", f.using(**options).bind(), every=WEEK)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="connection cannot be an option"):
        queue.schedule("s", f.using(connection=object()).bind(), every=WEEK)
    for argument in (parent, [parent]):
        with pytest.raises(ValueError, match="cannot contain a Task"):
            queue.schedule("s", f.bind(argument), every=WEEK)
    with pytest.raises(PayloadError):
        queue.schedule("s", f.bind(object()), every=WEEK)
    with pytest.raises(PayloadError):
        queue.schedule("s", float("nan"), every=WEEK)
    with pytest.raises(PayloadError):
        queue.schedule("s", "x" * 2_000_000, every=WEEK)
    with pytest.raises(TypeError):
        f.bind(1, 2)  # type: ignore[call-arg]
    assert queue.schedules() == []


@pytest.mark.one_engine("checked before the database is used")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, TypeError),
        ({"cron": "* * * * *", "every": 60}, TypeError),
        *(({"cron": text}, ValueError) for text in ("", "* * * *", "61 * * * *", "0 0 31 2 *", "@reboot", "x")),
        *(({"every": every}, ValueError) for every in (0, 0.5, -1, float("nan"), float("inf"), "60")),
        ({"cron": "@daily", "timezone": "Mars/Olympus"}, ValueError),
        ({"every": 60, "overlap": "never"}, ValueError),
        ({"every": 60, "catch_up": "some"}, ValueError),
        ({"every": 60, "window": -1}, ValueError),
        ({"every": 60, "jitter": -1}, ValueError),
        ({"every": 60, "jitter": float("inf")}, ValueError),
    ],
)
def test_bad_options_are_refused_immediately(queue: TaskQueue, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        queue.schedule("s", 1, **options)
    with pytest.raises(error):
        queue.periodic(**options)
    assert queue.schedules() == []


@pytest.mark.one_engine("checked before the database is used")
def test_an_unknown_time_zone_names_the_package_that_has_them(queue: TaskQueue) -> None:
    with pytest.raises(ValueError, match="tzdata"):
        queue.schedule("s", 1, cron="@daily", timezone="Europe/Berlyn")


@pytest.mark.one_engine("checked before the database is used")
@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "\ud800", None, 7])
def test_names_follow_the_rules_of_keys(queue: TaskQueue, name: Any) -> None:
    with pytest.raises(ValueError, match="a schedule's name must be 1 to 255 characters"):
        queue.schedule(name, 1, every=WEEK)


@pytest.mark.parametrize("name", ["x" * 255, "Ünïcode €", "a b'c\"%s:d", "trailing ", "Case", "case"])
def test_any_key_is_a_name(queue: TaskQueue, name: str) -> None:
    queue.schedule(name, 1, every=WEEK)
    be_due(queue, name)
    assert tick(queue) == 1
    assert [each.name for each in queue.schedules()] == [name]
    queue.unschedule(name)


def test_names_are_unique_in_a_queue(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    queue.lane("other").schedule("s", 2, every=WEEK)
    assert [len(lane.schedules()) for lane in (queue, queue.lane("other"))] == [1, 1]
    queue.unschedule("s")
    assert [len(lane.schedules()) for lane in (queue, queue.lane("other"))] == [0, 1]
    with pytest.raises(LookupError, match="queue default has no schedule 's'"):
        queue.unschedule("s")


def test_operations_on_an_unknown_name(queue: TaskQueue) -> None:
    for act in (
        lambda: queue.unschedule("nix"),
        lambda: set_paused(queue.store, "default", "nix", True),
        lambda: run_now(queue.store, "default", "nix"),
        lambda: tick_infos(queue.store, "default", "nix", 10),
    ):
        with pytest.raises(LookupError, match="has no schedule 'nix'") as error:
            act()
        assert isinstance(error.value, TaskQueueError)


def test_declaring_the_same_again_changes_nothing(queue: TaskQueue) -> None:
    queue.schedule("s", {"a": 1, "b": 2}, cron="0 0 1 1 *", timezone="Europe/Berlin", jitter=3)
    due = be_due(queue)
    before = record(queue)
    queue.schedule("s", {"a": 1, "b": 2}, cron="0 0 1 1 *", timezone="Europe/Berlin", jitter=3)
    assert record(queue) == before
    tick(queue)
    assert [each.at for each in ticks(queue)] == [due]


@pytest.mark.parametrize(
    "change", [{"cron": "7 * * * *"}, {"cron": "0 0 1 1 *", "timezone": "Asia/Kathmandu"}, {"every": 7}]
)
def test_a_change_of_the_times_fires_nothing(queue: TaskQueue, change: dict[str, Any]) -> None:
    queue.schedule("s", 1, cron="0 0 1 1 *")
    due = be_due(queue)
    changed = queue.schedule("s", 1, **change)
    assert changed.next_at is not None
    assert changed.next_at > (clock.to_datetime(now_of(queue)) or datetime.max) - timedelta(seconds=1)
    tick(queue)
    assert queue.tasks() == []
    assert [(each.at, each.outcome, each.missed) for each in ticks(queue)] == [(due, "missed", 1)]
    assert changed.missed == 1


def test_other_changes_leave_the_next_tick(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    due = be_due(queue)
    queue.schedule("s", 2, every=WEEK, overlap="allow", catch_up="all", window=9 * WEEK)
    assert record(queue).next_at == due
    tick(queue)
    [task] = queue.tasks()
    assert task.payload == 2


def test_a_paused_schedule_stays_paused(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    set_paused(queue.store, "default", "s", True)
    assert queue.schedule("s", 2, every=2 * WEEK).paused
    be_due(queue)
    assert tick(queue) == 0
    assert ticks(queue) == []


# -- periodic --------------------------------------------------------------------------------------


def test_periodic_is_stored_when_a_worker_starts(queue: TaskQueue) -> None:
    @queue.periodic(every=WEEK, name="weekly", args=["x"], kwargs={"n": 2})
    @queue.periodic(cron="30 6 * * 1-5", timezone="Europe/Berlin")
    @queue.task(name="report", max_attempts=3, priority=4)
    def report(text: str = "", n: int = 1) -> None: ...

    assert queue.schedules() == []
    Worker(queue).run(burst=True)
    weekdays, weekly = queue.schedules()
    assert (weekly.name, weekly.every, weekdays.name, weekdays.cron) == ("weekly", WEEK, "report", "30 6 * * 1-5")
    assert weekdays.timezone == "Europe/Berlin"
    assert weekly.declared is not None
    be_due(queue, "weekly")
    tick(queue)
    [task] = queue.tasks()
    assert (task.function, task.payload) == ("report", {"args": ["x"], "kwargs": {"n": 2}})
    assert (task.max_attempts, task.priority) == (3, 4)
    assert report.enqueue("y").function == "report"


@pytest.mark.one_engine("no SQL depends on it")
def test_periodic_registers_a_plain_function(url: str) -> None:
    ran: list[Tick | None] = []
    with TaskQueue(url, open=False) as queue:

        @queue.periodic(every=1)
        def refresh() -> None:
            ran.append(current_task().tick)

        assert not queue.is_open
        queue.open()
        assert refresh.name.endswith("refresh")
        assert queue.functions.names() == [refresh.name]
        assert queue.store_declarations() == [refresh.name]
        at = be_due(queue, refresh.name)
        Worker(queue).run(burst=True)
        assert ran[0] == Tick(refresh.name, clock.to_datetime(at) or datetime.max, 0)


@pytest.mark.one_engine("no SQL depends on it")
def test_periodic_checks_when_the_function_is_decorated(queue: TaskQueue) -> None:
    def f(n: int) -> None: ...

    with pytest.raises(TypeError):
        queue.periodic(every=WEEK)(f)
    with pytest.raises(PayloadError):
        queue.periodic(every=WEEK, args=[object()])(f)
    with pytest.raises(ValueError, match="cannot contain a Task"):
        queue.periodic(every=WEEK, args=[queue.enqueue()])(f)
    with pytest.raises(ValueError, match="a schedule's name"):
        queue.periodic(every=WEEK, args=[1], name="")(f)
    declared = queue.periodic(every=WEEK, args=[1], name="f")(f)
    with pytest.raises(ValueError, match="another schedule of queue default is called 'f'; give one of them a name="):
        queue.periodic(every=2 * WEEK, args=[1], name="f")(declared)
    queue.lane("other").periodic(every=2 * WEEK, args=[1], name="f")(f)
    queue.periodic(every=3 * WEEK, args=[1], name="f")(f)  # a reloaded module
    assert sorted(queue.store_declarations()) == ["f", "f"]
    assert schedule(queue, "f").every == 3 * WEEK


def test_a_worker_stores_the_declarations_of_its_queues_only(queue: TaskQueue) -> None:
    other = queue.lane("other")

    @other.periodic(every=WEEK, name="b")
    @queue.periodic(every=WEEK, name="a")
    def f() -> None: ...

    Worker(queue, queues=["default", "third"]).run(burst=True)
    assert [each.name for each in (*queue.schedules(), *other.schedules())] == ["a"]
    Worker(queue, queues=["other"]).run(burst=True)
    assert [each.name for each in (*queue.schedules(), *other.schedules())] == ["a", "b"]


def test_declaring_again_is_stored_seldom(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    @queue.periodic(every=WEEK, name="s")
    def f() -> None: ...

    queue.store_declarations()
    first = record(queue)
    queue.store_declarations()
    assert record(queue) == first
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET declared_at = declared_at - 7200000000")
    queue.store_declarations()
    assert (record(queue).declared_at or 0) >= (first.declared_at or 0)
    queue.schedule("s", "by hand", every=WEEK)
    assert schedule(queue).declared is None
    with caplog.at_level(logging.INFO, "dbtaskqueue"):
        queue.store_declarations()
    assert "the declaration of a schedule has changed" in caplog.text
    assert schedule(queue).declared is not None
    assert record(queue).next_at == first.next_at


def test_a_worker_deletes_no_schedule_that_it_does_not_know(queue: TaskQueue) -> None:
    queue.schedule("by hand", 1, every=WEEK)
    Worker(queue).run(lambda payload: payload, burst=True)
    assert [each.name for each in queue.schedules()] == ["by hand"]


def test_an_older_version_that_starts_last_wins_and_fires_nothing(queue: TaskQueue, url: str) -> None:
    """Deploys that disagree: each change moves the next tick behind now."""
    for every in (WEEK, 2 * WEEK, WEEK):
        with TaskQueue(url) as version:

            @version.periodic(every=every, name="s")
            def f() -> None: ...

            Worker(version).run(burst=True)
    assert schedule(queue).every == WEEK
    assert queue.tasks() == []


# -- the tick of a task ----------------------------------------------------------------------------


def test_a_task_knows_its_tick(queue: TaskQueue) -> None:
    seen: list[Tick | None] = []
    queue.schedule("s", 1, every=WEEK)
    at = be_due(queue, missed=3)
    queue.enqueue(2)
    Worker(queue).run(lambda payload: seen.append(current_task().tick), burst=True)
    expected = Tick("s", clock.to_datetime(at) or datetime.max, 3)
    assert sorted(seen, key=lambda found: found is None) == [expected, None]


def test_a_retry_keeps_the_tick(queue: TaskQueue) -> None:
    seen: list[Tick | None] = []

    def work(payload: object) -> None:
        seen.append(current_task().tick)
        if len(seen) == 1:
            raise ValueError

    queue.schedule("s", 1, every=WEEK)
    be_due(queue)
    Worker(queue).run(work, burst=True)
    [task] = queue.tasks()
    queue.retry(task.id)
    Worker(queue).run(work, burst=True)
    assert seen[0] == seen[1] is not None


@pytest.mark.one_engine("no SQL depends on it")
def test_a_child_process_knows_the_tick(tmp_path: Any) -> None:
    code = """
import sys
from dbtaskqueue import TaskQueue, Worker, current_task
queue = TaskQueue(sys.argv[1])

@queue.periodic(every=1, name="s")
def f():
    tick = current_task().tick
    return [tick.schedule, tick.at.isoformat(), tick.missed]

if __name__ == "__main__":
    Worker(queue, executor="process").run(max_tasks=1)
    [task] = queue.tasks(state="done")
    assert task.result == ["s", task.start_at.isoformat(), 0], task.result
"""
    script = tmp_path / "app.py"
    script.write_text(code)
    subprocess.run([sys.executable, str(script), f"sqlite:///{tmp_path}/tasks.sqlite"], check=True, timeout=60)


def test_jitter_delays_the_task_but_not_the_tick(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK, jitter=600)
    at = be_due(queue)
    tick(queue)
    [task] = queue.tasks()
    delay = (task.start_at - (clock.to_datetime(at) or datetime.max)).total_seconds()
    assert 0 < delay < 600
    assert [each.at for each in ticks(queue)] == [at]
    assert record(queue).next_at == at + PERIOD
    forget(queue)
    task.cancel()
    be_due(queue)
    tick(queue)
    assert queue.tasks()[0].start_at == task.start_at


# -- overlap ---------------------------------------------------------------------------------------


def test_skip_makes_no_task_while_one_is_unfinished(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    first = fire(queue)
    assert first is not None
    assert fire(queue) is None
    running = run_one(queue)
    assert fire(queue) is None
    assert [(each.outcome, each.task) for each in ticks(queue)] == [
        *[("ran", first.id), ("skipped", first.id), ("skipped", first.id)]
    ]
    assert (schedule(queue).skipped, schedule(queue).last_task) == (2, first.id)
    running.finish()
    assert fire(queue) is not None
    assert record(queue).skips_in_a_row == 0
    assert schedule(queue).skipped == 2


def failed(queue: TaskQueue, task: Task) -> None:
    run_one(queue).fail("not yet")


def blocked(queue: TaskQueue, task: Task) -> None:
    queue.enqueue(0, priority=-1)  # nothing else is claimed in its place
    task.cancel()
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET last_task = %s", child.id)


def reserved(queue: TaskQueue, task: Task) -> None:
    queue.kept = queue.fetch(timeout=10)  # type: ignore[attr-defined]


def running(queue: TaskQueue, task: Task) -> None:
    queue.kept = run_one(queue)  # type: ignore[attr-defined]


def suspended(queue: TaskQueue, task: Task) -> None:
    running(queue, task)
    execute(queue.url, "UPDATE dbtaskqueue_task SET suspended = token WHERE id = %s", task.id)


def killed(queue: TaskQueue, task: Task) -> None:
    """Its worker was killed, and its task is not rescued yet."""
    running(queue, task)
    execute(queue.url, "UPDATE dbtaskqueue_task SET worker = 999999 WHERE id = %s", task.id)


UNFINISHED = [failed, blocked, reserved, running, suspended, killed]


@pytest.mark.parametrize("condition", UNFINISHED, ids=lambda condition: condition.__name__)
def test_every_unfinished_state_skips(queue: TaskQueue, condition: Callable[[TaskQueue, Task], None]) -> None:
    queue.schedule("s", 1, every=WEEK)
    task = fire(queue)
    assert task is not None
    condition(queue, task)
    assert fire(queue) is None
    assert outcomes(queue) == ["ran", "skipped"]


@pytest.mark.parametrize("condition", UNFINISHED, ids=lambda condition: condition.__name__)
def test_allow_makes_a_task_in_any_case(queue: TaskQueue, condition: Callable[[TaskQueue, Task], None]) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="allow")
    task = fire(queue)
    assert task is not None
    condition(queue, task)
    assert fire(queue) is not None
    assert outcomes(queue) == ["ran", "ran"]


@pytest.mark.parametrize("ending", ["finish", "fail", "cancel", "prune"])
def test_after_any_end_the_next_tick_runs(queue: TaskQueue, ending: str) -> None:
    queue.schedule("s", 1, every=WEEK)
    task = fire(queue)
    assert task is not None
    if ending == "cancel":
        task.cancel()
    else:
        held = run_one(queue)
        held.finish() if ending != "fail" else held.fail("for good", retry=False)
    if ending == "prune":
        queue.prune(0)
    assert fire(queue) is not None


def test_three_skips_in_a_row_log_a_warning(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    queue.schedule("s", 1, every=WEEK)
    task = fire(queue)
    assert task is not None
    for number in (1, 2, 3, 4):
        caplog.clear()
        fire(queue)
        found = [entry for entry in caplog.records if "skips ticks" in entry.message]
        assert len(found) == (number >= 3)
        if found:
            assert found[0].levelno == logging.WARNING
            fields = {"schedule": "s", "queue": "default", "task_id": task.id, "in_a_row": number}
            assert found[0].fields == fields  # type: ignore[attr-defined]


def test_queue_lets_one_run_and_one_wait(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="queue")
    first = fire(queue)
    held = run_one(queue)
    second = fire(queue)
    assert first is not None
    assert second is not None
    assert second.parents() == [first.id]
    assert second.blocked is not None
    third = fire(queue)
    assert third is not None
    assert third.id == second.id, "the waiting one takes the newer tick"
    assert [(each.outcome, each.task) for each in ticks(queue)] == [
        *[("ran", first.id), ("skipped", first.id), ("ran", second.id)]
    ]
    assert (schedule(queue).skipped, schedule(queue).last_task) == (1, second.id)
    at = ticks(queue)[-1].at
    assert second.refresh().start_at == clock.to_datetime(at)
    held.fail("for good", retry=False)
    task = run_one(queue)
    assert task.id == second.id
    row = queue.store.get(task.id)
    assert row is not None
    assert json.loads(row.options or "")["tick"] == {"schedule": "s", "at": at, "missed": 0}
    assert len(queue.tasks()) == 2


@pytest.mark.parametrize("condition", [failed, reserved, running, suspended, killed], ids=lambda c: c.__name__)
def test_queue_waits_for_every_unfinished_state(queue: TaskQueue, condition: Callable[[TaskQueue, Task], None]) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="queue")
    first = fire(queue)
    assert first is not None
    condition(queue, first)
    second = fire(queue)
    assert second is not None
    assert second.parents() == [first.id]
    assert second.blocked is not None


def test_replace_cancels_the_running_one_and_waits_for_its_end(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="replace")
    first = fire(queue)
    held = run_one(queue)
    second = fire(queue)
    assert first is not None
    assert second is not None
    assert held.refresh().cancel_requested
    assert second.parents() == [first.id]
    third = fire(queue)  # the running one ignores its cancellation
    assert third is not None
    assert second.refresh().state == "cancelled"
    assert third.parents() == [first.id]
    assert third.blocked is not None
    assert queue.fetch(timeout=0) == []
    held.finish()
    assert run_one(queue).id == third.id
    assert outcomes(queue) == ["ran", "ran", "ran"]


@pytest.mark.parametrize("condition", [None, failed, reserved], ids=["pending", "failed", "reserved"])
def test_replace_cancels_one_that_does_not_run(
    queue: TaskQueue, condition: Callable[[TaskQueue, Task], None] | None
) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="replace")
    first = fire(queue)
    assert first is not None
    child = queue.enqueue("child", after=first)
    if condition is not None:
        condition(queue, first)
    second = fire(queue)
    assert second is not None
    assert first.refresh().state == "cancelled"
    assert child.refresh().state == "cancelled", "its own children are decided"
    assert second.parents() == []
    assert second.blocked is None
    assert run_one(queue).id == second.id


def test_a_key_that_is_taken_skips(queue: TaskQueue) -> None:
    @queue.task(name="f")
    def f() -> None: ...

    other = queue.enqueue(1, key="k")
    queue.schedule("s", f.using(key="k").bind(), every=WEEK, overlap="allow")
    assert fire(queue) is None
    assert [(each.outcome, each.task) for each in ticks(queue)] == [("skipped", other.id)]
    other.cancel()
    task = fire(queue)
    assert task is not None
    assert task.key == "k"


# -- catching up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missed", [0, 1, 5, 10_000])
@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_outages(queue: TaskQueue, catch_up: str, missed: int) -> None:
    """Each tick that was due has a row, or is in the number of one."""
    queue.schedule("s", 1, every=WEEK, overlap="allow", catch_up=catch_up, window=20_000 * WEEK)  # type: ignore[arg-type]
    last = be_due(queue, missed=missed)
    tick(queue)
    made = {"latest": 1, "all": min(missed + 1, 1000), "none": 0}[catch_up]
    rows = ticks(queue)
    ran = [each for each in rows if each.outcome == "ran"]
    assert [each.at for each in ran] == [last - n * PERIOD for n in range(made)][::-1]
    lost = missed + 1 - made
    assert [(each.at, each.missed) for each in rows if each.outcome == "missed"] == (
        [(last - made * PERIOD, lost)] if lost else []
    )
    assert schedule(queue).missed == lost
    assert len(queue.tasks(limit=2000)) == made
    assert record(queue).next_at == last + PERIOD


def test_all_catches_up_no_further_than_its_window(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="allow", catch_up="all", window=timedelta(weeks=3))
    be_due(queue, missed=9)
    tick(queue)
    assert sum(outcome == "ran" for outcome in outcomes(queue)) == 3
    assert schedule(queue).missed == 7


def test_none_makes_a_tick_that_is_at_most_a_minute_old(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=60, catch_up="none")
    move(queue, "s", now_of(queue) // 60_000_000 * 60_000_000 - 300_000_000)
    tick(queue)
    assert outcomes(queue) == ["missed", "ran"]


def test_overlap_applies_to_each_tick_of_an_outage(queue: TaskQueue) -> None:
    for overlap in ("skip", "queue", "replace"):
        queue.schedule(overlap, overlap, every=WEEK, overlap=overlap, catch_up="all", window=9 * WEEK)  # type: ignore[arg-type]
        be_due(queue, overlap, missed=3)
    tick(queue)
    assert outcomes(queue, "skip") == ["ran", "skipped", "skipped", "skipped"]
    assert outcomes(queue, "queue") == ["ran", "skipped", "skipped", "ran"]
    assert outcomes(queue, "replace") == ["ran", "ran", "ran", "ran"]
    states = {name: sorted(task.state for task in queue.tasks() if task.payload == name) for name in ("skip", "queue")}
    assert states == {"skip": ["pending"], "queue": ["pending", "pending"]}
    replaced = [task.state for task in queue.tasks() if task.payload == "replace"]
    assert replaced == ["pending", "cancelled", "cancelled", "cancelled"]


def test_missed_ticks_are_logged(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    queue.schedule("s", 1, every=WEEK)
    be_due(queue, missed=7)
    tick(queue)
    [found] = [entry for entry in caplog.records if "missed ticks" in entry.message]
    assert found.fields == {"schedule": "s", "queue": "default", "missed": 7}  # type: ignore[attr-defined]


# -- operators -------------------------------------------------------------------------------------


def test_ticks_while_paused_are_neither_made_nor_missed(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    set_paused(queue.store, "default", "s", True)
    be_due(queue, missed=5)
    assert tick(queue) == 0
    resumed = set_paused(queue.store, "default", "s", False)
    assert (record(queue).next_at or 0) > now_of(queue) - 1_000_000
    assert tick(queue) == 0
    assert ticks(queue) == []
    assert (resumed.paused, resumed.missed) == (False, 0)


def test_a_paused_schedule_makes_no_ticks_beside_another_one(queue: TaskQueue) -> None:
    for name in ("s", "paused"):
        queue.schedule(name, name, every=WEEK)
        be_due(queue, name)
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET paused = 1 WHERE name = 'paused'")
    tick(queue)
    assert [task.payload for task in queue.tasks()] == ["s"]
    duty = ticker(queue)
    duty.tick()
    assert duty.interval > 1, "nothing is due"


def test_ticks_before_a_pause_were_missed(queue: TaskQueue) -> None:
    """Paused in an outage: what was due until then has a row."""
    queue.schedule("s", 1, every=WEEK)
    last = be_due(queue, missed=2)
    paused = set_paused(queue.store, "default", "s", True)
    assert paused.missed == 3
    assert [(each.at, each.outcome, each.missed) for each in ticks(queue)] == [(last, "missed", 3)]
    set_paused(queue.store, "default", "s", True)
    set_paused(queue.store, "default", "s", False)
    assert tick(queue) == 0
    assert schedule(queue).missed == 3


def test_run_now_changes_neither_times_nor_counts(queue: TaskQueue) -> None:
    queue.schedule("s", {"a": 1}, every=WEEK)
    set_paused(queue.store, "default", "s", True)
    before = record(queue)
    task = queue.get(run_now(queue.store, "default", "s"))
    assert (task.payload, task.state) == ({"a": 1}, "pending")
    row = queue.store.get(task.id)
    assert row is not None
    assert row.options is None
    assert record(queue) == before
    assert ticks(queue) == []


def test_a_removed_schedule_keeps_its_ticks_and_tasks(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    at = be_due(queue)
    tick(queue)
    queue.unschedule("s")
    assert len(queue.tasks()) == 1
    queue.schedule("s", 1, every=WEEK, overlap="allow")
    move(queue, "s", at)
    tick(queue)
    assert len(queue.tasks()) == 1, "the tick had a task already"
    assert len(ticks(queue)) == 1


def test_a_queue_with_schedules_is_listed_and_a_purge_leaves_them(queue: TaskQueue) -> None:
    lane = queue.lane("quiet")
    lane.schedule("s", 1, every=WEEK)
    assert [each.name for each in queue.queues()] == ["quiet"]
    fire(lane)
    assert lane.purge() == 1
    lane.prune(0, states=["abandoned"])
    assert [each.name for each in lane.schedules()] == ["s"]
    assert fire(lane) is not None


def test_a_paused_queue_does_not_stop_ticks(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    queue.pause()
    assert fire(queue) is not None
    assert fire(queue) is None, "overlap bounds what waits"


# -- races and failures ----------------------------------------------------------------------------


def due_plan(queue: TaskQueue) -> TickPlan:
    """Return what a worker would do, which has read that the schedule is due."""
    now = now_of(queue)
    [found] = queue.store.due_schedules(now, 10)
    return plan_ticks(found, now, clock.now())


def test_of_two_workers_that_see_a_tick_one_makes_it(queue: TaskQueue, url: str) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="allow")
    be_due(queue, missed=3)
    plans = [due_plan(queue) for _ in range(4)]
    stores = [TaskQueue(url) for _ in plans]
    threads = [
        Background(lambda store=each.store, plan=plan: store.make_ticks([plan], clock.now()))  # type: ignore[misc]
        for each, plan in zip(stores, plans, strict=True)
    ]
    made = [thread.join() for thread in threads]
    assert sorted(len(ticked.tasks) for ticked in made) == [0, 0, 0, 1]
    assert len(queue.tasks()) == 1
    assert outcomes(queue) == ["missed", "ran"]
    for each in stores:
        each.close()


def test_a_tick_that_has_a_row_is_not_made_again(queue: TaskQueue) -> None:
    """The second guard, for a clock or a backup that went back: only next_at was behind."""
    queue.schedule("s", 1, every=WEEK, overlap="allow")
    at = be_due(queue, missed=2)
    tick(queue)
    move(queue, "s", at - 2 * PERIOD)
    tick(queue)
    assert len(queue.tasks()) == 1
    assert outcomes(queue) == ["missed", "ran"]
    assert schedule(queue).missed == 2
    assert record(queue).next_at == at + PERIOD


def removed(queue: TaskQueue) -> None:
    queue.unschedule("s")


def paused(queue: TaskQueue) -> None:
    set_paused(queue.store, "default", "s", True)


def replaced(queue: TaskQueue) -> None:
    queue.unschedule("s")
    queue.schedule("s", 2, every=WEEK)


def changed(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=2 * WEEK)


@pytest.mark.parametrize("change", [removed, paused, replaced, changed], ids=lambda change: change.__name__)
def test_a_change_after_the_schedule_was_read_wins(queue: TaskQueue, change: Callable[[TaskQueue], None]) -> None:
    queue.schedule("s", 1, every=WEEK)
    be_due(queue)
    plan = due_plan(queue)
    change(queue)
    ticked = queue.store.make_ticks([plan], clock.now())
    assert ticked.tasks == []
    assert queue.tasks() == []


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[3])
import query_coverage
from dbtaskqueue import TaskQueue
from dbtaskqueue._maintenance.ticker import Ticker

queue = TaskQueue(sys.argv[1])
left = int(sys.argv[2])
armed = False

def counted(method):
    def run(self, name, *args, **kwargs):
        global left, armed
        if armed and name == "outlook":
            os._exit(0)  # the transaction is over
        armed = armed or name == "move_schedule"
        if armed:
            left -= 1
            if left < 0:
                os._exit(9)
        return method(self, name, *args, **kwargs)
    return run

for link in query_coverage.LINKS.values():
    for name in query_coverage.METHODS:
        if method := vars(link).get(name):
            setattr(link, name, counted(method))
Ticker(queue.store, queue.events).tick()
os._exit(0)
"""


def test_killed_before_each_statement_of_a_tick(queue: TaskQueue, url: str) -> None:
    """Whatever a killed worker had done of a tick is undone, and the next worker makes it."""
    queue.schedule("s", "x" * 1000, every=WEEK, overlap="queue", catch_up="all", window=2 * WEEK)
    parent = fire(queue)
    assert parent is not None
    forget(queue)
    last = be_due(queue, missed=1)
    codes = []
    for number in range(40):
        command = [sys.executable, "-c", KILLED, url, str(number), str(Path(__file__).parents[1])]
        codes.append(subprocess.run(command, timeout=60, check=False).returncode)
        if codes[-1] == 0:
            break
        assert len(queue.tasks()) == 1
        assert len(ticks(queue)) == 1
        assert record(queue).next_at == last - PERIOD
    assert len(codes) > 8, "the statements are not counted"
    assert codes[-1] == 0
    assert tick(queue) == 0
    assert {(each.at, each.outcome) for each in ticks(queue)} > {(last - PERIOD, "skipped"), (last, "ran")}
    assert len(queue.tasks()) == 2


def test_a_lost_answer_to_the_commit_of_a_tick(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="allow")
    be_due(queue)
    ask = queue.store.make_ticks
    duty = ticker(queue)

    def lose(plans: Any, now: int) -> Any:
        ask(plans, now)
        raise StoreUnavailable("no answer", maybe_done=True)

    monkeypatch.setattr(queue.store, "make_ticks", lose)
    with pytest.raises(StoreUnavailable):
        duty.tick()
    monkeypatch.undo()
    duty.tick()
    assert outcomes(queue) == ["ran"]
    assert len(queue.tasks()) == 1


def test_an_outage_over_ticks(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is unavailable, read-only or full: the duty tries again, and catches up."""
    queue.schedule("s", 1, every=WEEK)
    duty = ticker(queue)

    def refuse(*args: object) -> Any:
        raise StoreUnavailable("read-only")

    monkeypatch.setattr(queue.store, "make_ticks", refuse)
    for missed in (0, 1, 2):
        last = be_due(queue, missed=missed)
        with pytest.raises(StoreUnavailable):
            duty.tick()
        assert 0 < duty.interval <= 5
    monkeypatch.undo()
    assert duty.tick() == 1
    assert [(each.at, each.outcome, each.missed) for each in ticks(queue)] == [
        *[(last - PERIOD, "missed", 2), (last, "ran", 0)]
    ]


def test_a_thousand_ticks_in_one_second(queue: TaskQueue) -> None:
    for number in range(1000):
        queue.store.declare([record_of(number)], clock.now(), lambda old, new, now: settled(new))
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET next_at = %s", now_of(queue) // PERIOD * PERIOD)
    assert tick(queue) == 1000
    assert len({task.payload for task in queue.tasks(limit=2000)}) == 1000
    assert execute(queue.url, "SELECT count(*), count(DISTINCT task) FROM dbtaskqueue_tick") == [(1000, 1000)]


def record_of(number: int) -> ScheduleRecord:
    target = json.dumps({"payload": str(number)})
    return ScheduleRecord("default", f"s{number}", target, None, PERIOD, "UTC", "skip", "latest", 0, 0)


def settled(new: ScheduleRecord) -> Any:
    from dbtaskqueue.schedules import settle

    return settle(None, new, clock.now())


def test_a_schedule_that_cannot_be_read_holds_up_no_other(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "c"):
        queue.schedule(name, 1, every=WEEK)
        be_due(queue, name)
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET timezone = 'Mars/Olympus' WHERE name = 'a'")
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET target = '[]' WHERE name = 'b'")
    duty = ticker(queue)
    assert duty.tick() == 1
    assert duty.tick() == 0
    assert duty.interval >= 1, "it does not try all the time"
    assert [each.outcome for each in ticks(queue, "c")] == ["ran"]
    found = [entry for entry in caplog.records if "cannot be read" in entry.message]
    assert {entry.fields["schedule"] for entry in found} == {"a", "b"}  # type: ignore[attr-defined]
    assert len(found) == 2, "once each"
    assert {each.name for each in queue.schedules()} == {"a", "b", "c"}
    set_paused(queue.store, "default", "a", True)
    set_paused(queue.store, "default", "b", True)
    with pytest.raises(TaskQueueError, match="cannot be read"):
        run_now(queue.store, "default", "b")
    queue.schedule("a", 1, every=WEEK)
    set_paused(queue.store, "default", "a", False)
    be_due(queue, "a")
    assert duty.tick() == 1, "it can be read again"


def test_a_function_that_no_worker_knows(queue: TaskQueue) -> None:
    """The tick is made; the task waits for a worker with the code, and overlap bounds what waits."""
    with TaskQueue(queue.url) as other:

        @other.task(name="elsewhere")
        def f() -> None: ...

        other.schedule("s", f.bind(), every=WEEK)
    be_due(queue)
    Worker(queue).run(lambda payload: None, burst=True)
    [task] = queue.tasks()
    assert (task.state, task.attempt) == ("pending", 0)
    assert fire(queue) is None


def test_two_databases_with_the_same_names(queue: TaskQueue, tmp_path: Any) -> None:
    with TaskQueue(f"sqlite:///{tmp_path}/other.sqlite") as other:
        for each in (queue, other):
            each.schedule("s", 1, every=WEEK)
            be_due(each)
        assert tick(queue) == 1
        assert tick(other) == 1
        assert [len(each.tasks()) for each in (queue, other)] == [1, 1]


# -- clocks ----------------------------------------------------------------------------------------


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move this process's clock forward by this many seconds, or back if negative."""
    wall, ahead = clock.source, [0]
    monkeypatch.setattr(clock, "source", lambda: wall() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] += int(seconds * 1_000_000)

    return jump


@pytest.mark.engine("postgresql", "mariadb", "pgbouncer")
@pytest.mark.parametrize("seconds", [300, -300])
def test_a_workers_clock_makes_no_tick_early_or_late(
    queue: TaskQueue, jump: Callable[[float], None], seconds: float
) -> None:
    queue.schedule("s", 1, every=WEEK)
    jump(seconds)
    duty = ticker(queue)
    assert duty.tick() == 0
    assert ticks(queue) == []
    last = be_due(queue)
    duty.tick()
    assert [(each.at, each.outcome) for each in ticks(queue)] == [(last, "ran")]
    assert queue.schedule("new", 1, every=WEEK).next_at == clock.to_datetime(record(queue).next_at)


@pytest.mark.engine("sqlite")
def test_the_clock_of_a_file_is_set_forward_and_back(queue: TaskQueue, jump: Callable[[float], None]) -> None:
    queue.schedule("s", 1, every=WEEK, overlap="allow")
    queue.schedule("rare", "rare", cron="0 0 1 1 *")
    duty = ticker(queue)
    duty.tick()
    right = record(queue).next_at or 0
    jump(5 * WEEK)
    duty.tick()
    assert outcomes(queue) == ["missed", "ran"]
    ahead = {each.at for each in ticks(queue)}
    queue.schedule("made ahead", 1, every=WEEK)
    jump(-5 * WEEK)
    duty.tick()
    assert (record(queue).next_at or 0) == right
    assert (record(queue, "made ahead").next_at or 0) < max(ahead)
    queue.unschedule("made ahead")
    move(queue, "s", max(ahead))
    jump(5 * WEEK)
    duty.tick()
    assert len({each.task for each in ticks(queue) if each.at == max(ahead)}) == 1
    tasks = [task for task in queue.tasks() if task.payload == 1]
    assert len(tasks) == sum(each.outcome == "ran" for each in ticks(queue)), "what has run does not run again"


@pytest.mark.engine("sqlite")
def test_the_clock_is_set_forward_and_back_while_a_tick_is_always_near(
    queue: TaskQueue, jump: Callable[[float], None]
) -> None:
    duty = ticker(queue)
    duty.tick()
    queue.schedule("s", 1, every=1)
    jump(5 * WEEK)
    duty.tick()
    jump(-5 * WEEK)
    duty.tick()
    assert (record(queue).next_at or 0) <= now_of(queue) + 1_000_000


@pytest.mark.engine("sqlite")
def test_a_worker_that_starts_after_the_clock_was_set_back(queue: TaskQueue, jump: Callable[[float], None]) -> None:
    queue.schedule("s", 1, every=WEEK)
    jump(5 * WEEK)
    tick(queue)
    assert schedule(queue).last_at is not None
    jump(-5 * WEEK)
    tick(queue)
    assert (record(queue).next_at or 0) <= now_of(queue) + PERIOD


@pytest.mark.engine("sqlite")
def test_the_year_9999(queue: TaskQueue, jump: Callable[[float], None]) -> None:
    queue.schedule("s", 1, every=3600, overlap="allow", catch_up="none")
    jump((clock.LATEST - clock.now()) / 1e6 - 1)
    tick(queue)
    assert record(queue).next_at is None
    assert schedule(queue).next_at is None
    assert tick(queue) == 0


# -- who makes them --------------------------------------------------------------------------------


def test_a_burst_first_makes_the_ticks_that_are_due(queue: TaskQueue) -> None:
    ran: list[object] = []
    queue.schedule("s", "of a schedule", every=WEEK)
    be_due(queue)
    Worker(queue).run(ran.append, burst=True)
    assert ran == ["of a schedule"]


def test_a_burst_of_another_queue_makes_ticks_too(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    be_due(queue)
    Worker(queue, queue="another").run(lambda payload: None, burst=True)
    assert len(queue.tasks()) == 1


def test_a_plain_fetch_makes_ticks(queue: TaskQueue) -> None:
    queue.schedule("s", "x", every=WEEK)
    be_due(queue)
    [task] = queue.fetch(timeout=0)
    assert task.payload == "x"


def test_a_waiting_fetch_gets_the_task_of_a_tick(queue: TaskQueue) -> None:
    queue.schedule("s", "x", every=1)
    [task] = queue.fetch(timeout=20)
    assert task.payload == "x"


def test_a_running_worker_makes_ticks(queue: TaskQueue) -> None:
    queue.schedule("s", "x", every=1, overlap="allow")
    worker = Worker(queue)
    running = Background(lambda: worker.run(lambda payload: payload))
    until(lambda: len(queue.tasks(state="done")) >= 3)
    worker.stop()
    running.join()
    rows = ticks(queue)
    assert [each.at for each in rows] == [rows[0].at + n * 1_000_000 for n in range(len(rows))]
    assert len({each.task for each in rows}) == len(rows)


@pytest.mark.one_engine("no SQL depends on it")
def test_an_idle_duty_sends_one_query(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("outlook", "due_schedules", "schedules", "misplaced_schedules", "make_ticks"):
        ask = getattr(queue.store, name)
        monkeypatch.setattr(queue.store, name, lambda *args, name=name, ask=ask: (asked.append(name), ask(*args))[1])
    queue.schedule("s", 1, cron="0 0 1 1 *")
    duty = ticker(queue)
    duty.tick()
    asked.clear()
    duty.tick()
    assert asked == ["outlook"]
    assert 9.9 < duty.interval < 10.1
    duty()
    assert asked == ["outlook"], "it was just asked"


# -- old ticks, and copies -------------------------------------------------------------------------


def test_ticks_are_pruned_after_30_days(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    fire(queue)
    now = now_of(queue)
    for days in (29, 31, 32, 400):
        values = ("default", "s", now - days * DAY, "ran", days, 0)
        execute(queue.url, "INSERT INTO dbtaskqueue_tick VALUES (%s, %s, %s, %s, %s, %s)", *values)
    duty = ticker(queue)
    duty._next_prune = 0
    duty.tick()
    assert len(ticks(queue)) == 2
    assert queue.store.prune_ticks(now - 30 * DAY, 1) == 0


def test_history(queue: TaskQueue) -> None:
    queue.schedule("s", 1, every=WEEK)
    be_due(queue, missed=4)
    tick(queue)
    newest, oldest = tick_infos(queue.store, "default", "s", 10)
    assert (newest.outcome, newest.task, newest.missed) == ("ran", schedule(queue).last_task, 0)
    assert (oldest.outcome, oldest.task, oldest.missed) == ("missed", None, 4)
    assert tick_infos(queue.store, "default", "s", 1) == [newest]

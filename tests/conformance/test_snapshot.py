"""Snapshots of a database, with a real worker that uses processes, on every engine."""

from __future__ import annotations

import os
from pathlib import Path

import child_tasks
import pytest
from engines import execute
from helpers import Background, until

from dbtaskqueue import RetryPolicy, TaskQueue, TaskState, Worker
from dbtaskqueue._system import clock
from dbtaskqueue.monitoring.snapshot import MOST_RUNNING, Ended, Monitor, Snapshot


@pytest.fixture
def monitor(queue: TaskQueue) -> Monitor:
    return Monitor(queue.store, with_ended=True)


def test_an_empty_database(queue: TaskQueue, monitor: Monitor) -> None:
    snapshot = monitor.snapshot()
    assert snapshot._replace(at=0) == Snapshot(0, [], [], [], False, [], [])


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_worker_and_what_it_runs(queue: TaskQueue, monitor: Monitor, tmp_path: Path) -> None:
    busy = queue.enqueue({"do": "spin", "file": str(tmp_path / "go")})
    reporting = queue.enqueue({"do": "progress", "count": 20, "pause": 0.2})
    bad = queue.enqueue({"do": "raise", "text": "no luck"}, retry=RetryPolicy(delay=3600))
    worker = Worker(queue, executor="process", concurrency=2, drain_timeout=0)
    running = Background(lambda: worker.run(child_tasks.act))
    try:
        until(lambda: bad.refresh().state == "failed" or reporting.refresh().progress, what="the tasks run")

        def seen() -> Snapshot | None:
            snapshot = monitor.snapshot()
            known = {task.id: task for task in snapshot.running}
            return snapshot if busy.id in known and (known[busy.id].cpu or 0) > 0.05 else None

        snapshot = until(seen, what="the share of a CPU")
        [member] = snapshot.workers
        assert (member.state, member.executor, member.pid) == ("alive", "process", os.getpid())
        [task] = [task for task in snapshot.running if task.id == busy.id]
        assert task.usage is not None
        assert task.usage.memory > 0
        assert (task.worker, task.attempt, task.words) == (member.id, 1, ())
        assert '"do": "spin"' in task.what
        until(lambda: reporting.refresh().state == "done" and bad.refresh().state == "failed", what="the others ended")
        (tmp_path / "go").touch()
        ended: list[Ended] = []

        def over() -> Snapshot | None:
            snapshot = monitor.snapshot()
            ended.extend(snapshot.ended)
            return snapshot if not snapshot.running and snapshot.queues[0].counts[TaskState.DONE] == 2 else None

        until(over, what="no running tasks")
        assert Ended(busy.id, "default", "done", 1) in ended
    finally:
        worker.stop()
        running.join()
    [failure] = until(lambda: monitor.snapshot().failures, what="the failure")  # failures are read only now and then
    assert (failure.id, failure.state, failure.attempt) == (bad.id, "failed", 1)
    assert failure.error.endswith("no luck")


def test_queues_and_their_waiting_tasks(queue: TaskQueue, url: str) -> None:
    queue.enqueue(1)
    with TaskQueue(url, "other") as other:
        other.enqueue(2, start_in=3600)
        other.pause()
    first, second = Monitor(queue.store).snapshot().queues
    assert (first.name, second.name) == ("default", "other")
    assert first.waited is not None
    assert (second.waited, second.paused, second.counts[TaskState.PENDING]) == (None, True, 1)
    [only] = Monitor(queue.store, "other").snapshot().queues
    assert only.name == "other"


def test_a_snapshot_is_bounded(queue: TaskQueue) -> None:
    queue.enqueue_many(range(MOST_RUNNING + 30), max_attempts=1)
    held = queue.fetch(MOST_RUNNING + 30)
    assert all(task.start() for task in held)
    snapshot = Monitor(queue.store).snapshot()
    assert (len(snapshot.running), snapshot.more) == (MOST_RUNNING, True)
    for task in held:
        task.fail("no", retry=False)
    snapshot = Monitor(queue.store).snapshot()
    assert (snapshot.running, snapshot.more) == ([], False)
    assert 0 < len(snapshot.failures) < 30
    assert {failure.state for failure in snapshot.failures} == {"abandoned"}


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_worker_elsewhere_that_is_silent(queue: TaskQueue) -> None:
    queue.enqueue(1)
    [task] = queue.fetch()
    monitor = Monitor(queue.store)
    assert [worker.state for worker in monitor.snapshot().workers] == ["alive"]
    [record] = queue.store.workers()
    stranger = record._replace(boot="another machine", lease=0.0, executor="thread")
    id = queue.store.register(stranger)
    monitor.snapshot()
    states = {worker.id: worker.state for worker in monitor.snapshot().workers}
    assert states[id] in ("silent", "lost"), "a rescuer may have marked it already"
    task.release()


def test_schedules_with_their_next_and_last_ticks(queue: TaskQueue, monitor: Monitor) -> None:
    for name in ("hourly", "paused", "daily"):
        queue.schedule(name, {}, every=86_400 if name == "daily" else 3600)
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET paused = 1 WHERE name = 'paused'")
    execute(queue.url, "UPDATE dbtaskqueue_schedule SET next_at = %s WHERE name = 'daily'", clock.now() * 2)
    columns = "queue, schedule, at, outcome, task, missed"
    for at, outcome in ((5, "ran"), (6, "skipped")):
        tick = ("default", "hourly", at, outcome, 17, 0)
        execute(queue.url, f"INSERT INTO dbtaskqueue_tick ({columns}) VALUES (%s, %s, %s, %s, %s, %s)", *tick)
    hourly, daily, paused = monitor.snapshot().schedules
    assert (hourly.name, hourly.last_at, hourly.outcome, hourly.task) == ("hourly", 6, "skipped", 17)
    assert (daily.name, daily.last_at, daily.outcome, daily.task) == ("daily", None, None, None)
    assert (paused.name, paused.paused, paused.next_at) == ("paused", True, None)
    assert Monitor(queue.store, "other").snapshot().schedules == ()


def test_only_the_schedules_that_fire_next_are_read(queue: TaskQueue, monitor: Monitor) -> None:
    for number in range(25):
        queue.schedule(f"{number}", {}, every=86_400 * (25 - number))
    names = [schedule.name for schedule in monitor.snapshot().schedules]
    assert len(names) == 20
    assert "24" in names

"""Rescue of workers on other machines, where pids mean nothing: a heartbeat counter must stand still for a whole lease.

In these tests this process cannot read its own place, so it treats every other worker as if on another machine.
Rescue by pid is tested in test_transitions.py; workers in real other places are tested in tests/processes.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from helpers import WorkerReads, ended, run_python, spawn, until

from dbtaskqueue import LeaseLost, StoreUnavailable, TaskQueue
from dbtaskqueue._maintenance import rescuer
from dbtaskqueue._store.contract import WorkerRecord
from dbtaskqueue._system import clock, place
from dbtaskqueue._system.place import Place
from dbtaskqueue._worker import membership

HOLD = """
import os, sys, time
from dbtaskqueue import TaskQueue
from dbtaskqueue._worker import membership
membership.here = lambda: None  # this process cannot read its place, either
queue = TaskQueue(sys.argv[1], lease=float(sys.argv[2]))
[task] = queue.fetch(timeout=30)
task.start()
print("held", flush=True)
input()
task.finish("by its holder")
"""


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "here", lambda: None)


@pytest.mark.elsewhere("psutil", "none")
def test_a_dead_worker_elsewhere_is_silent_for_a_lease_before_it_is_rescued(url: str) -> None:
    lease = 1.5
    with TaskQueue(url) as queue, ended(spawn(HOLD, url, lease)) as holder:
        task = queue.enqueue()
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
        died, checks = time.monotonic(), WorkerReads(queue)
        [again] = queue.fetch(timeout=60)
        assert time.monotonic() - died >= lease
        assert checks.count <= WorkerReads.until_rescued(lease)
        assert again.id == task.id
        assert [attempt.outcome for attempt in again.attempts()] == ["lost"]


@pytest.mark.one_engine("the rescuer measures the silence in Python")
def test_a_live_worker_elsewhere_keeps_its_tasks(url: str) -> None:
    with TaskQueue(url) as queue, ended(spawn(HOLD, url, 2)) as holder:
        task = queue.enqueue()
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert queue.fetch(timeout=7) == []
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert task.get_result(30) == "by its holder"
        assert task.refresh().token == 1


@pytest.mark.one_engine("the rescuer measures the silence in Python")
def test_workers_without_a_place_do_not_rescue_each_others_tasks(url: str) -> None:
    with TaskQueue(url, lease=2) as one, TaskQueue(url, lease=2) as other:
        one.enqueue_many(range(2))
        mine, its = one.fetch(timeout=10), other.fetch(timeout=10)
        assert one.fetch(timeout=4) == other.fetch(timeout=4) == []
        for task in mine + its:
            assert task.start()
            task.finish()
        assert one.stats().done == 2


@pytest.mark.engine("sqlite")
def test_a_worker_whose_row_was_deleted_is_fenced_and_continues_as_a_new_one(url: str) -> None:
    """Its tasks are rescued and its late writes refused. Its next claim is that of a new worker."""
    # with this long lease the heartbeat process would notice too late, so reading the workers must reveal it
    with TaskQueue(url, lease=3600) as queue, TaskQueue(url) as rescuer:
        task = queue.enqueue()
        [held] = queue.fetch(timeout=10)
        held.start()
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30);"
            "c.execute('DELETE FROM dbtaskqueue_worker WHERE id = ?', (int(sys.argv[2]),)); c.commit()"
        )
        run_python(code, url.removeprefix("sqlite:///"), held.worker)
        rescuer.pause()
        until(lambda: rescuer.fetch(timeout=0.1) == [] and task.refresh().state == "failed", what="the rescue")
        with pytest.raises(LeaseLost):
            held.finish("late")
        rescuer.resume()
        before = held.worker

        def new() -> bool:
            for again in queue.fetch(timeout=1):
                again.release()
                return again.worker != before
            return False

        until(new, what="the new worker")


# -- the rescuer itself ----------------------------------------------------------------------------


def worker_of(boot: str | None = None, namespace: str | None = None) -> WorkerRecord:
    """Return the row of a worker that does not exist."""
    return WorkerRecord(
        id=0,
        host="elsewhere",
        pid=1,
        boot=boot,
        namespace=namespace,
        started=None if boot is None else 1,
        lease=10.0,
        beat=0,
        created_at=clock.now(),
        lost_at=None,
        executor=None,
    )


@pytest.mark.one_engine("the rescuer measures the silence in Python")
@pytest.mark.parametrize("gap", ["it slept itself", "its query failed"])
def test_silence_counts_only_while_the_rescuer_could_check(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch, gap: str
) -> None:
    """If the rescuer slept, other workers may have sent heartbeats; without a database, they could not."""
    now = [1000.0]
    monkeypatch.setattr(rescuer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    queue.store.register(worker_of())
    rescuing = rescuer.Rescuer(queue.store, None, queue.events)

    def check(after: float = 1) -> bool:
        """Let the rescuer check once; return whether the worker is lost."""
        now[0] += after
        rescuing.check()
        return queue.store.workers()[0].lost_at is not None

    assert not any(check() for _ in range(9))
    if gap == "it slept itself":
        assert not check(after=60)
    else:
        with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
            patch.setattr(queue.store, "workers", lambda: _unavailable())
            check()
    assert not any(check() for _ in range(9)), "the silence is counted from zero again"
    assert any(check() for _ in range(3))


def _unavailable() -> None:
    raise StoreUnavailable("unavailable")


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize(
    ("boot", "namespace", "alive", "gone"),
    [
        ("here", "ours", True, False),
        ("here", "ours", False, True),
        ("here", "ours", None, None),
        ("there", "ours", False, None),
        ("here", "theirs", False, None),
        (None, None, False, None),
    ],
)
def test_a_pid_is_only_compared_within_its_place(
    queue: TaskQueue,
    monkeypatch: pytest.MonkeyPatch,
    boot: str | None,
    namespace: str | None,
    alive: bool | None,
    gone: bool | None,
) -> None:
    monkeypatch.setattr(place, "exists", lambda pid, started: alive)
    rescuing = rescuer.Rescuer(queue.store, Place("here", "ours", 1), queue.events)
    assert rescuing.is_gone(worker_of(boot, namespace)) is gone


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize(("alive", "checks"), [(False, 1), (True, 30)])
def test_in_the_same_place_the_process_decides_and_not_the_heartbeat(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch, alive: bool, checks: int
) -> None:
    """A dead worker is lost at the first check. One that is alive but silent, like a stopped process, never is."""
    now = [1000.0]
    monkeypatch.setattr(rescuer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(place, "exists", lambda pid, started: alive)
    queue.store.register(worker_of("here", "ours"))
    rescuing = rescuer.Rescuer(queue.store, Place("here", "ours", 1), queue.events)
    for _ in range(checks):
        now[0] += 1
        rescuing.check()
    assert (queue.store.workers()[0].lost_at is None) is alive

"""Rescue where pids say nothing: elsewhere, only a counter that stands still for a whole lease counts.

Here this process cannot tell its place, so that it treats every other worker as elsewhere. What is
decided by pid is in test_transitions.py; real other places are in tests/processes.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from helpers import Looks, ended, run_python, spawn, until

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
membership.here = lambda: None  # this one cannot tell either: its heartbeat process is a process of its own
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
        died, looks = time.monotonic(), Looks(queue)
        [again] = queue.fetch(timeout=60)
        assert time.monotonic() - died >= lease
        assert looks.count <= Looks.until_rescued(lease)
        assert again.id == task.id
        assert [attempt.outcome for attempt in again.attempts()] == ["lost"]


@pytest.mark.one_engine("the patience is that of the rescuer, in Python")
def test_a_living_worker_elsewhere_is_not_robbed(url: str) -> None:
    with TaskQueue(url) as queue, ended(spawn(HOLD, url, 0.5)) as holder:
        task = queue.enqueue()
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert queue.fetch(timeout=4) == []
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert task.get_result(30) == "by its holder"
        assert task.refresh().token == 1


@pytest.mark.one_engine("the patience is that of the rescuer, in Python")
def test_workers_without_a_place_do_not_rob_each_other(url: str) -> None:
    with TaskQueue(url, lease=0.5) as one, TaskQueue(url, lease=0.5) as other:
        one.enqueue_many(range(2))
        mine, its = one.fetch(timeout=10), other.fetch(timeout=10)
        assert one.fetch(timeout=2.5) == other.fetch(timeout=2.5) == []
        for task in mine + its:
            assert task.start()
            task.finish()
        assert one.stats().done == 2


@pytest.mark.engine("sqlite")
def test_a_worker_whose_row_is_gone_is_fenced_and_goes_on_as_a_new_one(url: str) -> None:
    """Its tasks are taken, its late writes refused; its next claim is another worker's."""
    # with such a lease its heartbeat process sees the row too late: it must notice when it looks at the workers
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
    """A worker that nobody runs, as its row says."""
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


@pytest.mark.one_engine("the patience is that of the rescuer, in Python")
@pytest.mark.parametrize("gap", ["it was stopped itself", "its look failed"])
def test_silence_counts_only_while_the_rescuer_looked(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch, gap: str
) -> None:
    """A machine that slept, or a database that was away: the others may have sent heartbeats, or could not."""
    now = [1000.0]
    monkeypatch.setattr(rescuer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    queue.store.register(worker_of())
    looking = rescuer.Rescuer(queue.store, None, queue.events)

    def look(after: float = 1) -> bool:
        """Let the rescuer look; whether the worker is lost."""
        now[0] += after
        looking.check()
        return queue.store.workers()[0].lost_at is not None

    assert not any(look() for _ in range(9))
    if gap == "it was stopped itself":
        assert not look(after=60)
    else:
        with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
            patch.setattr(queue.store, "workers", lambda: _away())
            look()
    assert not any(look() for _ in range(9)), "the silence starts anew"
    assert any(look() for _ in range(3))


def _away() -> None:
    raise StoreUnavailable("away")


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
def test_a_pid_counts_in_its_own_place_only(
    queue: TaskQueue,
    monkeypatch: pytest.MonkeyPatch,
    boot: str | None,
    namespace: str | None,
    alive: bool | None,
    gone: bool | None,
) -> None:
    monkeypatch.setattr(place, "exists", lambda pid, started: alive)
    looking = rescuer.Rescuer(queue.store, Place("here", "ours", 1), queue.events)
    assert looking.is_gone(worker_of(boot, namespace)) is gone


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize(("alive", "looks"), [(False, 1), (True, 30)])
def test_in_the_same_place_the_process_decides_and_not_the_heartbeat(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch, alive: bool, looks: int
) -> None:
    """A dead worker is lost at the first look; one that is alive but silent, as a stopped process is, never."""
    now = [1000.0]
    monkeypatch.setattr(rescuer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(place, "exists", lambda pid, started: alive)
    queue.store.register(worker_of("here", "ours"))
    looking = rescuer.Rescuer(queue.store, Place("here", "ours", 1), queue.events)
    for _ in range(looks):
        now[0] += 1
        looking.check()
    assert (queue.store.workers()[0].lost_at is None) is alive

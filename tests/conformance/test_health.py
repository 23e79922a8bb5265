"""The findings of ``doctor``, from Python and on every engine. Its output is tested in ``cli/test_doctor.py``."""

from __future__ import annotations

import pytest

from dbtaskqueue import TaskQueue
from dbtaskqueue._store.contract import Finding
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership
from dbtaskqueue.monitoring import health


def command_line(command: str, *words: str, queue: str | None = None) -> str:
    return " ".join((command, *words, f"of {queue}"))


def check(queue: TaskQueue) -> dict[str, Finding]:
    return {finding.name: finding for finding in health.check(queue.store, queue.store.queues(), command_line)}


def test_an_empty_database_requires_no_action(queue: TaskQueue) -> None:
    found = check(queue)
    assert (found["workers"].value, found["queues"].value) == ("0 alive, 0 lost", "none")
    assert found["oldest due"].value == "nothing is due"
    assert not {"paused", "abandoned", "function", "slow"} & set(found)
    assert not any(finding.broken for finding in found.values())


def test_a_paused_queue_with_waiting_and_abandoned_tasks(queue: TaskQueue) -> None:
    queue.enqueue_many([1, 2])
    queue.purge()
    queue.enqueue(3)
    queue.pause()
    found = check(queue)
    assert found["paused"] == Finding("paused", "queue default", "resume of default")
    assert found["abandoned"] == Finding("abandoned", "2 tasks of queue default", "list --state abandoned of default")
    assert found["oldest due"].value.endswith("; no worker is alive")
    assert found["oldest due"].advice == "worker MODULE:NAME of default"


def test_a_function_that_no_live_worker_knows(queue: TaskQueue) -> None:
    queue.task(name="app.missing")(lambda: None).enqueue()
    member = Membership(
        queue.store,
        30.0,
        queue.events,
        runs_tasks=False,
        executor="thread",
        queues=["default"],
        functions=["app.known"],
    )
    member.join()
    found = check(queue)
    assert found["workers"].value == "1 alive, 0 lost"
    assert found["function"].value == (
        "app.missing: 1 task waits, and no live worker of the queue default knows it; the live workers know: app.known"
    )
    member.leave()


def test_blocked_tasks_whose_parents_no_worker_serves(queue: TaskQueue) -> None:
    first, second = queue.lane("media").enqueue_many([1, 2])
    middle = queue.enqueue(3, after=[first, second])
    queue.enqueue(4, after=[middle, first])
    value = "2 tasks wait for parents in the queue media, which no live worker serves (task 3)"
    assert check(queue)["blocked"] == Finding("blocked", value, "worker MODULE:NAME of media")
    other, media = (
        Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor="thread", queues=[name])
        for name in ("other", "media")
    )
    other.join()
    assert "blocked" in check(queue)
    media.join()
    assert "blocked" not in check(queue)
    media.leave()
    other.leave()
    [task] = queue.lane("media").fetch(timeout=10)
    assert "blocked" not in check(queue), "a program that fetches may serve any queue"
    task.release()


def test_a_task_that_runs_much_longer_than_usual(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.enqueue_many([None] * 6)
    held = queue.fetch(6, timeout=10)
    for task in held[:5]:
        task.start()
        task.finish()
    held[5].start()
    assert "slow" not in check(queue)
    later = clock.now() + 60_000_000
    with monkeypatch.context() as context:
        context.setattr(clock, "source", lambda: later)
        slow = check(queue)["slow"]
    assert slow.value.startswith(f"task {held[5].id} has run for 6")
    assert slow.advice == f"show {held[5].id} of None"
    held[5].finish()

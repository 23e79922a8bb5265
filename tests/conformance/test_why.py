"""``queue.why``: each reason alone, all of them together, and answers that change while they are read.

Of the cases in the notes on ``why``, those about bulk operations and hooks are about features that do not exist.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engines import execute
from helpers import Background, until

from dbtaskqueue import Reason, RetryPolicy, Task, TaskNotFound, TaskQueue, Worker, reasons
from dbtaskqueue._store.contract import WorkerRecord
from dbtaskqueue._system import clock, place

LATER = 10_000


def join(
    queue: TaskQueue,
    *,
    queues: str | None = '["default"]',
    functions: str | None = "[null]",
    commands: int = 1,
    lost: bool = False,
) -> int:
    """Register a worker that lives in this process and claims nothing."""
    here = place.here()
    now = clock.now()
    record = WorkerRecord(
        id=0,
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=here and here.boot,
        namespace=here and here.namespace,
        started=here and here.started,
        lease=3600,
        beat=0,
        created_at=now,
        lost_at=None,
        executor="process",
        queues=queues,
        functions=functions,
        commands=commands,
    )
    worker = queue.store.register(record)
    if lost:
        execute(queue.url, "UPDATE dbtaskqueue_worker SET lost_at = %s WHERE id = %s", now, worker)
    return worker


def why(queue: TaskQueue, task: Task) -> dict[str, str]:
    """Return the texts of all reasons by code."""
    found = queue.why(task.id)
    assert all(type(reason) is Reason for reason in found)
    return {reason.code: reason.text for reason in found}


def changed(url: str, column: str, value: object, task: Task) -> None:
    """Write a column of a task with plain SQL."""
    execute(url, f"UPDATE dbtaskqueue_task SET {column} = %s WHERE id = %s", value, task.id)


# -- one reason ------------------------------------------------------------------------------------


def test_nothing_delays_the_first_task_of_a_served_queue(queue: TaskQueue) -> None:
    join(queue)
    assert queue.why(queue.enqueue(1).id) == []


def test_due_later(queue: TaskQueue) -> None:
    join(queue)
    task = queue.enqueue(1, start_in=LATER)
    assert why(queue, task) == {"due_later": "due in 2 h 47 min"}


def test_a_failed_task_is_due_later(queue: TaskQueue) -> None:
    join(queue)
    queue.enqueue(1, retry=RetryPolicy(delay=LATER, jitter=0))
    [task] = queue.fetch(timeout=10)
    task.start()
    task.fail("no")
    assert why(queue, task)["due_later"] == "attempt 1 failed, the next one is due in 2 h 47 min"


def test_it_expires_before_it_is_due(queue: TaskQueue) -> None:
    join(queue)
    task = queue.enqueue(1, start_in=LATER, expires_in=60)
    assert why(queue, task) == {"due_later": "due in 2 h 47 min, but it expires earlier"}


def test_queue_paused(queue: TaskQueue) -> None:
    join(queue)
    task = queue.enqueue(1)
    queue.pause()
    assert why(queue, task) == {"queue_paused": "the queue default is paused"}
    queue.resume()
    assert queue.why(task.id) == []


def test_no_worker(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    assert why(queue, task) == {"no_worker": "no live worker serves the queue default"}
    join(queue, queues='["other"]')
    join(queue, lost=True)
    assert why(queue, task) == {"no_worker": "no live worker serves the queue default"}
    join(queue, queues='["other", "default"]')
    assert why(queue, task) == {}


def test_a_worker_that_serves_queues_by_pattern(queue: TaskQueue) -> None:
    tasks = {name: queue.lane(name).enqueue(1) for name in ("mail", "mail.urgent", "media")}
    join(queue, queues='["mail*"]')
    assert {name for name, task in tasks.items() if why(queue, task)} == {"media"}
    join(queue, queues='["*"]')
    assert {name for name, task in tasks.items() if why(queue, task)} == set()


def test_a_program_that_fetches_may_serve_the_queue(queue: TaskQueue) -> None:
    task = queue.lane("other").enqueue(1)
    assert queue.fetch(timeout=0) == []
    text = why(queue, task)["no_worker"]
    assert text == "no live worker serves the queue other; a program that calls fetch() is alive, and may serve it"


def test_parents(queue: TaskQueue) -> None:
    join(queue)
    running, failed, done, later, grandparent = (queue.enqueue(n, retry=RetryPolicy(delay=LATER)) for n in range(5))
    held = queue.fetch(3, timeout=10)
    for task in held:
        task.start()
        if task.id == failed.id:
            task.fail("no")
        if task.id == done.id:
            task.finish()
    changed(queue.url, "due", clock.now() + 60_000_000, later)
    blocked = queue.enqueue(5, after=grandparent)
    child = queue.enqueue(6, after=[running, failed, done, later, grandparent, blocked])
    text = why(queue, child)["parents"]
    assert text.startswith("5 of 6 parents have not ended: ")
    words = text.partition(": ")[2].split("; ")
    assert [word.split()[0] for word in words] == [
        str(task.id) for task in (running, failed, later, grandparent, blocked)
    ]
    assert re.fullmatch(r"\d+ running for \d+ s", words[0])
    assert re.fullmatch(r"\d+ failed, due in [12] h.*", words[1])
    assert re.fullmatch(r"\d+ pending, due in \d+ s", words[2])
    assert re.fullmatch(r"\d+ pending", words[3])
    assert re.fullmatch(r"\d+ pending, blocked", words[4])
    assert set(why(queue, child)) == {"parents"}, "it is not behind other tasks, since it is not in their order"


def test_the_only_parent(queue: TaskQueue) -> None:
    join(queue)
    parent = queue.enqueue(1)
    child = queue.enqueue(2, after=parent)
    assert why(queue, child) == {"parents": f"1 of 1 parent has not ended: {parent.id} pending"}
    [held] = queue.fetch(timeout=10)
    assert why(queue, child)["parents"].endswith(f"{parent.id} reserved")
    held.start()
    held.finish()
    assert "parents" not in why(queue, child)


def test_the_first_of_many_parents_are_named(queue: TaskQueue) -> None:
    join(queue)
    parents = queue.enqueue_many(range(1200))
    child = queue.enqueue("child", after=parents)
    first = "; ".join(f"{task.id} pending" for task in parents[:5])
    assert why(queue, child)["parents"] == f"1,200 of 1,200 parents have not ended: {first}; and 1,195 more"


def test_a_child_is_due_some_time_after_its_parents(queue: TaskQueue) -> None:
    join(queue)
    parent = queue.enqueue(1)
    child = queue.enqueue(2, after=parent, start_in=60)
    assert why(queue, child)["due_later"] == "due 60 s after its parents have ended"
    at_once = queue.enqueue(3, after=parent)
    assert "due_later" not in why(queue, at_once)
    at_a_time = queue.enqueue(4, after=parent, start_at=datetime.now(UTC) + timedelta(seconds=LATER))
    assert why(queue, at_a_time)["due_later"] == "due in 2 h 47 min"


def test_behind(queue: TaskQueue) -> None:
    join(queue)
    first, second, third = queue.enqueue_many([1, 2, 3])
    assert why(queue, first) == {}
    assert why(queue, second) == {"behind": "1 task comes before it"}
    assert why(queue, third) == {"behind": "2 tasks come before it"}
    queue.enqueue(4, priority=5)
    assert why(queue, first) == {"behind": "1 task comes before it, of a higher priority"}
    queue.enqueue(5, priority=7)
    assert why(queue, third) == {"behind": "4 tasks come before it, 2 of a higher priority"}


def test_only_tasks_that_a_claim_takes_first_are_before_it(queue: TaskQueue) -> None:
    join(queue, commands=0)
    queue.enqueue(1, priority=9, start_in=LATER)
    queue.enqueue(2, priority=-9)
    queue.enqueue(3, priority=9, after=queue.enqueue(4, start_in=LATER))
    queue.lane("other").enqueue(5, priority=9)
    queue.enqueue_command(["true"], priority=9)
    task = queue.enqueue(6)
    queue.enqueue(7)
    assert why(queue, task) == {}, "workers that run no command lines pass over them"
    join(queue, commands=1)
    assert why(queue, task) == {"behind": "1 task comes before it, of a higher priority"}


def test_tasks_that_are_due_at_the_same_time_come_by_their_ids(queue: TaskQueue) -> None:
    join(queue)
    tasks = queue.enqueue_many(range(4))
    for task, due in zip(tasks, (2, 1, 1, 1), strict=True):
        changed(queue.url, "due", due, task)
    assert [why(queue, task).get("behind", "0")[0] for task in tasks] == ["3", "0", "1", "2"]


def test_the_number_before_it_is_counted_up_to_a_limit(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "MOST_COUNTED", 3)
    join(queue)
    tasks = queue.enqueue_many(range(6))
    assert why(queue, tasks[3])["behind"] == "3 tasks come before it"
    assert why(queue, tasks[4])["behind"] == "more than 3 tasks come before it"
    queue.enqueue_many(range(2), priority=1)
    queue.enqueue_many(range(3), priority=2)
    assert why(queue, tasks[0])["behind"] == "more than 3 tasks come before it, of a higher priority"


def test_the_next_task_waits_for_a_busy_worker(queue: TaskQueue) -> None:
    worker = join(queue)
    running, task = queue.enqueue_many([1, 2])
    [held] = queue.fetch(timeout=10)
    held.start()
    changed(queue.url, "worker", worker, running)
    assert why(queue, task) == {"behind": "it is the next one; the live worker of the queue holds 1 task"}


def test_function_unknown(queue: TaskQueue) -> None:
    task = queue.task(name="app.missing")(lambda: None).enqueue()
    assert set(why(queue, task)) == {"no_worker"}
    join(queue, functions='["app.known", null]')
    join(queue, functions='["app.missing"]', queues='["other"]')
    assert why(queue, task) == {
        "function_unknown": "no live worker of the queue default knows the function app.missing"
    }
    join(queue, functions='["app.missing"]')
    assert why(queue, task) == {}


def test_no_worker_has_a_callback(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    join(queue, functions='["app.known"]')
    text = "it has no function, and no live worker of the queue default has a callback"
    assert why(queue, task) == {"function_unknown": text}
    join(queue, functions=None)
    assert why(queue, task) == {}, "a worker that has not stored its functions may have one"


def test_commands_not_allowed(queue: TaskQueue) -> None:
    task = queue.enqueue_command(["true"])
    join(queue, commands=0)
    text = "it is a command line, and no live worker of the queue default runs them (--allow-commands)"
    assert why(queue, task) == {"commands_not_allowed": text}
    join(queue, commands=1)
    assert why(queue, task) == {}


# -- all reasons -----------------------------------------------------------------------------------


def test_all_reasons_of_a_blocked_task_are_listed(queue: TaskQueue) -> None:
    parent = queue.enqueue(1)
    missing = queue.task(name="app.missing")(lambda: None)
    child = missing.using(after=parent, start_in=60, priority=-1).enqueue()
    command = queue.enqueue_command(["true"], after=parent, start_in=60)
    queue.pause()
    assert set(why(queue, child)) == {"parents", "due_later", "queue_paused", "no_worker"}
    join(queue, commands=0)
    assert set(why(queue, child)) == {"parents", "due_later", "queue_paused", "function_unknown"}
    assert set(why(queue, command)) == {"parents", "due_later", "queue_paused", "commands_not_allowed"}


def test_all_reasons_of_a_due_task_are_listed(queue: TaskQueue) -> None:
    queue.enqueue(1)
    task = queue.task(name="app.missing")(lambda: None).enqueue()
    queue.pause()
    assert set(why(queue, task)) == {"queue_paused", "no_worker", "behind"}
    join(queue)
    assert set(why(queue, task)) == {"queue_paused", "function_unknown", "behind"}


def test_a_task_of_any_queue(queue: TaskQueue) -> None:
    task = queue.lane("media").enqueue(1)
    assert why(queue, task) == {"no_worker": "no live worker serves the queue media"}


# -- no reason -------------------------------------------------------------------------------------


def test_a_task_that_is_held_or_has_ended_has_no_reason(queue: TaskQueue) -> None:
    done, abandoned, cancelled, running, reserved = queue.enqueue_many(range(5))
    queue.pause()
    queue.cancel(cancelled.id)
    queue.resume()
    held = queue.fetch(4, timeout=10)
    for task in held[:3]:
        task.start()
    held[0].finish()
    held[1].fail("no", retry=False)
    queue.pause()
    states = {
        task.refresh().state.value: queue.why(task.id) for task in (done, abandoned, cancelled, running, reserved)
    }
    assert states == {"done": [], "abandoned": [], "cancelled": [], "running": [], "reserved": []}


@pytest.mark.parametrize("id", [7, 0, -1, 2**63, True, "1", None])
def test_an_unknown_task(queue: TaskQueue, id: Any) -> None:
    queue.enqueue(1)
    with pytest.raises(TaskNotFound):
        queue.why(id)


def test_a_pruned_task(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    queue.cancel(task.id)
    queue.prune(0)
    with pytest.raises(TaskNotFound):
        queue.why(task.id)


# -- newer programs, damaged rows, changes ---------------------------------------------------------


def test_a_task_of_a_newer_program(queue: TaskQueue) -> None:
    join(queue)
    queue.enqueue(1)
    task = queue.enqueue(2)
    changed(queue.url, "blocked", 2, task)
    assert queue.why(task.id) == [], "it is blocked by something unknown, and not in the order of the others"
    changed(queue.url, "blocked", 3, task)
    assert queue.why(task.id) == [], "the row of its parents is missing"
    changed(queue.url, "flow", 64, task)
    changed(queue.url, "options", '{"new": 1}', task)
    assert queue.why(task.id) == []


def test_a_damaged_row_of_a_worker(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    for text in ("[", "7", '{"a": 1}', "[7, null, {}]"):
        join(queue, queues=text)
    assert set(why(queue, task)) == {"no_worker"}
    join(queue, functions="[")
    assert why(queue, task) == {}


class Changing:
    """A store whose database is changed by ``change`` at the call number ``at``."""

    def __init__(self, queue: TaskQueue, at: int, change: Callable[[], object]) -> None:
        self._store = queue.store
        self._at = at
        self._change = change
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)

        def call(*values: Any, **more: Any) -> Any:
            if self.calls == self._at:
                self._change()
            self.calls += 1
            return verb(*values, **more)

        return call


def prune_all(queue: TaskQueue) -> None:
    queue.purge()
    queue.prune(0, states=["done", "cancelled", "abandoned"])
    execute(queue.url, "DELETE FROM dbtaskqueue_worker")


def end_parents(queue: TaskQueue) -> None:
    for task in queue.fetch(2, timeout=10):
        task.start()
        task.finish()


@pytest.mark.parametrize("change", [prune_all, end_parents])
def test_an_answer_that_changes_while_it_is_read(queue: TaskQueue, change: Callable[[TaskQueue], None]) -> None:
    join(queue)
    for at in range(20):
        parents = queue.enqueue_many([1, 2])
        child, last = queue.enqueue(3, after=parents, start_in=60), queue.enqueue(4, priority=-1)
        for task in (child, last):
            store: Any = Changing(queue, at, lambda: change(queue))
            found = reasons.why(store, queue.store.get(task.id))  # type: ignore[arg-type]
            assert all(isinstance(text, str) for _, text in found)
            if queue.store.get(last.id) is None:
                break
        prune_all(queue)
        join(queue)


def test_it_is_read_while_tasks_run(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(60))
    child = queue.enqueue("child", after=parents)
    worker = Worker(queue, concurrency=2)
    running = Background(lambda: worker.run(lambda payload: None))
    try:
        while child.refresh().state != "done":
            for task in (parents[-1], child):
                queue.why(task.id)
    finally:
        worker.stop()
        running.join()
    assert queue.why(child.id) == []


def test_it_only_reads_and_sends_the_same_number_of_queries_however_many_tasks_there_are(queue: TaskQueue) -> None:
    join(queue)

    def calls(number: int) -> int:
        parents = queue.enqueue_many(range(number))
        child = queue.enqueue("child", after=parents)
        before = queue.store.export(0, 10_000)
        asked = 0
        for task in (parents[-1], child):
            store: Any = Changing(queue, -1, lambda: None)
            reasons.why(store, queue.store.get(task.id))  # type: ignore[arg-type]
            asked += store.calls
        assert queue.store.export(0, 10_000) == before
        return asked

    assert calls(6) == calls(600)


def test_a_running_worker_is_known_to_serve_its_queue(queue: TaskQueue) -> None:
    first = queue.enqueue(1, start_in=LATER)
    worker = Worker(queue)
    running = Background(lambda: worker.run(lambda payload: None))
    try:
        until(lambda: set(why(queue, first)) == {"due_later"})
        assert json.loads(queue.store.workers()[0].queues or "") == ["default"]
    finally:
        worker.stop()
        running.join()

"""A worker that stops leaves no task that stays held while its process lives.

The tests decide which queries get an answer. Everything happens in one process, so by its pid each worker in it
counts as alive.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from faults import Faults
from helpers import Background, run_python, until

from dbtaskqueue import RetryPolicy, StoreUnavailable, Task, TaskQueue, Worker
from dbtaskqueue._store import watching
from dbtaskqueue._store.contract import Start
from dbtaskqueue._worker import loop

LATER = RetryPolicy(delay=3600)


@pytest.fixture
def faults(queue: TaskQueue) -> Faults:
    return Faults(queue)


@pytest.fixture
def _gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a stopping worker give up after a short time."""
    monkeypatch.setattr(loop, "_LAST_TRIES", 0.1)


# -- a worker with pending writes ------------------------------------------------------------------


@pytest.mark.usefixtures("_gives_up_soon")
def test_pending_writes_of_a_stopped_worker_are_stored_when_the_database_is_available_again(
    queue: TaskQueue, other: TaskQueue, faults: Faults
) -> None:
    task = queue.enqueue("x", max_attempts=1)
    faults.lose = lambda asked: asked.get("ends")
    worker = Worker(queue)
    worker.run(lambda payload: worker.stop() or "result")
    assert faults.lost > 1
    assert task.refresh().state == "running"
    faults.heal()
    until(lambda: task.refresh().state == "done", what="the pending write")
    assert task.result == "result"
    until(lambda: other.stats().workers == 0, what="the end of the worker")


@pytest.mark.usefixtures("_gives_up_soon")
def test_a_pending_release_of_a_stopped_worker_spends_no_attempt(
    queue: TaskQueue, other: TaskQueue, faults: Faults
) -> None:
    queue.enqueue_many(["first", "second"], max_attempts=1)
    worker = Worker(queue, drain_timeout=0)
    given_up = threading.Event()

    def callback(payload: str) -> None:
        faults.lose = lambda asked: asked.get("ends")
        worker.stop()
        assert given_up.wait(60)

    worker.run(callback, batch=2)
    faults.heal()
    until(lambda: other.stats().pending == 2, what="the releases")
    assert [task.attempt for task in other.fetch(2, timeout=10)] == [0, 0]
    given_up.set()


def test_a_claim_whose_answer_is_lost_while_the_worker_stops_is_released(
    queue: TaskQueue, other: TaskQueue, faults: Faults
) -> None:
    """The task is started in the database, but the worker does not know that it has it."""
    queue.enqueue("x", max_attempts=1)
    worker = Worker(queue)

    def lose(asked: dict[str, object]) -> bool:
        if asked.get("claim") is not None and not faults.lost:
            worker.stop()
            return True
        return False

    faults.lose, faults.stored = lose, True
    worker.run(lambda payload: None)
    assert faults.lost == 1
    [task] = other.fetch(timeout=30)
    assert (task.payload, task.attempt) == ("x", 0)
    assert other.stats().workers == 1, "the worker has deregistered"


# -- on_error that exits the program ----------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_on_error_may_end_the_worker_and_no_task_stays_held(
    queue: TaskQueue, other: TaskQueue, kind: type[BaseException]
) -> None:
    """The exchange that stored the failure also claimed the next task."""
    failing, next_one = queue.enqueue_many(["fails", "is next"], retry=LATER)
    reported: list[int] = []

    def callback(payload: str) -> str:
        if payload == "fails":
            raise ValueError(payload)
        return payload

    def on_error(task: Task, error: BaseException) -> None:
        reported.append(task.id)
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        Worker(queue, on_error=on_error).run(callback, batch=1)
    assert reported == [failing.id]
    assert failing.refresh().state == "failed"
    assert other.stats().workers == 0
    assert next_one.refresh().state in ("done", "pending")
    assert next_one.attempt == (next_one.state == "done")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_on_error_that_exits_twice_is_called_for_every_failure(queue: TaskQueue, other: TaskQueue) -> None:
    """Failures while the worker drains are reported, too."""
    tasks = queue.enqueue_many(["fails"] * 3, retry=LATER)
    reported: list[int] = []

    def on_error(task: Task, error: BaseException) -> None:
        reported.append(task.id)
        sys.exit(f"exit {len(reported)}")

    def callback(payload: str) -> None:
        raise ValueError(payload)

    with pytest.raises(SystemExit, match="exit 1"):
        Worker(queue, on_error=on_error, concurrency=3).run(callback)
    failed = [task.id for task in tasks if task.refresh().state == "failed"]
    assert sorted(reported) == failed
    assert other.stats().workers == 0


# -- the row itself --------------------------------------------------------------------------------


def test_tasks_of_a_worker_without_a_row_are_rescued(queue: TaskQueue, other: TaskQueue) -> None:
    """A task that its holder does not know of does not keep the worker's row."""
    task = queue.enqueue()
    [held] = queue.fetch(timeout=10)
    assert held.worker is not None
    queue.store.deregister(held.worker)
    assert other.stats().workers == 0
    [again] = other.fetch(timeout=30)
    assert (again.id, again.token) == (task.id, held.token + 2)


def test_a_closed_queue_keeps_its_row_while_something_runs(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    closing = TaskQueue(url)
    closing.enqueue()
    [task] = closing.fetch(timeout=10)
    task.start()
    closing.close()
    assert other.fetch(timeout=1.5) == []
    assert queue.stats().workers == 2
    task.finish("as promised")
    until(lambda: queue.stats().workers == 1, what="the end of the worker")


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_close_while_a_task_starts(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """It runs then, and stays held. If the start was not stored, the task is released."""
    queue.enqueue()
    [task] = queue.fetch()
    exchange = queue.store.exchange

    def closing(worker: int, *, starts: Sequence[Start] = (), **asked: Any) -> Any:
        answer = None if is_lost and starts else exchange(worker, starts=starts, **asked)
        if starts:
            Background(queue.close).join()
            if is_lost:
                raise StoreUnavailable("lost")
        return answer

    monkeypatch.setattr(queue.store, "exchange", closing)
    if is_lost:
        with pytest.raises(StoreUnavailable):
            task.start()
        assert other.get(task.id).state == "pending"
    else:
        assert task.start()
        assert other.get(task.id).state == "running"
        task.finish(1)
        assert [attempt.outcome for attempt in other.get(task.id).attempts()] == ["done"]
    assert other.stats().workers == 0


def test_a_queue_that_is_used_after_a_disconnect_keeps_what_it_claims(queue: TaskQueue, other: TaskQueue) -> None:
    """The end of what ran during the disconnect does not release it."""
    queue.enqueue_many([1, 2])
    [first] = queue.fetch()
    first.start()
    queue.disconnect()
    [second] = queue.fetch()
    first.finish()
    assert other.get(second.id).state == "reserved"
    assert second.start()
    second.finish()
    queue.disconnect()
    assert other.stats().workers == 0


def test_a_fetch_during_a_close_leaves_no_row(queue: TaskQueue, url: str) -> None:
    """After the queue is closed, it registers a new worker to claim, which must not stay."""
    closing = TaskQueue(url)
    claim = closing._membership.claim
    entered = False

    def late(*arguments: object) -> list[Task]:
        nonlocal entered
        if not entered:
            entered = True
            closing.close()
        return claim(*arguments)  # type: ignore[arg-type, return-value]

    closing._membership.claim = late  # type: ignore[method-assign, assignment]
    assert Background(lambda: closing.fetch()).join() == []
    until(lambda: queue.stats().workers == 0, what="the end of the worker")


ENDS_IN_THE_MIDDLE = """
import sys, threading, time
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
[task] = queue.fetch()
look, looking = queue.store.workers, threading.Event()
def slowly():
    looking.set()
    time.sleep(0.3)
    return look()
queue.store.workers = slowly
assert looking.wait(30)
print("the end", flush=True)
"""


def test_a_process_can_end_while_its_maintenance_is_about_to_query(queue: TaskQueue, url: str) -> None:
    """Its connections are closed once no thread needs them, and not earlier."""
    queue.enqueue()
    assert run_python(ENDS_IN_THE_MIDDLE, url) == "the end\n"
    assert (queue.stats().pending, queue.stats().workers) == (1, 0)


@pytest.mark.parametrize("waits", ["fetch", "worker"])
def test_no_thread_of_the_library_outlives_a_close(
    engine: str, url: str, waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "IDLE_FOR", 1000.0)
    before = set(threading.enumerate())

    def ours() -> list[str]:
        threads = set(threading.enumerate()) - before
        return [thread.name for thread in threads if thread.name.startswith("dbtaskqueue")]

    queue = TaskQueue(url)
    if waits == "fetch":
        waiting: Background[object] = Background(queue.fetch)
    else:
        waiting = Background(lambda: Worker(queue).run(str))
    until(lambda: queue.stats().workers)
    if engine in ("sqlite", "postgresql"):
        until(lambda: "dbtaskqueue-wakeups" in ours())
    queue.close()
    waiting.join()
    until(lambda: not ours(), what=f"the end of {ours()}")

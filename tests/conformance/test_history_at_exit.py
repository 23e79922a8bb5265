"""The history has every attempt of a ``fetch()`` user whose process has ended, wherever the exit interrupted it.

The oracle is what the tables of tasks and attempts say (``attempts.py``).
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from attempts import in_history, in_tables
from helpers import Background, run_python, spawn, until

from dbtaskqueue import StoreUnavailable, TaskQueue
from dbtaskqueue._formats import buckets
from dbtaskqueue._maintenance.attempt_history import AttemptHistory
from dbtaskqueue._store.contract import End, Exchanged, HistoryRecord, NewTask, fresh
from dbtaskqueue._system import clock
from dbtaskqueue.states import DONE

HOLDS = """
import sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
ended, held = queue.fetch(2)
ended.start()
ended.finish()
held.start()
if sys.argv[2:] == ["closes"]:
    queue.close()
"""


@pytest.mark.parametrize("closes", [[], ["closes"]])
def test_a_process_that_ends_while_it_holds_a_task(queue: TaskQueue, url: str, closes: list[str]) -> None:
    queue.enqueue_many("ab")
    run_python(HOLDS, url, *closes)
    assert in_history(queue) == in_tables(url) == {"done": 1}


DROPS = """
import sys, time
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
ask = queue.store.exchange
def slowly(worker, **asked):
    answer = ask(worker, **asked)
    time.sleep(0.3)
    return answer
def work():
    [task] = queue.fetch()
    task.start()
    queue.store.exchange = slowly
work()
"""


def test_a_process_that_ends_while_it_drops_a_task(queue: TaskQueue, url: str) -> None:
    """Another thread fails a task that was garbage-collected. The process waits until that is counted."""
    queue.enqueue("x", max_attempts=1)
    run_python(DROPS, url)
    assert in_history(queue) == in_tables(url) == {"abandoned": 1}


IS_INTERRUPTED = """
import sys
from dbtaskqueue import TaskQueue
kept = []
def work(queue, what, stored, keeps):
    ask = queue.store.exchange
    def interrupted(worker, **asked):
        if what not in asked:
            return ask(worker, **asked)
        queue.store.exchange = ask
        if stored:
            ask(worker, **asked)
        sys.exit()
    first, second = queue.fetch(2)
    if keeps:
        kept.append(second)
    first.start()
    first.finish()
    queue.store.exchange = interrupted
    second.start()
    second.finish()
with TaskQueue(sys.argv[1]) as queue:
    work(queue, sys.argv[2], sys.argv[3] == "stored", sys.argv[4] == "kept")
"""


@pytest.mark.parametrize("kept", ["kept", "garbage-collected"])
@pytest.mark.parametrize("stored", ["stored", "not stored"])
def test_an_interrupted_end_is_stored_and_counted_once(queue: TaskQueue, url: str, stored: str, kept: str) -> None:
    queue.enqueue_many("ab")
    run_python(IS_INTERRUPTED, url, "ends", stored, kept)
    assert in_history(queue) == in_tables(url) == {"done": 2}
    assert queue.stats().workers == 0


@pytest.mark.parametrize("kept", ["kept", "garbage-collected"])
@pytest.mark.parametrize("stored", ["stored", "not stored"])
def test_an_interrupted_start_leaves_no_attempt(queue: TaskQueue, url: str, stored: str, kept: str) -> None:
    queue.enqueue_many("ab")
    run_python(IS_INTERRUPTED, url, "starts", stored, kept)
    assert in_history(queue) == in_tables(url) == {"done": 1}
    [task] = queue.fetch(timeout=10)
    assert (task.payload, task.attempt, task.attempts()) == ("b", 0, [])


def test_a_task_that_is_released_after_an_interrupted_start_leaves_no_attempt(
    queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue()
    [task] = queue.fetch()
    interrupt(queue, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        task.start()
    task.release(3600)
    queue._membership.history()
    assert in_history(queue) == in_tables(url) == {}
    assert queue.stats().pending == 1


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_an_interrupted_call_can_be_repeated(queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.enqueue()
    [task] = queue.fetch()
    interrupt(queue, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        task.start()
    assert task.start()
    interrupt(queue, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        task.finish("result")
    task.finish("result")
    assert task.refresh().result == "result"
    queue._membership.leave_at_exit()
    assert in_history(queue) == in_tables(url) == {"done": 1}


def interrupt(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the next exchange after it is stored."""
    ask = queue.store.exchange

    def interrupted(worker: int, **asked: Any) -> Exchanged:
        monkeypatch.setattr(queue.store, "exchange", ask)
        ask(worker, **asked)
        raise KeyboardInterrupt

    monkeypatch.setattr(queue.store, "exchange", interrupted)


@pytest.mark.one_engine("decided in Python")
def test_an_interrupted_count_is_not_half_a_count(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    history = AttemptHistory(queue.store)
    now = clock.now()
    record = fresh(1, NewTask("default", 0, now, 10, now, None, "f", None, "1"))._replace(
        state="running", started_at=now
    )
    history.count(record, End("finish", 1, 1, now), DONE)
    index_of, calls = buckets.index_of, []

    def interrupted(microseconds: int) -> int:
        calls.append(microseconds)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return index_of(microseconds)

    monkeypatch.setattr(buckets, "index_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        history.count(record, End("finish", 1, 1, now), DONE)
    history()
    assert in_history(queue) == {"done": 1}, "all figures of the row are of one attempt"


# -- a database that is unavailable ----------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_write_that_fails_while_the_queue_is_closed_is_repeated(
    queue: TaskQueue, other: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maintenance is in the middle of it, so the thread that closes the queue finds nothing to write."""
    monkeypatch.setattr(AttemptHistory, "interval", 0.05)
    write, is_writing, fails = queue.store.write_history, threading.Event(), threading.Event()

    def write_history(rows: list[HistoryRecord]) -> None:
        if is_writing.is_set():
            write(rows)
            return
        is_writing.set()
        assert fails.wait(60)
        raise StoreUnavailable("away")

    monkeypatch.setattr(queue.store, "write_history", write_history)
    queue.enqueue()
    [task] = queue.fetch()
    task.start()
    task.finish()
    assert is_writing.wait(60)
    closing = Background(queue.close)
    until(lambda: other.stats().workers == 0, what="the removal of its row")
    fails.set()
    closing.join()
    assert in_history(other) == in_tables(url) == {"done": 1}


WRITES_NOTHING = """
import sys
from dbtaskqueue import StoreUnavailable, TaskQueue
queue = TaskQueue(sys.argv[1])
[task] = queue.fetch()
task.start()
task.finish()
def unavailable(rows):
    raise StoreUnavailable("away")
queue.store.write_history = unavailable
"""


@pytest.mark.one_engine("decided in Python")
def test_counts_that_cannot_be_stored_are_reported(queue: TaskQueue, url: str) -> None:
    queue.enqueue()
    process = spawn(WRITES_NOTHING, url)
    _, errors = process.communicate(timeout=60)
    assert "the process ends before the history has all of its attempts" in errors
    assert "away" in errors

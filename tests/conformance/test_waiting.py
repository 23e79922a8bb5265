"""Waiting for many tasks takes one thread and one query for each change, however many they are."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Sequence

import pytest
from helpers import Background, run_python, until

from dbtaskqueue import Task, TaskNotFound, TaskQueue, TaskQueueError, TaskState, waiting
from dbtaskqueue._store.contract import Standing
from dbtaskqueue.waiting import Waiting


def waiting_threads() -> int:
    return sum(thread.name == "dbtaskqueue-waiting" for thread in threading.enumerate())


class Reads:
    """Counts the queries for the states of tasks, and the tasks in each query."""

    def __init__(self, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = queue.store.standings
        self.sizes: list[int] = []
        monkeypatch.setattr(queue.store, "standings", self._counted)

    def _counted(self, tasks: Sequence[int]) -> dict[int, Standing]:
        self.sizes.append(len(tasks))
        return self._read(tasks)


def end(queue: TaskQueue, act: Callable[[Task], object]) -> None:
    [held] = queue.fetch(timeout=10)
    held.start()
    act(held)


# -- many tasks ------------------------------------------------------------------------------------


def test_all_tasks_are_waited_for(queue: TaskQueue, other: TaskQueue) -> None:
    tasks = queue.enqueue_many(range(4))
    waiter = Background(lambda: queue.wait_all(reversed(tasks), timeout=30))
    end(other, lambda held: held.finish("result"))
    end(other, lambda held: held.fail("broken", retry=False))
    until(lambda: queue.get(tasks[1].id).state == "abandoned")
    assert waiter.runs
    other.cancel(tasks[2].id)
    end(other, lambda held: held.finish())
    ended = waiter.join()
    assert [id(task) for task in ended] == [id(task) for task in reversed(tasks)]
    assert [task.state for task in tasks] == ["done", "abandoned", "cancelled", "done"]
    assert tasks[0].result == "result"


def test_a_thousand_tasks_take_one_thread_and_one_query_for_each_change(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = queue.enqueue_many(range(1000))
    reads = Reads(queue, monkeypatch)
    waiter = Background(lambda: queue.wait_all(tasks))
    until(waiting_threads)
    for task in other.fetch(1000, timeout=10):
        assert waiting_threads() <= 1
        task.start()
        task.finish()
    assert waiter.join() == tasks
    assert len(reads.sizes) < 2100  # at most one query for each start and end; it waits in between
    until(lambda: waiting_threads() == 0, what="the end of the thread")


def test_many_waiting_threads_share_one_thread(queue: TaskQueue, other: TaskQueue) -> None:
    tasks = queue.enqueue_many(range(30))
    waiters = [Background(task.get_result) for task in tasks]
    until(waiting_threads)
    for held in other.fetch(30, timeout=10):
        assert waiting_threads() <= 1
        held.start()
        held.finish(held.payload)
    assert [waiter.join() for waiter in waiters] == list(range(30))
    until(lambda: waiting_threads() == 0, what="the end of the thread")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_nothing_to_wait_for(queue: TaskQueue) -> None:
    assert queue.wait_all([]) == []
    task = queue.enqueue()
    task.cancel()
    assert queue.wait_all([task, task], timeout=0) == [task, task]
    assert waiting_threads() == 0


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_timeout_says_how_many_tasks_are_unfinished(queue: TaskQueue) -> None:
    tasks = queue.enqueue_many(range(3))
    tasks[1].cancel()
    with pytest.raises(TimeoutError, match=r"^2 of 3 tasks unfinished after 0\.05 s$"):
        queue.wait_all(tasks, timeout=0.05)
    until(lambda: waiting_threads() == 0, what="the end of the thread")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_tasks_of_other_queues_and_databases(queue: TaskQueue) -> None:
    with TaskQueue(queue.url, "mail") as mail, TaskQueue("sqlite:///:memory:") as elsewhere:
        tasks = [queue.enqueue(), mail.enqueue(), elsewhere.enqueue()]
        waiter = Background(lambda: queue.wait_all(tasks, timeout=30))
        for each in (elsewhere, mail, queue):
            assert waiter.runs
            end(each, lambda held: held.finish())
        assert waiter.join() == tasks


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_task_that_is_pruned_meanwhile(queue: TaskQueue) -> None:
    tasks = queue.enqueue_many(range(2))
    waiter = Background(lambda: queue.wait_all(tasks, timeout=30))
    tasks[0].cancel()
    queue.prune(0)
    queue.cancel(tasks[1].id)
    with pytest.raises(TaskNotFound, match=str(tasks[0].id)):
        waiter.join()


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_closed_queue_waits_for_nothing() -> None:
    with TaskQueue("sqlite:///:memory:") as queue:
        pass
    with pytest.raises(TaskQueueError, match="closed"):
        queue.wait_all([])


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_task_that_is_run_again_before_the_waiter_reads_it(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    task = queue.enqueue()
    called: list[Sequence[int]] = []

    def wait(self: Waiting, tasks: Sequence[int], deadline: float | None) -> None:
        called.append(tasks)
        if len(called) == 2:
            queue.cancel(task.id)

    monkeypatch.setattr(Waiting, "wait", wait)
    assert task.wait(timeout=10).state == "cancelled"
    assert called == [[task.id], [task.id]]


# -- callbacks -------------------------------------------------------------------------------------


def test_a_callback_gets_the_final_state_once(queue: TaskQueue, other: TaskQueue) -> None:
    waiting = Waiting.on(queue.store)
    assert Waiting.on(queue.store) is waiting
    done, missing, cancelled = queue.enqueue(), 10**9, queue.enqueue()
    cancelled.cancel()
    calls: list[tuple[int, TaskState | None]] = []
    for task in (done.id, missing, cancelled.id):
        waiting.add(task, lambda state, task=task: calls.append((task, state)))  # type: ignore[misc]
    until(lambda: len(calls) == 2)
    assert sorted(calls) == [(cancelled.id, "cancelled"), (missing, None)]
    end(other, lambda held: held.finish())
    until(lambda: len(calls) == 3)
    assert calls[-1] == (done.id, TaskState.DONE)
    until(lambda: waiting_threads() == 0, what="the end of the thread")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_callback_that_was_discarded_is_not_called(queue: TaskQueue) -> None:
    waiting = Waiting.on(queue.store)
    task = queue.enqueue()
    calls: list[str] = []
    first, second = (lambda state, name=name: calls.append(name) for name in ("first", "second"))
    waiting.add(task.id, first)
    waiting.add(task.id, second)
    waiting.discard(task.id, first)
    waiting.discard(task.id, first)
    task.cancel()
    until(lambda: calls)
    assert calls == ["second"]
    until(lambda: waiting_threads() == 0, what="the end of the thread")
    waiting.discard(task.id, second)


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_callback_that_fails_does_not_stop_the_others(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting.on(queue.store)
    task = queue.enqueue()
    states: list[TaskState | None] = []
    waiting.add(task.id, lambda state: 1 / 0)
    waiting.add(task.id, states.append)
    task.cancel()
    until(lambda: states)
    assert states == ["cancelled"]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "a callback for the end of a task failed" in record.getMessage()


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_an_unreadable_row_is_an_error_for_each_waiter(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    task = queue.enqueue()

    def broken(tasks: Sequence[int]) -> dict[int, Standing]:
        monkeypatch.setattr(queue.store, "get", lambda *_: 1 / 0)
        raise ValueError("a row that cannot be read")

    monkeypatch.setattr(queue.store, "standings", broken)
    with pytest.raises(ZeroDivisionError):
        task.wait(timeout=30)


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_waiting_does_not_keep_a_store_alive() -> None:
    queue = TaskQueue("sqlite:///:memory:")
    task = queue.enqueue()
    with pytest.raises(TimeoutError):
        task.wait(timeout=0.01)
    until(lambda: waiting_threads() == 0, what="the end of the thread")
    store = weakref.ref(queue.store)
    queue.close()
    del queue, task

    def is_freed() -> bool:
        gc.collect()
        return store() is None

    until(is_freed, what="the end of the watching thread, which uses the store")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_thread_that_cannot_be_started_is_started_later(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    task = queue.enqueue()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            task.wait(timeout=30)
    waiter = Background(lambda: task.wait(timeout=60).state)
    until(lambda: Waiting.on(queue.store)._callbacks, what="the waiter")
    queue.cancel(task.id)
    assert waiter.join() == "cancelled"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_where_changes_cannot_be_noticed_tasks_are_read_again(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where no further thread can be started. The waiting thread must not end: all others would wait forever."""

    def broken(*given: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(waiting, "_LONGEST_SLEEP", 0.1)
    monkeypatch.setattr(queue.store.wakeups, "wait_on", broken)
    task = queue.enqueue()
    waiter = Background(lambda: task.wait(timeout=30).state)
    until(lambda: any("cannot be noticed" in record.getMessage() for record in caplog.records))
    other.cancel(task.id)
    assert waiter.join() == "cancelled"


FORKED = """
import os, sys, threading
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
task = queue.enqueue()
waiter = threading.Thread(target=task.wait, daemon=True)
waiter.start()
while not any(thread.name == "dbtaskqueue-waiting" for thread in threading.enumerate()):
    pass
child = os.fork()
if child == 0:
    try:
        task.wait(timeout=0.05)
    except TimeoutError:
        pass
    queue.get(task.id).wait(timeout=30)
    os._exit(7)
[held] = queue.fetch()
with held:
    pass
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
waiter.join(30)
print(waiter.is_alive())
"""


def test_a_forked_child_waits_with_its_own_thread(url: str) -> None:
    assert run_python(FORKED, url) == "False\n"


INTERRUPTED = """
import signal, sys, threading
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
task = queue.enqueue()
signal.setitimer(signal.ITIMER_REAL, 0.2)
signal.signal(signal.SIGALRM, lambda number, frame: sys.exit("interrupted"))
try:
    task.wait()
except SystemExit as error:
    print(error)
"""


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_signal_interrupts_a_wait(url: str) -> None:
    assert run_python(INTERRUPTED, url) == "interrupted\n"

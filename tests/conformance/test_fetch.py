"""``fetch``: its order, no missed wake-up while it blocks, and no task left reserved after an interrupt."""

from __future__ import annotations

import gc
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers import Background, die_holding, ended, run_python, spawn, until

from dbtaskqueue import RetryPolicy, TaskQueue

# -- order -----------------------------------------------------------------------------------------


def test_order_by_priority_then_due_time_then_id(queue: TaskQueue) -> None:
    now = datetime.now(UTC)
    wanted = []
    for priority in (5, 0, -5):
        for age in (300, 200, 100):
            for _twin in range(2):
                wanted.append((priority, age))
    ids = {}
    for place in (11, 3, 16, 7, 0, 9, 14, 5, 2, 17, 12, 1, 10, 6, 15, 4, 13, 8):
        priority, age = wanted[place]
        task = queue.enqueue([priority, age], priority=priority, start_at=now - timedelta(seconds=age))
        ids[task.id] = (-priority, task.start_at, task.id)
    fetched = [task.id for task in queue.fetch(100, timeout=10)]
    assert fetched == sorted(ids, key=ids.__getitem__)


def test_fetching_one_by_one_gives_the_same_order(queue: TaskQueue) -> None:
    for priority in (0, 3, -2, 3, 0):
        queue.enqueue(priority=priority)
    held = [queue.fetch(timeout=10)[0] for _ in range(5)]
    assert [task.priority for task in held] == [3, 3, 0, 0, -2]
    assert [task.id for task in held] == [2, 4, 1, 5, 3]


def test_max_items_is_an_upper_bound(queue: TaskQueue) -> None:
    queue.enqueue_many(range(7))
    first = queue.fetch(3, timeout=10)
    assert [task.payload for task in first] == [0, 1, 2]
    second = queue.fetch(100, timeout=10)
    assert [task.payload for task in second] == [3, 4, 5, 6]
    assert queue.fetch(100, timeout=0) == []


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("max_items", [0, -1, 1.5, True, "1", None, 2**63, 10**5000], ids=range(8))
def test_max_items_below_one_is_refused(queue: TaskQueue, max_items: int) -> None:
    queue.enqueue()
    with pytest.raises(ValueError, match="max_items"):
        queue.fetch(max_items, timeout=0)
    assert queue.stats().pending == 1


def test_a_fetched_task_is_reserved_for_this_worker(queue: TaskQueue, other: TaskQueue) -> None:
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    assert task.state == "reserved"
    assert task.token == 1
    assert task.worker is not None
    assert (task.attempt, task.started_at) == (0, None)
    assert other.fetch(timeout=0) == []
    assert other.get(task.id).worker == task.worker


def test_a_task_that_failed_is_fetched_again_when_it_is_due(queue: TaskQueue) -> None:
    queue.enqueue(retry=RetryPolicy(delay=0.2))
    [task] = queue.fetch(timeout=10)
    task.start()
    task.fail("once")
    assert queue.fetch(timeout=0) == []
    [again] = queue.fetch(timeout=30)
    assert again.id == task.id
    assert datetime.now(UTC) >= again.start_at


def test_a_task_due_in_the_future_is_not_fetched(queue: TaskQueue) -> None:
    queue.enqueue("later", start_in=3600, priority=9)
    queue.enqueue("now", priority=-9)
    assert [task.payload for task in queue.fetch(2, timeout=10)] == ["now"]


def test_a_task_due_in_the_future_is_not_fetched_with_a_due_one(queue: TaskQueue) -> None:
    due, later = queue.enqueue("now"), queue.enqueue("later", start_in=3600)
    assert [task.id for task in queue.fetch(2, timeout=10)] == [due.id]
    assert later.refresh().state == "pending"


# -- blocking --------------------------------------------------------------------------------------


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("timeout", [0, 0.05, -1])
def test_timeout(queue: TaskQueue, timeout: float) -> None:
    started = time.monotonic()
    assert queue.fetch(timeout=timeout) == []
    assert time.monotonic() - started >= timeout


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("timeout", ["1", float("nan"), True, 10**400, 10**5000, b"1"], ids=range(6))
def test_an_invalid_timeout(queue: TaskQueue, timeout: float) -> None:
    task = queue.enqueue()
    for act in (queue.fetch, queue.next, queue.get_msg, task.wait, task.get_result):
        with pytest.raises(ValueError, match=r"timeout must be a number of seconds or a timedelta, not .+"):
            act(timeout=timeout)
    assert queue.stats().reserved == 0


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_an_infinite_timeout(queue: TaskQueue) -> None:
    task = queue.enqueue()
    [held] = queue.fetch(timeout=float("inf"))
    held.start()
    held.finish()
    assert task.wait(timeout=float("inf")).state == "done"


def waiting(queue: TaskQueue) -> Background[list[object]]:
    """Start a thread that waits in ``fetch`` and returns the payloads of its tasks."""
    thread: Background[list[object]] = Background(lambda: [task.payload for task in queue.fetch()])
    until(lambda: queue.stats().workers, what="the fetch")
    return thread


def settle(thread: Background[list[object]]) -> None:
    """Give the thread time to start its wait. The test is valid even if it has not."""
    time.sleep(0.02)
    assert thread.runs


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_an_enqueue_of_another_thread(queue: TaskQueue) -> None:
    thread = waiting(queue)
    settle(thread)
    queue.enqueue("hello")
    assert thread.join() == ["hello"]


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_another_handle(queue: TaskQueue, other: TaskQueue) -> None:
    thread = waiting(queue)
    settle(thread)
    other.enqueue("hello")
    assert thread.join() == ["hello"]


ENQUEUE = "import sys; from dbtaskqueue import TaskQueue; TaskQueue(sys.argv[1]).enqueue('hello')"


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_another_process(queue: TaskQueue, url: str) -> None:
    thread = waiting(queue)
    settle(thread)
    run_python(ENQUEUE, url)
    assert thread.join() == ["hello"]


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_no_wake_up_is_missed_in_many_handovers(queue: TaskQueue, other: TaskQueue) -> None:
    """Each task is enqueued as soon as the previous one is done: about when ``fetch`` starts to wait."""

    def consume() -> list[object]:
        seen = []
        for _ in range(200):
            [task] = queue.fetch()
            with task:
                seen.append(task.payload)
        return seen

    thread = Background(consume)
    for number in range(200):
        other.enqueue(number).wait(timeout=30)
    assert thread.join() == list(range(200))


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_a_wake_up_between_the_ticket_and_the_wait_is_not_missed(queue: TaskQueue) -> None:
    """Another thread may close the queue or enqueue a task at that moment."""
    wakeups = queue.store.wakeups
    with wakeups.waiting((queue.name,)) as ticket:
        wakeups.ring()
        Background(lambda: wakeups.wait(ticket, 60)).join()


def test_woken_by_a_due_time(queue: TaskQueue) -> None:
    queue.enqueue("later", start_in=3)
    assert queue.fetch(timeout=0) == []
    [task] = queue.fetch(timeout=30)
    assert task.payload == "later"
    assert datetime.now(UTC) >= task.start_at


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_an_earlier_due_time_than_the_one_it_waits_for(queue: TaskQueue, other: TaskQueue) -> None:
    queue.enqueue("much later", start_in=3600)
    thread = waiting(queue)
    settle(thread)
    other.enqueue("soon", start_in=0.1)
    assert thread.join() == ["soon"]


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_a_resume(queue: TaskQueue, other: TaskQueue) -> None:
    queue.pause()
    queue.enqueue("hello")
    thread = waiting(queue)
    settle(thread)
    other.resume()
    assert thread.join() == ["hello"]


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_a_release(queue: TaskQueue, other: TaskQueue) -> None:
    queue.enqueue("hello")
    [held] = other.fetch(timeout=10)
    thread = waiting(queue)
    settle(thread)
    held.release()
    assert thread.join() == ["hello"]


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_woken_by_a_retry(queue: TaskQueue, other: TaskQueue) -> None:
    task = queue.enqueue("hello")
    task.cancel()
    thread = waiting(queue)
    settle(thread)
    other.retry(task.id)
    assert thread.join() == ["hello"]


@pytest.mark.parametrize("state", ["reserved", "running"])
def test_woken_by_a_rescue(queue: TaskQueue, url: str, state: str) -> None:
    queue.enqueue("hello")
    with ended(spawn(HOLD, url, state)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        thread = waiting(queue)
        settle(thread)
        holder.kill()
        assert thread.join() == ["hello"]


HOLD = """
import sys, time
from dbtaskqueue import TaskQueue
[task] = TaskQueue(sys.argv[1]).fetch()
if sys.argv[2] == "running":
    task.start()
print("held", flush=True)
time.sleep(600)
"""


def test_fetch_itself_rescues_tasks_of_dead_workers(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue("hello")
    die_holding(url, state="reserved")
    [found] = queue.fetch(timeout=30)
    assert (found.id, found.token) == (task.id, 3)


@pytest.mark.parametrize("blocked", [1, 4])
def test_close_wakes_every_fetch(url: str, blocked: int) -> None:
    queue = TaskQueue(url)
    threads = [Background(queue.fetch) for _ in range(blocked)]
    until(lambda: queue.stats().workers, what="the fetch")
    time.sleep(0.02)
    queue.close()
    assert [thread.join() for thread in threads] == [[]] * blocked


def test_close_wakes_an_iteration(url: str) -> None:
    queue = TaskQueue(url)
    seen: list[object] = []
    thread = Background(lambda: seen.extend(task.payload for task in queue))
    queue.enqueue("x")
    until(
        lambda: seen, what="the fetch"
    )  # the state in the database changes earlier, and a close at that moment would release the task
    queue.close()
    thread.join()
    assert seen == ["x"]


@pytest.mark.one_engine("refused before a query is sent")
def test_a_closed_queue_returns_nothing_immediately(url: str) -> None:
    queue = TaskQueue(url)
    queue.enqueue()
    queue.close()
    assert queue.fetch() == []
    assert queue.next(5) == []
    assert queue.get_msg(timeout=None) == (None, None)
    assert list(queue) == []


# -- interrupted -----------------------------------------------------------------------------------

WAIT = """
import signal, sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *args: queue.close())
queue.fetch(timeout=0)
print("ready", flush=True)
try:
    print("got", len(queue.fetch()), flush=True)
except KeyboardInterrupt:
    print("interrupted", queue.stats().reserved, flush=True)
"""


@pytest.mark.parametrize(
    ("number", "answer"), [(signal.SIGINT, "interrupted 0"), (signal.SIGUSR1, "got 0")], ids=["raises", "closes"]
)
def test_a_signal_ends_a_blocked_fetch(url: str, number: signal.Signals, answer: str) -> None:
    with ended(spawn(WAIT, url)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.02)
        process.send_signal(number)
        assert process.stdout.readline().strip() == answer
        assert process.wait(30) == 0


INTERRUPTED = """
import itertools, signal, sys
from dbtaskqueue import TaskQueue

class Interrupt(BaseException):  # like KeyboardInterrupt, since drivers wrap an Exception in errors of their own
    pass

def interrupt(*args):
    raise Interrupt

queue = TaskQueue(sys.argv[1])
queue.enqueue_many(range(40))
queue.fetch(timeout=10)[0].release()
signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
for step in range(150):
    tasks = []
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00002 * (step + 1))
        try:
            tasks = queue.fetch(3, timeout=1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        interrupted += 1
        # the tasks of a fetch that had returned already were dropped, so they are released
    for task in tasks:
        task.release()
    del tasks
assert interrupted, "no interrupt hit a fetch"
import gc, time
gc.collect()
deadline = time.monotonic() + 30
while (stats := queue.stats()).reserved and time.monotonic() < deadline:
    time.sleep(0.01)
print(stats.pending, stats.reserved)
"""


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_a_fetch_that_is_interrupted_at_any_moment_leaves_nothing_reserved(url: str) -> None:
    """A signal handler raises at 150 different moments of a fetch."""
    assert run_python(INTERRUPTED, url) == "40 0\n"


CLOSED = """
import signal, sys
from dbtaskqueue import TaskQueue
closed = 0
for step in range(40):
    queue = TaskQueue(sys.argv[1])
    signal.signal(signal.SIGALRM, lambda *args: queue.close())
    for _ in range(step % 2):
        queue.fetch(timeout=0)  # registers the worker, so that the next fetch only claims
    signal.setitimer(signal.ITIMER_REAL, 0.0003 * (step // 2 + 1))
    assert queue.fetch() == []
    closed += 1
print(closed, flush=True)
"""


@pytest.mark.pooled("LISTEN does not work through a pooler")
def test_a_fetch_that_a_signal_closes_at_any_moment_ends(url: str, queue: TaskQueue) -> None:
    """A signal handler closes the queue at 40 different moments, most of them during a query."""
    with ended(spawn(CLOSED, url)) as process:
        assert process.communicate(timeout=200) == ("40\n", "")
    until(lambda: queue.stats().workers == 0, what="no worker left")


WITHDRAWN = """
import signal, sys, threading
from dbtaskqueue import TaskQueue

class Interrupt(Exception):
    pass

def interrupt(*args):
    raise Interrupt

queue = TaskQueue(sys.argv[1])
signal.signal(signal.SIGALRM, interrupt)
lock = queue.store._connections._write_lock
held, free = threading.Event(), threading.Event()

def hold():
    with lock:
        held.set()
        free.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
threading.Timer(0.3, free.set).start()
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    queue.enqueue("interrupted")
except Interrupt:
    print("interrupted")
thread.join()
queue.enqueue("another")
print(*[task.payload for task in queue.tasks()])
"""


@pytest.mark.engine("sqlite")
def test_a_write_that_was_interrupted_while_it_waited_is_not_done_later(url: str) -> None:
    assert run_python(WITHDRAWN, url) == "interrupted\nanother\n"


# -- iteration and close -------------------------------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_iteration_yields_reserved_tasks_one_by_one(queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    seen = []
    for task in queue:
        assert task.state == "reserved"
        assert queue.stats().reserved == 1
        with task:
            seen.append(task.payload)
        if len(seen) == 3:
            break
    assert seen == [0, 1, 2]
    assert len(queue.tasks(state="done")) == 3  # final counts of stats() may be seconds old


def test_close_releases_reserved_tasks_and_keeps_running_ones(url: str, queue: TaskQueue) -> None:
    closing = TaskQueue(url)
    closing.enqueue_many(range(3))
    reserved, running, also = closing.fetch(3, timeout=10)
    running.start()
    closing.close()
    closing.close()
    assert queue.get(reserved.id).state == queue.get(also.id).state == "pending"
    assert queue.get(running.id).state == "running"
    assert queue.get(reserved.id).token == 1
    running.finish("done after close")
    assert queue.get(running.id).result == "done after close"
    until(lambda: queue.stats().workers == 0, what="the end of the worker")


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_handle_that_only_enqueues_is_not_a_worker(queue: TaskQueue) -> None:
    queue.enqueue()
    assert queue.stats().workers == 0
    held = queue.fetch(timeout=10)
    assert queue.stats().workers == 1
    del held
    gc.collect()

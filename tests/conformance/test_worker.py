"""``Worker`` with threads: running, limits, stopping. Behaviour that all executors share is in test_executors.py."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Literal

import pytest
from helpers import Background, ended, spawn, until

from dbtaskqueue import (
    AbandonTask,
    ConfigurationError,
    ReleaseTask,
    RetryPolicy,
    RetryTask,
    StoreUnavailable,
    Task,
    TaskCancelled,
    TaskQueue,
    TaskQueueError,
    Worker,
    current_task,
)

pytestmark = pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")

SOON = RetryPolicy(delay=0)
LATER = RetryPolicy(delay=3600)


def states(queue: TaskQueue) -> list[str]:
    """Return the states of all tasks, oldest first."""
    return [str(task.state) for task in reversed(queue.tasks(limit=100_000))]


class Gate:
    """A callback that waits in its task until the test opens the gate."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.opened = threading.Event()
        self.seen: list[object] = []

    def __call__(self, payload: object) -> object:
        self.seen.append(payload)
        self.started.release()
        assert self.opened.wait(60)
        return payload

    def wait_for(self, tasks: int = 1) -> None:
        for _ in range(tasks):
            assert self.started.acquire(timeout=30)


# -- running ---------------------------------------------------------------------------------------


@pytest.mark.every_engine("the ends of a batch are statements of each engine")
@pytest.mark.parametrize("batch", [1, 8, "auto"])
@pytest.mark.parametrize(
    ("choice", "state", "attempt", "outcome"),
    [
        (RetryTask(), "failed", 1, "failed"),
        (RetryTask(delay=3600), "failed", 1, "failed"),
        (AbandonTask("no use"), "abandoned", 1, "abandoned"),
        (ReleaseTask(3600), "pending", 0, "released"),
        (SystemExit(3), "failed", 1, "failed"),
        (KeyboardInterrupt(), "failed", 1, "failed"),
        (TaskCancelled("from elsewhere"), "failed", 1, "failed"),
        (GeneratorExit(), "failed", 1, "failed"),
    ],
    ids=repr,
)
def test_how_a_task_ends(
    queue: TaskQueue, url: str, batch: int | str, choice: BaseException, state: str, attempt: int, outcome: str
) -> None:
    first = queue.enqueue("raise", retry=LATER)
    second = queue.enqueue("continue", retry=LATER)

    def callback(payload: str) -> str:
        if payload == "raise":
            raise choice
        return payload

    reported: list[tuple[int, str, BaseException]] = []
    Worker(url, on_error=lambda task, error: reported.append((task.id, task.state, error))).run(
        callback, burst=True, batch=batch
    )
    assert (first.refresh().state, first.attempt) == (state, attempt)
    assert [entry.outcome for entry in first.attempts()] == [outcome]
    assert second.get_result(10) == "continue"
    assert reported == ([(first.id, state, choice)] if outcome in ("failed", "abandoned") else [])


def test_an_invalid_delay_fails_the_task(queue: TaskQueue, url: str) -> None:
    first, second = queue.enqueue_many(["raise", "continue"], retry=LATER)

    def callback(payload: str) -> None:
        if payload == "raise":
            raise RetryTask(delay=-5)

    Worker(url).run(callback, burst=True)
    assert first.refresh().state in ("failed", "abandoned")
    assert second.refresh().state == "done"


@pytest.mark.parametrize("result", [object(), float("nan"), "\ud800", {1: 2}, 2**70, "x" * 1_048_576], ids=type)
def test_a_result_that_cannot_be_stored_fails_the_attempt(queue: TaskQueue, url: str, result: object) -> None:
    task, after = queue.enqueue_many([1, 2], retry=LATER)
    Worker(url).run(lambda payload: result if payload == 1 else "fine", burst=True)
    assert task.refresh().state == "failed"
    assert "result" in (task.error or "")
    assert after.get_result(10) == "fine"


def test_the_text_of_an_error_may_be_anything(queue: TaskQueue, url: str) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    tasks = queue.enqueue_many(["long", "nul", "surrogate", "silent"], retry=LATER)

    def callback(payload: str) -> None:
        raise {
            "long": ValueError("x" * 5_000_000 + "the end"),
            "nul": ValueError("a\x00b"),
            "surrogate": ValueError("\ud800"),
            "silent": Silent(),
        }[payload]

    Worker(url).run(callback, burst=True)
    assert [task.refresh().state for task in tasks] == ["failed"] * 4
    long = tasks[0].error or ""
    assert len(long) < 100_000
    assert "cut" in long
    assert "the end" in long
    assert "Silent" in (tasks[3].error or "")


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"max_tasks": 0},
        {"max_tasks": 1.5},
        {"max_tasks": True},
        {"idle_timeout": -1},
        {"idle_timeout": "1"},
        {"idle_timeout": 10**400},
        {"batch": 0},
        {"batch": "all"},
    ],
    ids=str,
)
def test_bad_limits(url: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Worker(url).run(lambda payload: None, **options)  # type: ignore[arg-type]


def test_an_invalid_callback(url: str) -> None:
    with pytest.raises(TypeError, match="callback"):
        Worker(url).run("print", burst=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": "a", "queues": ["b"]}, TypeError),
        ({"queues": "abc"}, TypeError),
        ({"queues": []}, ValueError),
        ({"concurrency": 0}, ValueError),
        ({"concurrency": 1.5}, ValueError),
        ({"executor": "fiber"}, ValueError),
        ({"lease": 0}, ValueError),
        ({"lease": float("inf")}, ValueError),
        ({"lease": "30"}, ValueError),
        ({"lease": 10**400}, ValueError),
        ({"on_error": 5}, TypeError),
        ({"drain_timeout": -1}, ValueError),
        ({"drain_timeout": "1"}, ValueError),
        ({"drain_timeout": 10**400}, ValueError),
        ({"drain_timeout": float("nan")}, ValueError),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments(url: str, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=list(options)[-1]):
        Worker(url, **options)  # type: ignore[arg-type]


def test_an_unknown_executor_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(ValueError, match="thread"):
        Worker(url, executor="fiber")


def test_a_bad_url() -> None:
    with pytest.raises(ConfigurationError):
        Worker("nonsense://")


# -- queues ----------------------------------------------------------------------------------------


def test_given_a_queue_its_name_lease_and_functions_are_used(url: str) -> None:
    with TaskQueue(url, queue="mine", lease=7) as queue:
        worker = Worker(queue, lease=99)
        assert (worker.queues, worker.lease) == (["mine"], 7)
        task = queue.task(name="shout")(lambda word: word.upper()).enqueue("x")
        worker.run(burst=True)
        assert task.get_result(10) == "X"


@pytest.mark.every_engine("the ends of a batch are statements of each engine")
def test_a_worker_deregisters_at_the_end(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    queue.enqueue(1)
    thread = Background(lambda: Worker(url).run(gate, burst=True))
    gate.wait_for()
    assert queue.stats().workers == 1
    gate.opened.set()
    thread.join()
    assert queue.stats().workers == 0


def test_a_worker_can_run_again(queue: TaskQueue, url: str) -> None:
    worker = Worker(url)
    for _ in range(3):
        queue.enqueue(1)
        worker.run(lambda payload: None, burst=True)
    assert states(queue) == ["done"] * 3


def test_a_worker_has_one_run_at_a_time(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    queue.enqueue(1)
    worker = Worker(url)
    thread = Background(lambda: worker.run(gate, burst=True))
    gate.wait_for()
    with pytest.raises(RuntimeError, match="running already"):
        worker.run(gate)
    gate.opened.set()
    thread.join()


# -- concurrency -----------------------------------------------------------------------------------


def test_no_more_than_concurrency_run_at_the_same_time(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    tasks = queue.enqueue_many(range(5))
    thread = Background(lambda: Worker(url, concurrency=3).run(gate, burst=True))
    gate.wait_for(3)
    until(lambda: [task.refresh().state for task in tasks].count("running") == 3, what="the starts")
    assert [task.refresh().state for task in tasks].count("running") == 3
    assert queue.stats().pending == 2
    gate.opened.set()
    thread.join()
    assert states(queue) == ["done"] * 5


def test_a_long_task_does_not_delay_a_short_one(queue: TaskQueue, url: str) -> None:
    gate = Gate()

    def callback(payload: str) -> object:
        return gate(payload) if payload == "long" else payload

    long = queue.enqueue("long", priority=1)
    thread = Background(lambda: Worker(url, concurrency=2).run(callback, burst=True))
    gate.wait_for()
    short = queue.enqueue_many(range(50))
    until(lambda: all(task.refresh().state == "done" for task in short), what="the short tasks")
    assert long.refresh().state == "running"
    gate.opened.set()
    thread.join()


# -- stopping --------------------------------------------------------------------------------------


def test_stop_from_another_thread_lets_the_running_task_finish(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    queue.enqueue_many(["runs", "waits"])
    worker = Worker(url)
    thread = Background(lambda: worker.run(gate))
    gate.wait_for()
    worker.stop()
    worker.stop()  # unlike a second signal, a second stop() changes nothing
    gate.opened.set()
    thread.join()
    assert states(queue) == ["done", "pending"]


def test_stop_of_an_idle_worker(url: str, queue: TaskQueue) -> None:
    worker = Worker(url)
    thread = Background(lambda: worker.run(lambda payload: None))
    until(lambda: queue.stats().workers, what="the worker")
    worker.stop()
    thread.join()


def test_stop_from_a_task(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(5))
    worker = Worker(url)
    worker.run(lambda payload: worker.stop() if payload == 2 else None, batch=1)
    assert states(queue) == ["done"] * 3 + ["pending"] * 2


def test_stop_before_run(queue: TaskQueue, url: str) -> None:
    queue.enqueue(1)
    worker = Worker(url)
    worker.stop()
    worker.run(lambda payload: None)
    assert states(queue) == ["pending"]


def test_a_worker_on_a_closed_queue_is_refused(url: str) -> None:
    queue = TaskQueue(url)
    worker = Worker(queue)
    queue.close()
    threads = threading.active_count()
    with pytest.raises(TaskQueueError, match="closed"):
        worker.run(lambda payload: None, burst=True)
    assert threading.active_count() == threads


def test_a_queue_that_is_closed_stops_its_workers(queue: TaskQueue, url: str) -> None:
    """Running tasks finish and their outcomes are stored. No new task is started."""
    gate = Gate()
    closing = TaskQueue(url)
    first, second = closing.enqueue_many([1, 2])
    thread = Background(lambda: Worker(closing).run(gate))
    gate.wait_for()
    closing.close()
    gate.opened.set()
    thread.join()
    assert (queue.get(first.id).state, queue.get(second.id).state) == ("done", "pending")
    assert queue.stats().workers == 0


def test_a_close_wakes_an_idle_worker(url: str) -> None:
    closing = TaskQueue(url)
    thread = Background(lambda: Worker(closing).run(lambda payload: None))
    until(lambda: closing.stats().workers, what="the worker")
    closing.close()
    thread.join()


def test_a_task_may_close_its_queue(queue: TaskQueue, url: str) -> None:
    closing = TaskQueue(url)
    task = closing.enqueue(1)
    Worker(closing).run(lambda payload: closing.close() or "closed")
    assert queue.get(task.id).result == "closed"


@pytest.mark.engine("sqlite")
def test_a_temporary_database_exists_until_its_last_worker_has_ended() -> None:
    gate = Gate()
    closing = TaskQueue("sqlite:///:memory:")
    task = closing.enqueue(1)
    reported: list[str] = []

    def callback(payload: object) -> None:
        gate(payload)
        raise ValueError

    worker = Worker(closing, on_error=lambda task, error: reported.append(task.state))
    thread = Background(lambda: worker.run(callback))
    gate.wait_for()
    closing.close()
    gate.opened.set()
    thread.join()
    assert reported == ["failed"]
    with pytest.raises(StoreUnavailable):
        task.refresh()


def test_a_task_sees_that_the_worker_drains(queue: TaskQueue, url: str) -> None:
    queue.enqueue(1)
    worker = Worker(url)
    seen: list[bool] = []

    def callback(payload: object) -> str:
        seen.append(current_task().should_stop)
        worker.stop()
        until(lambda: current_task().should_stop, what="should_stop")
        return "stopped"

    worker.run(callback)
    assert seen == [False]
    assert queue.tasks()[0].result == "stopped"


WORK = """
import sys, time
from dbtaskqueue import Worker
def callback(payload):
    print("started", flush=True)
    time.sleep(payload)
Worker(sys.argv[1], drain_timeout=600).run(callback)
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains(queue: TaskQueue, url: str, number: signal.Signals) -> None:
    running, waiting = queue.enqueue_many([1, 600])
    with ended(spawn(WORK, url)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        assert process.stdout.readline() == "ended\n"
        assert process.wait(30) == 0
    assert running.refresh().state == "done"
    assert (waiting.refresh().state, waiting.attempt) == ("pending", 0)


def test_a_second_signal_releases_tasks_immediately(queue: TaskQueue, url: str) -> None:
    running = queue.enqueue(600)
    with ended(spawn(WORK, url)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout.read() == "ended\n"
    assert (running.refresh().state, running.attempt) == ("pending", 0)
    assert queue.stats().workers == 0


def test_run_in_another_thread_leaves_the_signal_handlers_alone(queue: TaskQueue, url: str) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def callback(payload: object) -> None:
        seen.append((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)))

    queue.enqueue()
    Background(lambda: Worker(url).run(callback, burst=True)).join()
    assert seen == [before]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# -- cancelling ------------------------------------------------------------------------------------


def until_cancelled(then: Callable[[], object]) -> Callable[[object], object]:
    def callback(payload: object) -> object:
        until(lambda: current_task().cancelled, what="the cancel")
        return then()

    return callback


def test_a_running_task_can_check_for_cancellation(queue: TaskQueue, url: str) -> None:
    def give_up() -> None:
        raise TaskCancelled("as asked")

    task = queue.enqueue(1)
    thread = Background(lambda: Worker(url).run(until_cancelled(give_up), max_tasks=1))
    until(lambda: task.refresh().state == "running", what="the start")
    queue.cancel(task.id)
    thread.join()
    assert task.refresh().state == "cancelled"
    assert [attempt.outcome for attempt in task.attempts()] == ["cancelled"]


def test_a_task_that_finishes_before_it_is_cancelled_is_done(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue(1)
    thread = Background(lambda: Worker(url).run(until_cancelled(lambda: "not cancelled"), max_tasks=1))
    until(lambda: task.refresh().state == "running", what="the start")
    queue.cancel(task.id)
    thread.join()
    assert (task.refresh().state, task.result) == ("done", "not cancelled")


@pytest.mark.every_engine("the ends of a batch are statements of each engine")
def test_a_worker_that_lost_a_claim_stops_that_task(queue: TaskQueue, url: str) -> None:
    task, after = queue.enqueue_many([1, 2])
    reported: list[object] = []

    def callback(payload: int) -> str:
        if payload == 1:
            until(lambda: current_task().cancelled, what="the lost claim")
        return "too late"

    worker = Worker(url, on_error=lambda task, error: reported.append(task))
    thread = Background(lambda: worker.run(callback, max_tasks=2))
    until(lambda: task.refresh().state == "running", what="the start")
    after_state = after.refresh().state
    assert after_state in ("pending", "reserved")
    queue.purge()
    queue.retry(after.id)
    thread.join()
    assert (task.refresh().state, task.result) == ("abandoned", None)
    assert [attempt.outcome for attempt in task.attempts()] == ["abandoned"]
    assert after.refresh().state == "done"
    assert reported == []


# -- batches ---------------------------------------------------------------------------------------


def short_tasks_then(queue: TaskQueue, gate: Gate, behind: int = 20) -> tuple[Callable[[object], object], list[Task]]:
    """Enqueue many short tasks so that batches grow, then one that waits at a gate with more behind it."""
    queue.enqueue_many(["short"] * 400)
    tasks = [queue.enqueue("gate"), *queue.enqueue_many(["short"] * behind)]

    def callback(payload: str) -> object:
        return gate(payload) if payload == "gate" else payload

    return callback, tasks


def test_a_batch_of_a_given_size_is_reserved_in_one_step(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    tasks = queue.enqueue_many(["x"] * 8)
    thread = Background(lambda: Worker(url).run(gate, burst=True, batch=5))
    gate.wait_for()
    assert queue.stats().pending == 3
    gate.opened.set()
    thread.join()
    assert [task.refresh().state for task in tasks] == ["done"] * 8


@pytest.mark.every_engine("the ends of a batch are statements of each engine")
@pytest.mark.parametrize("size", [2, 10, 99, 123])
def test_each_task_of_a_batch_gets_its_own_outcome(queue: TaskQueue, url: str, size: int) -> None:
    """Engines split a batch into statements of a few sizes."""
    tasks = queue.enqueue_many(range(2 * size))
    Worker(url).run(lambda payload: None if payload % 5 == 0 else {"n": payload}, burst=True, batch=size)
    ended = [task.refresh() for task in tasks]
    assert {(task.state, task.attempt, task.token) for task in ended} == {("done", 1, 1)}
    assert [task.result for task in ended] == [None if n % 5 == 0 else {"n": n} for n in range(2 * size)]
    assert all(task.started_at <= task.finished_at for task in ended)  # type: ignore[operator]


def test_outcomes_of_a_batch_do_not_wait_for_a_long_task_in_it(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    first, second = queue.enqueue_many(["short", "gate"])
    thread = Background(
        lambda: Worker(url).run(lambda payload: gate(payload) if payload == "gate" else 1, burst=True, batch=2)
    )
    gate.wait_for()
    until(lambda: first.refresh().state == "done", what="the end of the first")
    until(lambda: second.refresh().state == "running", what="the start of the second")
    gate.opened.set()
    thread.join()


@pytest.mark.pooled("claims and locks")
@pytest.mark.every_engine("the ends of a batch are statements of each engine")
def test_a_cancel_of_a_task_that_waits_in_a_batch(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    first, second = queue.enqueue_many(["gate", "victim"])
    seen: list[str] = []

    def callback(payload: str) -> object:
        seen.append(payload)
        return gate(payload) if payload == "gate" else payload

    thread = Background(lambda: Worker(url).run(callback, burst=True, batch=2))
    gate.wait_for()
    queue.cancel(second.id)
    gate.opened.set()
    thread.join()
    assert first.refresh().state == "done"
    assert (second.refresh().state, second.result) == ("cancelled", None)


@pytest.mark.every_engine("the ends of a batch are statements of each engine")
def test_a_drain_releases_the_rest_of_a_batch(queue: TaskQueue, url: str) -> None:
    gate = Gate()
    callback, tasks = short_tasks_then(queue, gate, behind=3)
    worker = Worker(url)
    thread = Background(lambda: worker.run(callback))
    gate.wait_for()
    worker.stop()
    until(lambda: {task.refresh().state for task in tasks[1:]} <= {"pending", "done"}, what="the release")
    gate.opened.set()
    thread.join()
    assert tasks[0].refresh().state == "done"
    assert all(task.refresh().attempt == (task.state == "done") for task in tasks[1:])


BATCH_KILLER = """
import os, sys
from dbtaskqueue import Worker
def callback(payload):
    if payload == "killer":
        os._exit(9)
    return payload
Worker(sys.argv[1]).run(callback, burst=True, batch=5)
"""


@pytest.mark.every_engine("the ends of a batch are statements of each engine")
def test_tasks_in_a_batch_with_one_that_kills_the_worker_spend_no_attempt(queue: TaskQueue, url: str) -> None:
    """If it is unknown which task killed the worker, its tasks run alone. Only a started task spends an attempt."""
    payloads = ["a", "b", "killer", "c", "d"]
    tasks = queue.enqueue_many(payloads, max_attempts=1)
    for _ in range(10):
        with ended(spawn(BATCH_KILLER, url)) as process:
            process.wait(60)
        queue.pause()  # so that this handle rescues, but claims nothing
        until(lambda: queue.fetch(timeout=0) == [] and not queue.tasks(state="reserved"), what="the rescue")
        queue.resume()
        if all(task.refresh().state in ("done", "abandoned") for task in tasks):
            break
    assert [task.refresh().state for task in tasks] == ["done", "done", "abandoned", "done", "done"]
    assert [task.attempt for task in tasks] == [1] * 5


FORK = """
import os, signal, sys, time
from dbtaskqueue import TaskQueue, Worker
url, end = sys.argv[1:]
def callback(payload):
    child = os.fork()
    if child == 0:
        if end == "exit":
            sys.exit(3)
        if end == "text":
            sys.exit("raised by the child")
        if end == "raise":
            raise ValueError("raised by the child")
        return
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return "the child hangs"
Worker(url).run(callback, burst=True)
"""


@pytest.mark.parametrize(("end", "code"), [("exit", 3), ("text", 1), ("raise", 1), ("return", 0)])
def test_a_child_forked_by_a_task_does_not_continue_as_a_worker(
    queue: TaskQueue, url: str, end: str, code: int
) -> None:
    task = queue.enqueue()
    with ended(spawn(FORK, url, end)) as process:
        _, errors = process.communicate(timeout=60)
    assert (task.refresh().state, task.result) == ("done", code)
    assert ("raised by the child" in errors) == (end in ("text", "raise"))
    assert queue.stats().workers == 0


@pytest.mark.every_engine("a claim finds what an end in the same transaction releases")
@pytest.mark.parametrize("batch", ["auto", 1, 20])
@pytest.mark.parametrize("ends_itself", [False, True], ids=["returns", "transaction"])
def test_a_burst_runs_the_children_that_its_own_tasks_release(
    queue: TaskQueue, batch: Literal["auto"] | int, ends_itself: bool
) -> None:
    task = queue.enqueue()
    for _ in range(4):
        task = queue.enqueue(after=task)

    def work(payload: object) -> None:
        if ends_itself:
            with current_task().transaction():
                pass

    Worker(queue).run(work, burst=True, batch=batch)
    assert states(queue) == ["done"] * 5

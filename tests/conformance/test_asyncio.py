"""Coroutines as tasks: many in one event loop (``executor="asyncio"``), or one loop per thread (``"thread"``)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import Background, ended, run_python, spawn, until

from dbtaskqueue import (
    AbandonTask,
    Progress,
    ReleaseTask,
    RetryPolicy,
    RetryTask,
    Task,
    TaskCancelled,
    TaskQueue,
    Worker,
    current_task,
)
from dbtaskqueue._executors import coroutines

pytestmark = pytest.mark.one_engine("an executor never touches a database")

EAGER = RetryPolicy(delay=0, max_attempts=5)
LATER = RetryPolicy(delay=3600)
BOTH = pytest.mark.parametrize("executor", ["asyncio", "thread"])


def run(queue: TaskQueue, callback: Callable[..., Any] | None = None, **options: Any) -> None:
    """Run all due tasks, in one event loop unless another executor is given."""
    limits = {"burst": True} | {name: options.pop(name) for name in ("batch", "max_tasks", "burst") if name in options}
    Worker(queue, **{"executor": "asyncio", **options}).run(callback, **limits)


def states(queue: TaskQueue) -> list[str]:
    return [str(task.state) for task in reversed(queue.tasks(limit=100_000))]


class Gate:
    """A coroutine that waits in its task until a thread opens the gate. It records how each wait ended."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.opened = threading.Event()
        self.left: list[BaseException | None] = []

    async def __call__(self, payload: object) -> object:
        self.started.release()
        try:
            while not self.opened.is_set():
                await asyncio.sleep(0.005)
        except BaseException as error:
            self.left.append(error)
            raise
        self.left.append(None)
        return payload

    def wait_for(self, tasks: int = 1) -> None:
        for _ in range(tasks):
            assert self.started.acquire(timeout=30)


# -- where it runs ---------------------------------------------------------------------------------


def test_hundreds_run_concurrently_in_one_thread(queue: TaskQueue) -> None:
    queue.enqueue_many(range(300))
    inside: set[int] = set()
    threads: set[int] = set()
    all_in = []

    async def callback(payload: int) -> None:
        threads.add(threading.get_ident())
        inside.add(payload)
        if len(inside) == 300:
            all_in.append(asyncio.get_running_loop())
        while not all_in:
            await asyncio.sleep(0.01)

    run(queue, callback, concurrency=300)
    assert states(queue) == ["done"] * 300
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_no_more_than_concurrency_run_at_the_same_time(queue: TaskQueue) -> None:
    gate = Gate()
    queue.enqueue_many(range(5))
    thread = Background(lambda: run(queue, gate, concurrency=3))
    gate.wait_for(3)
    until(lambda: queue.stats().running == 3, what="the starts")
    assert not gate.started.acquire(timeout=0.2)
    assert queue.stats().pending == 2
    gate.opened.set()
    thread.join()
    assert states(queue) == ["done"] * 5


def test_a_batch_does_not_run_more_tasks_than_concurrency(queue: TaskQueue) -> None:
    queue.enqueue_many(range(20))
    inside = 0
    most: list[int] = []

    async def callback(payload: int) -> None:
        nonlocal inside
        inside += 1
        most.append(inside)
        await asyncio.sleep(0.002)
        inside -= 1

    run(queue, callback, concurrency=3, batch=20)
    assert max(most) == 3
    assert states(queue) == ["done"] * 20


class Awaitable:
    async def __call__(self, payload: object) -> object:
        return payload


async def plus(more: int, payload: int) -> int:
    await asyncio.sleep(0)
    return payload + more


@BOTH
@pytest.mark.parametrize(
    "code",
    [functools.partial(plus, 0), Awaitable(), Awaitable().__call__, lambda payload: plus(0, payload)],
    ids=["partial", "object", "method", "lambda"],
)
def test_every_kind_of_async_callable(queue: TaskQueue, code: Callable[[object], object], executor: str) -> None:
    task = queue.enqueue(7)
    run(queue, code, executor=executor)
    assert task.get_result(10) == 7


@BOTH
def test_task_functions(queue: TaskQueue, executor: str) -> None:
    @queue.task(name="thumbnail")
    async def thumbnail(path: str, width: int = 320) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"path": path, "width": width, "function": current_task().function}

    @queue.task(name="plain")
    def plain(path: str) -> str:
        return path

    with pytest.raises(TypeError):
        thumbnail.enqueue()  # type: ignore[call-arg]
    tasks = [thumbnail.enqueue("a", width=7), plain.enqueue("b")]
    run(queue, executor=executor)
    assert [task.get_result(10) for task in tasks] == [{"path": "a", "width": 7, "function": "thumbnail"}, "b"]
    assert asyncio.run(plus(1, 2)) == 3, "calling it still returns a coroutine"


def test_an_async_generator_is_refused(queue: TaskQueue) -> None:
    async def numbers(payload: object) -> Any:
        yield 1

    with pytest.raises(TypeError, match="the task function is an async generator"):
        queue.task(numbers)
    for executor in ("asyncio", "thread"):
        with pytest.raises(TypeError, match="the callback is an async generator"):
            run(queue, numbers, executor=executor)


def test_plain_functions_run_in_threads_beside_the_loop(queue: TaskQueue) -> None:
    together = threading.Barrier(4, timeout=30)
    threads: set[int] = set()

    @queue.task(name="plain")
    def plain(number: int) -> int:
        threads.add(threading.get_ident())
        together.wait()  # up to `concurrency` threads, while the loop keeps running
        return current_task().payload["args"][0]  # type: ignore[no-any-return]

    @queue.task(name="coroutine")
    async def coroutine() -> int:
        await asyncio.sleep(0.01)
        return threading.get_ident()

    tasks = [plain.enqueue(number) for number in range(8)]
    ticks = [coroutine.enqueue() for _ in range(3)]
    run(queue, concurrency=4)
    assert [task.get_result(10) for task in tasks] == list(range(8))
    assert len({tick.get_result(10) for tick in ticks} | threads) == len(threads) + 1
    assert len(threads) == 4, "free threads are used again"


def test_an_unknown_function_releases_its_task_only(queue: TaskQueue) -> None:
    [unknown] = queue.submit([{"args": [], "kwargs": {}}], {"retry": LATER}, "unknown.function")
    fine = queue.enqueue(1)
    run(queue, functools.partial(plus, 1))
    assert (unknown.refresh().state, unknown.attempt) == ("pending", 0)
    assert fine.get_result(10) == 2


def test_each_coroutine_has_its_own_loop_in_threads(queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    together = threading.Barrier(3, timeout=30)
    loops: list[object] = []

    async def callback(payload: int) -> None:
        together.wait()  # blocks only its own loop
        loops.append(asyncio.get_running_loop())

    run(queue, callback, executor="thread", concurrency=3)
    assert len(set(map(id, loops))) == 3
    assert states(queue) == ["done"] * 3


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("plain", [False, True])
def test_context_variables_come_from_the_caller_of_run_and_do_not_leak_between_tasks(
    queue: TaskQueue, plain: bool, batch: int
) -> None:
    seen: list[str] = []

    def read_variable(payload: int) -> None:
        seen.append(variable.get())
        variable.set(f"of task {payload}")

    async def read_variable_async(payload: int) -> None:
        read_variable(payload)

    queue.enqueue_many(range(4))
    before = variable.set("the caller's")
    run(queue, read_variable if plain else read_variable_async, batch=batch)
    variable.reset(before)
    assert seen == ["the caller's"] * 4


# -- how it ends -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("batch", [1, 8, "auto"])
@pytest.mark.parametrize(
    ("choice", "state", "attempt", "outcome"),
    [
        (ValueError("no luck"), "failed", 1, "failed"),
        (RetryTask(delay=3600), "failed", 1, "failed"),
        (AbandonTask("no use"), "abandoned", 1, "abandoned"),
        (ReleaseTask(3600), "pending", 0, "released"),
        (SystemExit(3), "failed", 1, "failed"),
        (KeyboardInterrupt(), "failed", 1, "failed"),
        (TaskCancelled("from elsewhere"), "failed", 1, "failed"),
        (asyncio.CancelledError("from elsewhere"), "failed", 1, "failed"),
        (GeneratorExit(), "failed", 1, "failed"),
    ],
    ids=repr,
)
def test_how_a_task_ends(
    queue: TaskQueue,
    executor: str,
    batch: int | str,
    choice: BaseException,
    state: str,
    attempt: int,
    outcome: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = queue.enqueue("raise", retry=LATER)
    second = queue.enqueue("continue", retry=LATER)

    async def callback(payload: str) -> str:
        await asyncio.sleep(0)
        if payload == "raise":
            raise choice
        return payload

    reported: list[tuple[int, str, BaseException]] = []
    run(
        queue,
        callback,
        executor=executor,
        batch=batch,
        on_error=lambda task, error: reported.append((task.id, task.state, error)),
    )
    assert (first.refresh().state, first.attempt) == (state, attempt)
    assert [entry.outcome for entry in first.attempts()] == [outcome]
    assert second.get_result(10) == "continue"
    assert reported == ([(first.id, state, choice)] if outcome in ("failed", "abandoned") else [])
    reported.clear()
    choice.__traceback__ = None
    gc.collect()  # asyncio logs an exception that was never retrieved when its task is collected
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("way", ["asyncio task", "callback of the loop"])
def test_a_system_exit_in_what_a_task_started_does_not_end_the_loop(
    queue: TaskQueue, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        raise SystemExit(5)

    async def callback(payload: int) -> int:
        if payload == 1:
            if way == "asyncio task":
                await asyncio.create_task(leave())
            asyncio.get_running_loop().call_soon(lambda: leave().send(None))
        await asyncio.sleep(0.05)
        return payload

    tasks = queue.enqueue_many(range(6), retry=LATER)
    run(queue, callback, concurrency=3)
    expected = ["done", "failed" if way == "asyncio task" else "done", *["done"] * 4]
    assert [task.refresh().state for task in tasks] == expected
    assert "code that a task left running in the event loop raised" in caplog.text


def test_a_result_that_cannot_be_stored_fails_the_attempt(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=LATER)

    async def callback(payload: object) -> object:
        return object()

    run(queue, callback)
    assert "result" in (task.refresh().error or "")
    assert task.state == "failed"


FORK = """
import asyncio, os, sys
from dbtaskqueue import TaskQueue, Worker
async def callback(payload):
    if not (child := os.fork()):
        return "as if it were the worker"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with TaskQueue(sys.argv[1]) as queue:
    queue.enqueue_many([1, 2])
    Worker(queue, executor="asyncio").run(callback, burst=True)
    print([task.result for task in queue.tasks()])
"""


def test_a_child_forked_by_a_coroutine_does_not_continue_as_the_worker(url: str) -> None:
    assert run_python(FORK, url) == "[0, 0]\n"


# -- current_task() --------------------------------------------------------------------------------


@BOTH
def test_each_coroutine_and_its_asyncio_tasks_have_their_own_current_task(queue: TaskQueue, executor: str) -> None:
    tasks = queue.enqueue_many(range(5))

    async def spawned() -> int:
        await asyncio.sleep(0.01)
        return current_task().id

    async def callback(payload: int) -> list[int]:
        here = current_task()
        found = await asyncio.gather(spawned(), asyncio.create_task(spawned()), asyncio.to_thread(lambda: here.id))
        return [current_task().id, *found, await asyncio.to_thread(lambda: current_task().id)]

    run(queue, callback, executor=executor, concurrency=5)
    for task in tasks:
        assert task.refresh().result == [task.id] * 5


@BOTH
def test_progress_and_checkpoints_of_a_coroutine(queue: TaskQueue, executor: str) -> None:
    task = queue.enqueue(retry=EAGER)
    seen: list[object] = []

    async def callback(payload: object) -> str:
        here = current_task()
        seen.append(here.saved)
        here.progress(here.attempt, 2, "well")
        here.checkpoint({"attempt": here.attempt})
        await asyncio.to_thread(here.checkpoint, {"attempt": here.attempt, "by": "thread"})
        if here.attempt == 1:
            raise ValueError
        return "end"

    run(queue, callback, executor=executor, batch=1)
    assert seen == [None, {"attempt": 1, "by": "thread"}]
    assert task.refresh().result == "end"
    assert task.progress == Progress(2, 2, "well", None)


def test_progress_is_seen_while_it_runs(queue: TaskQueue) -> None:
    task = queue.enqueue()
    gate = Gate()

    async def callback(payload: object) -> None:
        current_task().progress(1, 4)
        await gate(payload)

    thread = Background(lambda: run(queue, callback))
    until(lambda: task.refresh().progress)
    assert task.state == "running"
    gate.opened.set()
    thread.join()


@BOTH
def test_an_async_step_is_run_once_over_all_attempts(queue: TaskQueue, executor: str) -> None:
    task = queue.enqueue(retry=EAGER)
    ran: list[str] = []

    async def fetch(name: str, *, value: object = None) -> object:
        await asyncio.sleep(0.001)
        ran.append(f"{name} in {current_task().attempt}")
        if name == "fragile" and current_task().attempt == 1:
            raise ValueError
        return value

    async def callback(payload: object) -> list[object]:
        here = current_task()
        results = [await here.step("a", fetch, "a", value=(1, 2))]
        results += await asyncio.gather(here.step("b", fetch, "b"), here.step("c", fetch, "c", value="x" * 2000))
        results += [here.step("plain", lambda: "p"), await here.step("fragile", fetch, "fragile", value="f")]
        with pytest.raises(ValueError, match="has used the step"):
            here.step("a", fetch, "a")
        return results

    run(queue, callback, executor=executor, batch=1)
    assert sorted(ran) == ["a in 1", "b in 1", "c in 1", "fragile in 1", "fragile in 2"]
    assert task.refresh().result == [[1, 2], None, "x" * 2000, "p", "f"]


@pytest.fixture
def rows(queue: TaskQueue) -> Iterator[Callable[[], list[int]]]:
    """Create a table of the application; return a function that reads its numbers."""
    store: Any = queue.store

    def execute(statement: str) -> list[Any]:
        with store._connections.own_transaction() as tx:
            cursor = tx.connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    execute("CREATE TABLE app_numbers (number INTEGER)")
    yield lambda: [row[0] for row in execute("SELECT number FROM app_numbers ORDER BY number")]
    execute("DROP TABLE app_numbers")


def insert(connection: Any, number: int) -> None:
    connection.cursor().execute(f"INSERT INTO app_numbers VALUES ({number})")


@BOTH
@pytest.mark.parametrize("batch", [1, 10])
def test_a_transaction(queue: TaskQueue, rows: Callable[[], list[int]], executor: str, batch: int) -> None:
    tasks = queue.enqueue_many(range(10))

    async def callback(payload: int) -> None:
        await asyncio.sleep(0.001)
        with current_task().transaction(payload) as connection:
            insert(connection, payload)
        await asyncio.sleep(0.001)

    run(queue, callback, executor=executor, batch=batch, concurrency=10)
    assert rows() == list(range(10))
    assert [task.refresh().result for task in tasks] == list(range(10))


@BOTH
def test_an_await_in_a_transaction_rolls_it_back_and_blocks_no_other_task(
    queue: TaskQueue, rows: Callable[[], list[int]], executor: str
) -> None:
    tasks = queue.enqueue_many(["awaits", "keeps"], retry=LATER)
    inside = threading.Event()

    async def callback(payload: str) -> str:
        if payload == "awaits":
            with current_task().transaction() as connection:
                inside.set()
                insert(connection, 1)
                await asyncio.sleep(0.05)
        else:
            while not inside.is_set():
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            current_task().checkpoint("kept")  # would deadlock: it waits for the lock, whose holder waits for this loop
        return payload

    run(queue, callback, executor=executor, concurrency=2)
    assert rows() == []
    assert [task.refresh().state for task in tasks] == ["failed", "done"]
    assert "was awaited inside transaction()" in (tasks[0].error or "")


def test_a_transaction_in_a_thread_may_block(queue: TaskQueue, rows: Callable[[], list[int]]) -> None:
    task = queue.enqueue()

    def write() -> None:
        with current_task().transaction("stored") as connection:
            insert(connection, 1)
            time.sleep(0.05)

    async def callback(payload: object) -> None:
        await asyncio.to_thread(write)

    run(queue, callback)
    assert rows() == [1]
    assert task.refresh().result == "stored"


# -- cancelling ------------------------------------------------------------------------------------


@BOTH
def test_cancelling_a_task_cancels_its_coroutine(queue: TaskQueue, executor: str) -> None:
    gate = Gate()
    task, other = queue.enqueue_many(["cancelled", "continues"])
    reported: list[Task] = []
    thread = Background(
        lambda: run(queue, gate, executor=executor, concurrency=2, on_error=lambda task, error: reported.append(task))
    )
    gate.wait_for(2)
    until(lambda: task.refresh().state == "running", what="the start")
    task.cancel()
    until(lambda: task.refresh().state == "cancelled", what="the end")
    assert [type(error) for error in gate.left] == [asyncio.CancelledError]
    assert [attempt.outcome for attempt in task.attempts()] == ["cancelled"]
    assert other.refresh().state == "running"
    gate.opened.set()
    thread.join()
    assert other.refresh().state == "done"
    assert reported == []


@BOTH
def test_awaited_asyncio_tasks_are_cancelled_too(queue: TaskQueue, executor: str) -> None:
    gate = Gate()
    task = queue.enqueue()

    async def callback(payload: object) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(gate(payload))

    thread = Background(lambda: run(queue, callback, executor=executor))
    gate.wait_for(3)
    until(lambda: task.refresh().state == "running", what="the start")
    task.cancel()
    thread.join()
    assert [type(error) for error in gate.left] == [asyncio.CancelledError] * 3
    assert task.refresh().state == "cancelled"


def test_a_task_that_finishes_before_it_is_cancelled_is_done(queue: TaskQueue) -> None:
    task = queue.enqueue()
    gate = Gate()

    async def callback(payload: object) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await gate(payload)
        return f"done, cancelled: {current_task().cancelled}"

    thread = Background(lambda: run(queue, callback))
    gate.wait_for()
    until(lambda: task.refresh().state == "running", what="the start")
    task.cancel()
    thread.join()
    assert (task.refresh().state, task.result) == ("done", "done, cancelled: True")


@BOTH
def test_a_coroutine_that_ignores_a_cancellation_is_cancelled_again(
    queue: TaskQueue, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coroutines, "_CANCEL_AGAIN", 0.05)
    task = queue.enqueue()
    gate = Gate()

    async def callback(payload: object) -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await gate(payload)
        await gate(payload)

    thread = Background(lambda: run(queue, callback, executor=executor))
    gate.wait_for()
    until(lambda: task.refresh().state == "running", what="the start")
    task.cancel()
    thread.join()
    assert len(gate.left) == 4
    assert task.refresh().state == "cancelled"


def test_losing_the_claim_cancels_the_coroutine(queue: TaskQueue) -> None:
    task = queue.enqueue()
    gate = Gate()
    thread = Background(lambda: run(queue, gate))
    gate.wait_for()
    until(lambda: task.refresh().state == "running", what="the start")
    queue.purge()
    thread.join()
    assert [type(error) for error in gate.left] == [asyncio.CancelledError]
    assert task.refresh().state == "abandoned"


def test_cancelled_before_it_awaits_anything(queue: TaskQueue) -> None:
    """The task blocks the loop at that moment, so the cancellation takes effect at its first await."""
    task = queue.enqueue()
    after: list[int] = []

    async def callback(payload: object) -> None:
        task.cancel()
        until(lambda: current_task().cancelled, what="the cancellation request")
        await asyncio.sleep(0)
        after.append(1)

    run(queue, callback)
    assert task.refresh().state == "cancelled"
    assert after == []


def test_cancelled_before_it_started(queue: TaskQueue) -> None:
    """The task is claimed, but the event loop is blocked and cannot start it."""
    proceed = threading.Event()
    ran: list[str] = []

    async def callback(payload: str) -> None:
        if payload == "blocks":
            ran.append("blocks")
            assert proceed.wait(30)
            return
        await asyncio.sleep(0)
        ran.append("continued")

    queue.enqueue("blocks")
    worker = Worker(queue, executor="asyncio", concurrency=2)
    thread = Background(lambda: worker.run(callback, burst=True))
    until(lambda: ran, what="the start of the first task")
    task = queue.enqueue("waits")
    until(lambda: task.refresh().state == "running", what="the claim")
    task.cancel()
    until(
        lambda: worker._loop and any(run.cancelled for run in list(worker._loop._active)),
        what="the cancellation request",
    )
    proceed.set()
    thread.join()
    assert ran == ["blocks"]
    assert task.refresh().state == "cancelled"


# -- stopping --------------------------------------------------------------------------------------


@BOTH
def test_a_task_sees_that_the_worker_drains(queue: TaskQueue, executor: str) -> None:
    task = queue.enqueue()
    worker = Worker(queue, executor=executor)

    async def callback(payload: object) -> str:
        before = current_task().should_stop
        worker.stop()
        while not current_task().should_stop:
            await asyncio.sleep(0.001)
        return f"before: {before}"

    worker.run(callback)
    assert task.refresh().result == "before: False"


@BOTH
def test_a_coroutine_that_outlasts_the_drain_is_cancelled_and_spends_no_attempt(
    queue: TaskQueue, executor: str
) -> None:
    gate = Gate()
    tasks = queue.enqueue_many(["plain", "finishes", "raises"])
    unwound: list[str] = []

    async def callback(payload: str) -> str:
        current_task().checkpoint(f"of task {payload}")
        try:
            await gate(payload)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)  # closes its connections, for example
            unwound.append(payload)
            if payload == "raises":
                raise ValueError("something went wrong meanwhile") from None
            if payload == "plain":
                raise
        return "finished"

    reported: list[Task] = []
    worker = Worker(
        queue,
        executor=executor,
        concurrency=3,
        drain_timeout=0.1,
        on_error=lambda task, error: reported.append(task),
    )
    thread = Background(lambda: worker.run(callback))
    gate.wait_for(3)
    worker.stop()
    thread.join()
    assert sorted(unwound) == ["finishes", "plain", "raises"]
    assert [task.refresh().state for task in tasks] == ["pending", "done", "pending"]
    assert [task.attempt for task in tasks] == [0, 1, 0]
    assert [attempt.outcome for attempt in tasks[0].attempts()] == ["released"]
    assert reported == []
    seen: list[object] = []

    async def again(payload: str) -> None:
        seen.append(current_task().saved)

    run(queue, again)
    assert sorted(map(str, seen)) == ["of task plain", "of task raises"]


WORK = """
import asyncio, sys, time
from dbtaskqueue import Worker
async def callback(payload):
    print("started", flush=True)
    if payload == "blocks":
        time.sleep(600)
    try:
        await asyncio.sleep(600)
    finally:
        print("unwound", flush=True)
Worker(sys.argv[1], executor="asyncio").run(callback)
print("ended", flush=True)
"""


@pytest.mark.parametrize("what", ["waits", "blocks"])
def test_a_second_signal_releases_tasks_immediately(queue: TaskQueue, url: str, what: str) -> None:
    task = queue.enqueue(what)
    with ended(spawn(WORK, url)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert output == ("unwound\nended\n" if what == "waits" else "ended\n")
    assert (task.refresh().state, task.attempt) == ("pending", 0)
    assert queue.stats().workers == 0


def test_no_threads_and_no_asyncio_tasks_are_left(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    """Threads end with the run, and asyncio tasks that a task left in the loop are cancelled."""
    before = set(threading.enumerate())
    left: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            left.append("cancelled")
            raise

    kept: list[object] = []

    async def callback(payload: int) -> None:
        kept.append(asyncio.create_task(forgotten()))
        await asyncio.sleep(0)

    queue.enqueue_many(range(3))
    run(queue, callback, concurrency=3)
    queue.enqueue()
    run(queue, lambda payload: None)
    assert left == ["cancelled"] * 3
    until(
        lambda: {t for t in threading.enumerate() if t.name.startswith("dbtaskqueue-")} <= before,
        what="the end of the threads",
    )
    assert caplog.text == ""


# -- a loop that is blocked ------------------------------------------------------------------------


def freeze(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.parametrize("spawned", [False, True])
def test_a_blocked_loop_is_logged_with_its_stack_and_its_worker_is_not_marked_lost(
    url: str, caplog: pytest.LogCaptureFixture, spawned: bool
) -> None:
    async def block(payload: str) -> None:
        await asyncio.sleep(0.01)
        if payload == "blocks":
            freeze(3)

    async def callback(payload: str) -> str:
        if spawned:
            await asyncio.create_task(block(payload))
        else:
            await block(payload)
        await asyncio.sleep(0.5 if payload == "waits" else 0)
        return payload

    with TaskQueue(url, lease=1) as queue, TaskQueue(url, lease=1) as other:
        tasks = queue.enqueue_many(["waits", "blocks"])
        with caplog.at_level(logging.WARNING, "dbtaskqueue"):
            thread = Background(lambda: run(queue, callback, concurrency=2))
            until(lambda: queue.stats().running == 2 or not thread.runs, what="the starts")
            assert other.fetch(timeout=2) == [], "a blocked loop does not make the worker lost"
            thread.join()
        assert [(task.refresh().state, task.attempt) for task in tasks] == [("done", 1)] * 2
    blocked = [record for record in caplog.records if "the event loop is blocked" in record.getMessage()]
    assert len(blocked) == 1, "logged once for each blockage"
    fields: dict[str, object] = blocked[0].fields  # type: ignore[attr-defined]
    assert fields["tasks"] == f"{tasks[0].id},{tasks[1].id}"
    assert fields.get("task_id") == (None if spawned else tasks[1].id)
    assert str(fields["at"]).partition(":")[0] == __file__
    assert "in freeze" in (blocked[0].stack_info or "")
    assert sum("the event loop runs again" in record.getMessage() for record in caplog.records) == 1


def test_tasks_that_await_do_not_block_the_loop(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    queue.enqueue_many([2] * 3)
    run(queue, asyncio.sleep, concurrency=3)
    assert "blocked" not in caplog.text


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, "auto"])
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_each_task_is_run_once(queue: TaskQueue, batch: int | str, concurrency: int, plain: bool) -> None:
    tasks = queue.enqueue_many(range(400))
    seen: list[int] = []

    def square(payload: int) -> int:
        seen.append(payload)
        return payload**2

    async def square_async(payload: int) -> int:
        return square(payload)

    run(queue, square if plain else square_async, concurrency=concurrency, batch=batch)
    assert sorted(seen) == list(range(400))
    if concurrency == 1:
        assert seen == sorted(seen)
    for task in tasks:
        assert (task.refresh().state, task.result, task.attempt) == ("done", task.payload**2, 1)


def test_a_long_task_in_a_batch_releases_the_tasks_behind_it(queue: TaskQueue) -> None:
    """Its start is stored, and the tasks behind it are released so that another worker can run them."""
    gate = Gate()
    queue.enqueue_many(["short"] * 400)
    tasks = [queue.enqueue("gate"), *queue.enqueue_many(["short"] * 20)]

    async def callback(payload: str) -> object:
        return await gate(payload) if payload == "gate" else payload

    thread = Background(lambda: run(queue, callback))
    gate.wait_for()
    until(lambda: tasks[0].refresh().state == "running", what="the stored start")
    assert tasks[0].attempt == 1
    until(lambda: {task.refresh().state for task in tasks[1:]} == {"pending"}, what="the release")
    assert {task.attempt for task in tasks[1:]} == {0}
    gate.opened.set()
    thread.join()
    assert set(states(queue)) == {"done"}
    assert all(task.attempt == 1 for task in queue.tasks(limit=1000))


def test_outcomes_of_a_batch_do_not_wait_for_a_long_task_in_it(queue: TaskQueue) -> None:
    gate = Gate()
    first, second = queue.enqueue_many(["short", "gate"])

    async def callback(payload: str) -> object:
        return await gate(payload) if payload == "gate" else payload

    thread = Background(lambda: run(queue, callback, batch=2))
    gate.wait_for()
    until(lambda: first.refresh().state == "done", what="the end of the first")
    until(lambda: second.refresh().state == "running", what="the start of the second")
    gate.opened.set()
    thread.join()

"""Output of tasks that share a process, which is what they log, and their limits."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import Background, until

from dbtaskqueue import RetryPolicy, TaskQueue, Worker, current_task

pytestmark = pytest.mark.one_engine("an executor never touches a database")

ONCE = RetryPolicy(delay=0, max_attempts=1)
log = logging.getLogger("tests.output")


def plain(payload: Any) -> None:
    log.warning("number %d", payload)
    try:
        raise ValueError("just to show")
    except ValueError:
        log.exception("with a traceback")


async def coroutine(payload: Any) -> None:
    log.warning("number %d", payload)
    await asyncio.sleep(0.05)
    log.error("after a while, number %d", payload)


def only_debug(payload: Any) -> None:
    log.debug("number %d", payload)


@pytest.mark.parametrize(("executor", "code"), [("thread", plain), ("asyncio", coroutine), ("asyncio", plain)])
def test_log_records_of_a_task_are_its_output(queue: TaskQueue, executor: str, code: Callable[..., Any]) -> None:
    tasks = queue.enqueue_many([1, 2, 3])
    factory = logging.getLogRecordFactory()
    Worker(queue, executor=executor, concurrency=3).run(code, burst=True)
    for number, task in enumerate(tasks, 1):
        output = task.attempts()[-1].output or ""
        assert f"WARNING tests.output: number {number}\n" in output
        assert output.count("WARNING") == 1
        assert ("ValueError: just to show" in output) == (code is plain)
        assert (f"ERROR tests.output: after a while, number {number}\n" in output) == (code is coroutine)
    assert logging.getLogRecordFactory() is factory


def test_records_below_the_users_log_level_are_left_out(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    Worker(queue).run(only_debug, burst=True)
    assert task.attempts()[-1].output is None


# -- limits -------------------------------------------------------------------------------------------


def checking(payload: Any) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if payload == "progress":
            current_task().progress(1)
        elif current_task().cancelled:
            raise RuntimeError("stopped by the limit")


async def patient(payload: Any) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("executor", "code", "limit"),
    [("thread", checking, "time"), ("thread", checking, "stall"), ("asyncio", patient, "time")],
)
def test_a_limit_stops_tasks_that_check_for_cancellation(
    queue: TaskQueue, executor: str, code: Callable[..., Any], limit: str
) -> None:
    task = queue.enqueue("check", retry=ONCE, **{f"{limit}_limit": 0.3})  # type: ignore[arg-type]
    Worker(queue, executor=executor).run(code, burst=True)
    assert task.refresh().state == "abandoned"
    assert f"{limit}_limit of 0.3 s" in (task.error or "")
    assert "its threads at that moment" in (task.error or "")


def test_progress_prevents_a_stall_but_not_the_time_limit(queue: TaskQueue) -> None:
    task = queue.enqueue("progress", retry=ONCE, stall_limit=3.0, time_limit=4.0)
    Worker(queue).run(checking, burst=True)
    assert "time_limit of 4 s" in (task.refresh().error or "")


def test_a_task_that_finishes_after_its_limit_is_done(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    leave = threading.Event()
    task = queue.enqueue(None, retry=ONCE, time_limit=0.3)

    def unaware(payload: Any) -> str:
        leave.wait(30)
        return "late"

    worker = Background(lambda: Worker(queue).run(unaware, burst=True))
    until(lambda: "task exceeds a limit and is stopped" in caplog.text)
    leave.set()
    worker.join()
    assert (task.refresh().state, task.result) == ("done", "late")


def test_cpu_seconds_of_a_thread(queue: TaskQueue) -> None:
    def compute(payload: Any) -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    task = queue.enqueue()
    Worker(queue).run(compute, burst=True)
    [attempt] = task.attempts()
    assert attempt.cpu_seconds is not None
    assert attempt.cpu_seconds >= 0.05
    assert attempt.peak_memory is None

"""QueueExecutor: futures of tasks in a database, which survive the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import operator
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import executor_tasks as tasks
import pytest
from helpers import python_path, run_python, until

from dbtaskqueue import RetryPolicy, TaskFailed, TaskQueue, TaskState, outcomes
from dbtaskqueue.errors import ChildFailed, PayloadError
from dbtaskqueue.integrations.futures import QueueExecutor, RemoteTraceback

pytestmark = pytest.mark.one_engine("executors and futures are the same on every engine")
KINDS = ["thread", "process"]


@pytest.fixture(params=KINDS)
def executor(url: str, request: pytest.FixtureRequest) -> Iterator[QueueExecutor]:
    with QueueExecutor(url, max_workers=2, executor=request.param) as executor:
        yield executor


def stored(url: str, **filters: Any) -> list[Any]:
    """Return the tasks of executors in a database, oldest first."""
    with TaskQueue(url, "executor") as queue:
        return sorted(queue.find(**filters).tasks, key=lambda task: task.id)


# -- calls -----------------------------------------------------------------------------------------


@pytest.mark.every_engine("tasks are stored, run, cancelled and waited for")
def test_submit_map_and_cancel(url: str, tmp_path: Path) -> None:
    with QueueExecutor(url, max_workers=2) as executor:
        future = executor.submit(pow, 2, 8)
        assert future.result(30) == 256
        assert (future.task.refresh().state, future.task.function) == (TaskState.DONE, "builtins.pow")
        assert executor.submit(tasks.same, 1, b=(2, {3})).result(30) == ((1,), {"b": (2, {3})})
        assert list(executor.map(operator.mul, range(30), range(30))) == [i * i for i in range(30)]
        assert list(executor.map(operator.mul, range(30), range(30), chunksize=7)) == [i * i for i in range(30)]
        blocked = [executor.submit(tasks.wait_for, f"{tmp_path}/go") for _ in range(2)]
        until(lambda: all(each.running() for each in blocked))
        waiting = executor.submit(abs, -1)
        assert [blocked[0].cancel(), waiting.cancel(), waiting.cancel()] == [False, True, True]
        assert waiting.task.refresh().state == TaskState.CANCELLED
        cancelled_elsewhere = executor.submit(abs, -1)
        executor.queue.cancel(cancelled_elsewhere.task.id)
        with pytest.raises(concurrent.futures.CancelledError):
            cancelled_elsewhere.result(30)
        Path(tmp_path, "go").touch()
        done, not_done = concurrent.futures.wait([*blocked, waiting], timeout=30)
        assert (len(done), len(not_done)) == (3, 0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -1)


def test_as_completed_and_asyncio(executor: QueueExecutor) -> None:
    futures = [executor.submit(tasks.double, value) for value in range(5)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, 30)) == [0, 2, 4, 6, 8]

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(executor.submit(tasks.double, 1))
        return [await wrapped, await loop.run_in_executor(executor, tasks.double, 2)]

    assert asyncio.run(main()) == [2, 4]


def test_a_coroutine_function_runs_in_each_executor(url: str) -> None:
    for kind in ("thread", "asyncio"):
        with QueueExecutor(url, max_workers=3, executor=kind) as executor:
            assert list(executor.map(tasks.double_later, range(3))) == [0, 2, 4]
            assert executor.submit(tasks.double, "a").result() == "aa"


def local() -> Callable[[], int]:
    def inner() -> int:
        return 1

    return inner


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def method(self) -> None: ...


@pytest.mark.parametrize(
    "call", [lambda: 1, local(), Unhashable().method, 7, None], ids=["lambda", "local", "method", "int", "None"]
)
def test_what_another_process_cannot_find_is_refused(executor: QueueExecutor, call: Any) -> None:
    with pytest.raises(TypeError, match="cannot be found by its module and name"):
        executor.submit(call)
    with pytest.raises(TypeError, match="cannot be found by its module and name"):
        executor.map(call, [1])
    assert stored(executor.queue.url) == []


def test_what_cannot_be_stored_is_refused(executor: QueueExecutor) -> None:
    with pytest.raises(TypeError, match=r"args\[1\]: a value of type builtins.object"):
        executor.submit(tasks.same, 1, object())
    with pytest.raises(TypeError, match="key: a value of type threading"):
        executor.submit(tasks.same, key=threading.Event())
    with pytest.raises(TypeError, match=r"an argument cannot be called '\$each'"):
        executor.submit(tasks.same, **{"$each": True})
    with pytest.raises(PayloadError, match="exceed the limit"):
        executor.submit(tasks.same, "x" * 2_000_000)
    with pytest.raises(TypeError):
        executor.map(tasks.double, [1, object()])
    assert stored(executor.queue.url) == []
    with pytest.raises((TypeError, PayloadError), match="cannot be stored"):
        executor.submit(tasks.unstorable).result(30)


def test_options_of_calls(url: str) -> None:
    with QueueExecutor(url, max_workers=0) as executor:
        urgent = executor.using(priority=5, meta={"tenant": 7})
        assert (urgent.submit(abs, 1).task.priority, urgent.submit(abs, 1).task.meta) == (5, {"tenant": 7})
        once = executor.using(key="k")
        assert once.submit(abs, 1).task == once.submit(abs, 1).task
        with pytest.raises(TypeError, match="using\\(\\) takes"):
            executor.using(start_in=5)


def test_a_task_function_and_a_bound_call(url: str) -> None:
    with TaskQueue(url) as queue:
        triple = queue.task(tasks.same, name="executor_tasks.same")
        with QueueExecutor(url, max_workers=1, functions=[tasks.same]) as executor:
            assert executor.submit(triple, 1).result(30) == ((1,), {})
            assert executor.submit(triple.bind(2)).result(30) == ((2,), {})
            with pytest.raises(TypeError, match="name it in functions="):
                executor.submit(queue.task(tasks.fail).bind("a"))


@pytest.mark.parametrize("number", [-1, 0])
def test_a_number_of_workers_that_cannot_be(url: str, number: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        QueueExecutor(url, max_workers=number, executor="thread")


# -- errors ----------------------------------------------------------------------------------------


def test_in_threads_the_exception_is_the_one_that_was_raised(url: str) -> None:
    with QueueExecutor(url, max_workers=1) as executor:
        error = executor.submit(tasks.fail_with_own).exception(30)
        assert isinstance(error, tasks.OwnError)
        assert error.__traceback__ is not None


def test_from_processes_an_exception_has_the_same_class(url: str) -> None:
    with QueueExecutor(url, max_workers=1, executor="process") as executor:
        error = executor.submit(tasks.fail, "two\nlines").exception(30)
        assert (type(error), error.args) == (ValueError, ("two\nlines",))
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "executor_tasks.py" in str(error.__cause__)
        assert repr(executor.submit(tasks.fail_with_key).exception(30)) == "KeyError('k')"
        assert repr(executor.submit(tasks.give_up, 3).exception(30)) == "SystemExit('3')"
        own = executor.submit(tasks.fail_with_own).exception(30)
        assert isinstance(own, TaskFailed)
        assert "executor_tasks.OwnError: own" in str(own)


def test_an_exception_is_final_and_is_stored(executor: QueueExecutor) -> None:
    future = executor.submit(tasks.fail, "no")
    assert repr(future.exception(30)) == "ValueError('no')"
    task = future.task.refresh()
    assert (task.state, task.attempt, task.error_type) == (TaskState.ABANDONED, 1, "builtins.ValueError")


def test_retry_tries_again(url: str, tmp_path: Path) -> None:
    with QueueExecutor(url, max_workers=1, retry=RetryPolicy(delay=0.01)) as executor:
        future = executor.submit(tasks.fail_once, f"{tmp_path}/file")
        assert (future.result(30), future.task.refresh().attempt) == ("done", 2)


def test_the_death_of_a_child_fails_one_future(url: str) -> None:
    with QueueExecutor(url, max_workers=2, executor="process") as executor:
        futures = [executor.submit(abs, -1), executor.submit(tasks.die), executor.submit(abs, -2)]
        assert [futures[0].result(30), futures[2].result(30)] == [1, 2]
        error = futures[1].exception(30)
        assert isinstance(error, ChildFailed)
        assert "SIGKILL" in str(error)
        assert executor.submit(abs, -3).result(30) == 3


def test_an_initializer_runs_before_the_first_call(url: str) -> None:
    for kind in KINDS:
        with QueueExecutor(url, max_workers=1, executor=kind, initializer=tasks.prepare, initargs=[kind]) as executor:
            assert executor.submit(tasks.is_prepared).result(30) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_initializer_breaks_the_executor_and_loses_no_task(url: str, kind: str) -> None:
    with QueueExecutor(url, max_workers=1, executor=kind, initializer=tasks.fail_to_prepare) as executor:
        futures = [executor.submit(abs, -1) for _ in range(3)]
        for future in futures:
            with pytest.raises(BrokenExecutor):
                future.result(30)
        with pytest.raises(BrokenExecutor):
            until(lambda: executor.submit(abs, -1) and None)
    assert {task.state for task in stored(url)} == {TaskState.PENDING}
    with QueueExecutor(url, max_workers=1, functions=[abs]):
        until(lambda: {task.state for task in stored(url)} == {TaskState.DONE})


# -- several processes -----------------------------------------------------------------------------

KILLED = """
import executor_tasks, sys
from dbtaskqueue.integrations.futures import QueueExecutor
url, kind, directory = sys.argv[1:]
executor = QueueExecutor(url, max_workers=2, executor=kind)
running = [executor.submit(executor_tasks.wait_for, f"{directory}/go") for _ in range(2)]
waiting = [executor.submit(executor_tasks.touch, f"{directory}/{number}") for number in range(8)]
while not all(future.running() for future in running):
    pass
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.every_engine("another process takes over the tasks of a dead worker")
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_kill_another_process_continues(url: str, kind: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, kind, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    Path(tmp_path, "go").touch()
    with QueueExecutor(url, max_workers=2, executor=kind, functions=[tasks]) as executor:
        until(lambda: {task.state for task in stored(url)} == {TaskState.DONE}, within=60)
        assert executor.submit(abs, -1).result(30) == 1
    assert [len(Path(tmp_path, str(number)).read_text().splitlines()) for number in range(8)] == [1] * 8
    assert [task.attempt for task in stored(url)[:2]] == [2, 2]


def test_unknown_functions_wait_until_they_are_known(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "UNKNOWN_DELAYS", (600.0, 600.0))  # so they do not become due by themselves
    with QueueExecutor(url, max_workers=0) as submits:
        left = [submits.submit(tasks.double, number) for number in range(3)]
    with caplog.at_level(logging.WARNING), QueueExecutor(url, max_workers=1) as executor:
        assert executor.submit(abs, -1).result(30) == 1
        until(lambda: [record for record in caplog.records if "no such function" in record.message])
        assert {(task.state, task.attempt) for task in stored(url, function="executor_tasks.*")} == {("pending", 0)}
        assert executor.submit(tasks.double, 7).result(30) == 14  # from here on, it knows the function
        until(lambda: {task.state for task in stored(url)} == {TaskState.DONE})
    assert len([record for record in caplog.records if "no such function" in record.message]) == 1
    assert [future.result(30) for future in left] == [0, 2, 4]


def test_an_executor_without_workers_gets_the_results_of_another_one(url: str) -> None:
    with QueueExecutor(url, max_workers=0) as submits:
        futures = [submits.submit(tasks.double, number) for number in range(20)]
        failing = submits.submit(tasks.fail, "no")
        assert not futures[0].done()
        with QueueExecutor(url, max_workers=1, functions=[tasks.double, tasks.fail]):
            assert [future.result(30) for future in futures] == list(range(0, 40, 2))
            assert repr(failing.exception(30)) == "ValueError('no')"


def test_modules_give_the_functions_that_they_define(url: str) -> None:
    with QueueExecutor(url, max_workers=1, functions=[tasks]) as executor:
        names = executor.queue.functions.names()
        assert {"executor_tasks.double", "executor_tasks.double_later"} <= {*names}
        assert not [name for name in names if "Path" in name or "sys" in name or "OwnError" in name]
        find = executor.queue.functions.find
        assert [find(f"executor_tasks.{name}") for name in ("os", "sys.exit", "Path", "none", "os.system")] == [
            None
        ] * 5


SCRIPT = """
import sys
from dbtaskqueue.integrations.futures import QueueExecutor

def own(value):
    return value + 1

def say(path):
    with open(path, "a") as out:
        out.write("said")

if __name__ == "__main__":
    executor = QueueExecutor(sys.argv[1], max_workers=1, executor=sys.argv[2])
    print(executor.submit(pow, 2, 3).result())
    print(executor.submit(own, 1).result())  # known to the children, although they were started before
    import colorsys
    print(executor.submit(colorsys.rgb_to_hsv, 0, 0, 0).result())
    executor.submit(say, sys.argv[3])  # the interpreter waits for it
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_with_functions_of_its_own_waits_at_its_end(url: str, kind: str, tmp_path: Path) -> None:
    script = Path(tmp_path, "script.py")
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), url, kind, f"{tmp_path}/said"], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split("\n")[:3], done.stderr) == (["8", "2", "(0.0, 0.0, 0)"], "")
    assert Path(tmp_path, "said").read_text() == "said"
    assert "script.own" in [task.function for task in stored(url)]


def test_code_without_a_file_is_refused_for_processes() -> None:
    code = """
from dbtaskqueue.integrations.futures import QueueExecutor
def own(): ...
for kind in ("thread", "process"):
    with QueueExecutor("sqlite:///:memory:", max_workers=1, executor=kind) as executor:
        try:
            print(executor.submit(own).result())
        except TypeError as error:
            print(error)
"""
    assert "is not in a file, so a child process cannot find it" in run_python(code)


def test_no_reason_names_a_function_that_was_submitted_later(url: str, tmp_path: Path) -> None:
    with QueueExecutor(url, max_workers=1) as executor:
        running = executor.submit(tasks.wait_for, f"{tmp_path}/go")
        until(running.running)
        waiting = executor.submit(tasks.double, 1)
        codes = [reason.code for reason in executor.queue.why(waiting.task.id)]
        Path(tmp_path, "go").touch()
        assert "function_unknown" not in codes


# -- its end ---------------------------------------------------------------------------------------


def test_an_executor_that_is_collected_ends_its_threads(url: str, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    executor = QueueExecutor(url, max_workers=2)
    future = executor.using(priority=1).submit(tasks.touch, f"{tmp_path}/file")
    del executor
    gc.collect()
    assert future.result(30) == os.getpid()
    until(lambda: not [thread for thread in set(threading.enumerate()) - before if "wakeups" not in thread.name])


def test_shutdown_without_waiting_and_with_cancelling(url: str, tmp_path: Path) -> None:
    executor = QueueExecutor(url, max_workers=1)
    running = executor.submit(tasks.wait_for, f"{tmp_path}/go")
    until(running.running)
    waiting = [executor.submit(abs, -1) for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in waiting] == [True] * 5
    Path(tmp_path, "go").touch()
    assert running.result(30) == f"{tmp_path}/go"
    executor.shutdown()
    assert [task.state for task in stored(url)] == ["done", *["cancelled"] * 5]


def test_closing_the_results_of_map_cancels_the_rest(url: str, tmp_path: Path) -> None:
    with QueueExecutor(url, max_workers=1) as executor:
        results: Any = executor.map(tasks.wait_for, [f"{tmp_path}/first", *[f"{tmp_path}/go"] * 4])
        Path(tmp_path, "first").touch()
        assert next(results) == f"{tmp_path}/first"
        results.close()
        Path(tmp_path, "go").touch()
    assert [task.state for task in stored(url)].count("cancelled") >= 3
    with QueueExecutor(url, max_workers=1) as executor:
        with pytest.raises(TimeoutError):
            list(executor.map(tasks.wait_for, [f"{tmp_path}/later"], timeout=0.1))
        Path(tmp_path, "later").touch()

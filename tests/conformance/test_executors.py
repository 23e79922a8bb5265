"""What a worker guarantees with every executor. Tasks write what they saw to a file, so child processes can, too."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import child_tasks
import pytest
from child_tasks import lines
from faults import Faults
from helpers import Background, child_processes, until

from dbtaskqueue import RetryPolicy, Task, TaskQueue, Worker

pytestmark = pytest.mark.one_engine("an executor never touches a database")

LATER = RetryPolicy(delay=3600)
BATCH = pytest.mark.parametrize("batch", [1, 7, "auto"])


@pytest.fixture(params=["thread", "asyncio", "process"])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def run(worker: Worker, **limits: Any) -> None:
    worker.run(child_tasks.act_async if worker.executor == "asyncio" else child_tasks.act, **{"burst": True, **limits})


def enqueue(queue: TaskQueue, do: str, retry: RetryPolicy | None = None, priority: int = 0, **arguments: Any) -> Task:
    paths = {name: str(value) for name, value in arguments.items() if isinstance(value, Path)}
    return queue.enqueue({"do": do, **arguments, **paths}, retry=retry, priority=priority)


def squares(queue: TaskQueue, file: Path, count: int) -> list[Task]:
    return queue.enqueue_many([{"do": "square", "file": str(file), "number": number} for number in range(count)])


def states(queue: TaskQueue) -> list[str]:
    """Return the states of all tasks, oldest first."""
    return [str(task.state) for task in reversed(queue.tasks(limit=100_000))]


# -- running ---------------------------------------------------------------------------------------


@BATCH
@pytest.mark.parametrize("concurrency", [1, 3])
def test_each_task_is_run_once(queue: TaskQueue, file: Path, executor: str, batch: int | str, concurrency: int) -> None:
    tasks = squares(queue, file, 200)
    run(Worker(queue, executor=executor, concurrency=concurrency), batch=batch)
    seen = [int(line) for line in lines(file)]
    assert (seen if concurrency == 1 else sorted(seen)) == list(range(200))
    for number, task in enumerate(tasks):
        assert (task.refresh().state, task.result, task.attempt) == ("done", number**2, 1)
        assert [attempt.outcome for attempt in task.attempts()] == ["done"]
    assert len({task.worker for task in tasks}) == 1


def test_by_priority(queue: TaskQueue, file: Path, executor: str) -> None:
    for priority in (0, 3, -2, 3, 0):
        enqueue(queue, "square", file=file, number=priority, priority=priority)
    run(Worker(queue, executor=executor))
    assert lines(file) == ["3", "3", "0", "0", "-2"]


def test_a_task_that_raises_is_retried_until_it_is_abandoned(queue: TaskQueue, executor: str) -> None:
    task = enqueue(queue, "raise", RetryPolicy(delay=0, max_attempts=3))
    run(Worker(queue, executor=executor), burst=False, max_tasks=3)
    assert (task.refresh().state, task.attempt) == ("abandoned", 3)
    assert [attempt.outcome for attempt in task.attempts()] == ["failed", "failed", "abandoned"]
    assert "ValueError: no good" in (task.error or "")
    assert "in do_raise" in (task.error or "")


def test_the_worker_waits_for_a_retry_that_comes_due(queue: TaskQueue, file: Path, executor: str) -> None:
    task = enqueue(queue, "fail_once", RetryPolicy(delay=0.1), file=file)
    run(Worker(queue, executor=executor), burst=False, max_tasks=2)
    assert (task.refresh().state, task.attempt, lines(file)) == ("done", 2, ["1", "2"])


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    ("choice", "state", "attempt", "outcome"),
    [
        ("retry later", "failed", 1, "failed"),
        ("abandon", "abandoned", 1, "abandoned"),
        ("release", "pending", 0, "released"),
        ("exit", "failed", 1, "failed"),
        ("interrupt", "failed", 1, "failed"),
        ("cancelled", "failed", 1, "failed"),
    ],
)
def test_how_a_task_ends(
    queue: TaskQueue, executor: str, batch: int, choice: str, state: str, attempt: int, outcome: str
) -> None:
    first, second = enqueue(queue, "choose", LATER, name=choice), enqueue(queue, "return", value="after")
    reported: list[tuple[int, str]] = []
    worker = Worker(queue, executor=executor, on_error=lambda task, error: reported.append((task.id, task.state)))
    run(worker, batch=batch)
    assert (first.refresh().state, first.attempt) == (state, attempt)
    assert [entry.outcome for entry in first.attempts()] == [outcome]
    assert second.get_result(10) == "after"
    assert reported == ([(first.id, state)] if outcome in ("failed", "abandoned") else [])


@pytest.mark.parametrize("what", ["object", "nan", "surrogate", "key", "number"])
def test_a_result_that_cannot_be_stored_fails_the_attempt(queue: TaskQueue, executor: str, what: str) -> None:
    task, after = enqueue(queue, "give", LATER, what=what), enqueue(queue, "return", value=1)
    run(Worker(queue, executor=executor))
    assert task.refresh().state == "failed"
    assert "result" in (task.error or "")
    assert after.get_result(10) == 1


def test_on_error_that_raises_does_no_harm(queue: TaskQueue, executor: str) -> None:
    tasks = [enqueue(queue, "raise", LATER) for _ in range(3)]

    def on_error(task: Task, error: BaseException) -> None:
        raise RuntimeError("on_error is broken")

    run(Worker(queue, executor=executor, on_error=on_error))
    assert [task.refresh().state for task in tasks] == ["failed"] * 3


@pytest.mark.engine("sqlite")
@BATCH
def test_tasks_with_unknown_functions_are_released(
    queue: TaskQueue, file: Path, executor: str, batch: int | str
) -> None:
    unknown = [queue.submit([{"args": [], "kwargs": {}}], {}, "unknown.here")[0] for _ in range(20)]
    known = squares(queue, file, 20)
    run(Worker(queue, executor=executor, concurrency=3), batch=batch)
    assert {task.refresh().state for task in known} == {"done"}
    assert {(task.refresh().state, task.attempt, len(task.attempts())) for task in unknown} == {("pending", 0, 0)}
    assert all(task.start_at > task.created_at for task in unknown)


# -- limits ----------------------------------------------------------------------------------------


def test_burst(queue: TaskQueue, url: str, executor: str) -> None:
    """A burst ends when no task is due, leaves later tasks alone, and runs tasks that its tasks enqueue."""
    worker = Worker(queue, executor=executor, concurrency=2)
    run(worker)
    later = queue.enqueue({"do": "return"}, start_in=3600)
    enqueue(queue, "chain", url=url, length=4)
    run(worker)
    assert states(queue) == ["pending"] + ["done"] * 5
    assert later.refresh().state == "pending"


@BATCH
@pytest.mark.parametrize("concurrency", [1, 4])
def test_max_tasks(queue: TaskQueue, file: Path, executor: str, batch: int | str, concurrency: int) -> None:
    squares(queue, file, 60)
    run(Worker(queue, executor=executor, concurrency=concurrency), burst=False, max_tasks=37, batch=batch)
    assert len(lines(file)) == 37
    stats = queue.stats()
    assert (stats.done, stats.reserved, stats.pending) == (37, 0, 23)


def test_idle_timeout(queue: TaskQueue, executor: str) -> None:
    """The timeout does not run while a task runs."""
    task = enqueue(queue, "sleep", seconds=0.5)
    started = time.monotonic()
    run(Worker(queue, executor=executor), burst=False, idle_timeout=0.1)
    assert time.monotonic() - started >= 0.6
    assert task.refresh().state == "done"


# -- queues ----------------------------------------------------------------------------------------


def test_several_queues_are_served_in_rotation(url: str, file: Path, executor: str) -> None:
    names = ["a", "b", "c"]
    for number, name in enumerate(names):
        with TaskQueue(url, queue=name) as queue:
            [enqueue(queue, "square", file=file, number=number) for _ in range(8)]
    run(Worker(url, queues=names, executor=executor), batch=1)
    seen = lines(file)
    assert len(seen) == 24
    for start in range(0, 24, 3):
        assert sorted(seen[start : start + 3]) == ["0", "1", "2"]


def test_a_busy_queue_does_not_starve_another(queue: TaskQueue, url: str, file: Path, executor: str) -> None:
    with TaskQueue(url, queue="quiet") as quiet:
        squares(queue, file, 300)
        task = enqueue(quiet, "return")
        run(Worker(url, queues=["default", "quiet"], executor=executor), burst=False, max_tasks=100)
        assert task.refresh().state == "done"


def test_a_paused_queue_is_skipped(queue: TaskQueue, url: str, executor: str) -> None:
    with TaskQueue(url, queue="other") as other:
        queue.pause()
        left, run_ = enqueue(queue, "return"), enqueue(other, "return")
        run(Worker(url, queues=["default", "other"], executor=executor))
        assert (left.refresh().state, run_.refresh().state) == ("pending", "done")


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.elsewhere("psutil", "none")
def test_stop_lets_running_tasks_finish(queue: TaskQueue, file: Path, go: Path, executor: str) -> None:
    first, second = enqueue(queue, "wait_for", file=file, go=go), enqueue(queue, "return")
    worker = Worker(queue, executor=executor)
    thread = Background(lambda: run(worker, burst=False))
    until(lambda: lines(file), what="the start of the task")
    worker.stop()
    go.touch()
    thread.join()
    assert (first.refresh().state, first.attempt, second.refresh().state) == ("done", 1, "pending")
    assert queue.stats().workers == 0


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_task_that_outlasts_the_drain_is_released_without_spending_an_attempt(
    queue: TaskQueue, file: Path, go: Path, executor: str, concurrency: int
) -> None:
    tasks = [enqueue(queue, "wait_for", file=file, go=go) for _ in range(concurrency)]
    worker = Worker(queue, executor=executor, concurrency=concurrency, drain_timeout=0.1)
    thread = Background(lambda: run(worker, burst=False))
    until(lambda: len(lines(file)) == concurrency, what="the start of the tasks")
    worker.stop()
    thread.join()
    for task in tasks:
        assert (task.refresh().state, task.attempt) == ("pending", 0)
        assert [attempt.outcome for attempt in task.attempts()] == ["released"]
    go.touch()
    assert len(queue.fetch(10, timeout=10)) == concurrency


# -- batches ---------------------------------------------------------------------------------------


def test_a_long_task_in_a_batch_releases_the_tasks_behind_it(
    queue: TaskQueue, file: Path, go: Path, executor: str
) -> None:
    """It is stored as running, and the tasks behind it are released."""
    squares(queue, file, 300)
    long = enqueue(queue, "wait_for", file=file, go=go)
    behind = [enqueue(queue, "return") for _ in range(20)]
    thread = Background(lambda: run(Worker(queue, executor=executor)))
    until(lambda: "started" in lines(file), what="the start of the long one")
    until(lambda: long.refresh().state == "running", what="the stored start")
    assert long.attempt == 1
    until(lambda: {task.refresh().state for task in behind} == {"pending"}, what="the release")
    assert {task.attempt for task in behind} == {0}
    go.touch()
    thread.join()
    assert set(states(queue)) == {"done"}
    assert {task.attempt for task in queue.tasks(limit=1000)} == {1}


@BATCH
def test_each_failure_in_a_batch_spends_one_attempt(queue: TaskQueue, executor: str, batch: int | str) -> None:
    tasks = [enqueue(queue, "mixed", LATER, number=number) for number in range(90)]
    run(Worker(queue, executor=executor, concurrency=2), batch=batch)
    for number, task in enumerate(tasks):
        task.refresh()
        wanted = ("failed", 1) if number % 3 == 0 else ("pending", 0) if number % 7 == 0 else ("done", 1)
        assert (task.state, task.attempt) == wanted
        assert len(task.attempts()) == 1


# -- an unavailable database ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, "auto"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("what", ["claim", "ends"])
def test_a_database_that_is_unavailable_for_a_while(
    queue: TaskQueue, file: Path, executor: str, what: str, stored: bool, batch: int | str
) -> None:
    """Whether the lost exchange was carried out or not, each task runs once; a claim without an answer is released."""
    tasks = squares(queue, file, 40)
    faults = Faults(queue)
    faults.lose, faults.times, faults.stored = lambda asked: asked.get(what), 3, stored
    run(Worker(queue, executor=executor, concurrency=2), batch=batch)
    assert faults.lost == 3
    run(Worker(queue, executor=executor), batch=batch)
    assert {(task.refresh().state, task.attempt) for task in tasks} == {("done", 1)}
    assert Counter(lines(file)) == Counter(str(number) for number in range(40))


# -- what is left ----------------------------------------------------------------------------------


def test_no_threads_or_child_processes_are_left(queue: TaskQueue, file: Path, executor: str) -> None:
    before, children = {thread.name for thread in threading.enumerate()}, child_processes()
    squares(queue, file, 3)
    run(Worker(queue, executor=executor))

    def left() -> set[str]:
        names = {thread.name for thread in threading.enumerate()} - before
        return {name for name in names if "wakeups" not in name}

    until(lambda: not left(), what="the end of the worker's threads")
    assert child_processes() <= children
    assert queue.stats().workers == 0

"""Extensions around attempts and processes, with each executor."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import extended_tasks
import pytest
from extended_tasks import inner, notes, outer, suppressing
from helpers import die_holding

from dbtaskqueue import PayloadError, RetryPolicy, RunningTask, Task, TaskQueue, Worker, current_task
from dbtaskqueue.extension import (
    Extension,
    NewTasksView,
    NewTaskView,
    around_worker,
    for_all_queues,
    notify_ended,
    notify_enqueuing,
    overriding,
)
from dbtaskqueue.task import EndedTask

pytestmark = [
    pytest.mark.engine("sqlite"),
    pytest.mark.one_engine("an extension never touches a database"),
]

EXECUTORS = pytest.mark.parametrize("executor", ["thread", "asyncio", "process"])


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the tasks write their notes to."""
    monkeypatch.setenv(extended_tasks.FILE, str(tmp_path / "notes"))
    return tmp_path / "notes"


def run(queue: TaskQueue, executor: str, *extensions: Extension, **options: Any) -> None:
    for extension in extensions:
        queue.use(extension)
    Worker(queue, executor=executor, **options).run(extended_tasks.act, burst=True)


def texts() -> list[str]:
    return [text for _, text in notes()]


def enqueue(queue: TaskQueue, **payload: Any) -> Task:
    return queue.enqueue(payload, retry=RetryPolicy(delay=0, max_attempts=1))


@EXECUTORS
def test_attempts_run_inside_the_extensions(queue: TaskQueue, executor: str) -> None:
    task = enqueue(queue, **{"return": 5})
    run(queue, executor, outer, inner)
    assert task.refresh().result == 5
    assert texts() == [
        *("outer starts", "inner starts"),
        *(f"outer enters {task.id}", f"inner enters {task.id}", "code in inner"),
        *(f"inner leaves {task.id}", f"outer leaves {task.id}"),
        *("inner stops", "outer stops"),
    ]
    [pid] = {pid for pid, _ in notes()}
    assert (pid == os.getpid()) == (executor != "process")


@EXECUTORS
@pytest.mark.parametrize("code", [extended_tasks.act, extended_tasks.act_async])
def test_extensions_see_the_exception(queue: TaskQueue, executor: str, code: Callable[..., Any]) -> None:
    task = enqueue(queue, **{"raise": "no good"})
    queue.use(outer)
    Worker(queue, executor=executor).run(code, burst=True)
    assert texts()[1:-1] == [
        f"outer enters {task.id}",
        "code in outer",
        "outer sees ValueError",
        f"outer leaves {task.id}",
    ]
    assert task.refresh().state == "abandoned"
    assert "no good" in str(task.error)
    assert "extension.py" not in str(task.error)
    assert "contextlib" not in str(task.error)


@EXECUTORS
@pytest.mark.parametrize("where", ["in", "out"])
def test_an_exception_of_an_extension_fails_the_attempt(queue: TaskQueue, executor: str, where: str) -> None:
    task = enqueue(queue)
    run(queue, executor, getattr(extended_tasks, f"broken_{where}"))
    assert task.refresh().state == "abandoned"
    assert "LookupError" in str(task.error)
    assert texts() == ["code in nothing"] * (where == "out")


@EXECUTORS
def test_an_extension_may_suppress_an_exception(queue: TaskQueue, executor: str) -> None:
    task = enqueue(queue, **{"raise": "no good"})
    run(queue, executor, extended_tasks.suppressing)
    assert (task.refresh().state, task.result) == ("done", None)


@EXECUTORS
@pytest.mark.parametrize("where", ["start", "stop"])
def test_an_exception_of_process_is_logged(
    queue: TaskQueue, executor: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = enqueue(queue, **{"return": 1})
    run(queue, executor, getattr(extended_tasks, f"broken_{where}"), outer)
    assert task.refresh().result == 1
    assert texts()[0] == "outer starts"
    assert texts()[-1] == "outer stops"
    if executor != "process":  # the log of a child goes to its output
        when = "entered" if where == "start" else "left"
        assert f"Broken.process raised when it was {when}" in caplog.text


@pytest.mark.parametrize("tasks_per_child", [1, 100])
def test_each_child_enters_and_leaves_the_process(queue: TaskQueue, tasks_per_child: int) -> None:
    for _ in range(3):
        enqueue(queue)
    run(queue, "process", outer, tasks_per_child=tasks_per_child)
    pids = {pid for pid, _ in notes()}
    assert len(pids) == (3 if tasks_per_child == 1 else 1)
    for pid in pids:
        own = [text for found, text in notes() if found == pid]
        assert (own[0], own[-1]) == ("outer starts", "outer stops")
        assert sum(text.startswith("outer st") for text in own) == 2


@pytest.mark.parametrize("lane", [None, "mail"])
def test_a_child_finds_an_extension_by_the_queue_that_uses_it(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch, lane: str | None
) -> None:
    monkeypatch.setattr(extended_tasks, "queue", queue)
    used = queue if lane is None else queue.lane(lane)
    enqueue(used)
    run(used, "process", Extension(), extended_tasks.Around("inline"))
    assert "code in inline" in texts()


def test_an_extension_that_a_child_cannot_find_is_refused(queue: TaskQueue) -> None:
    enqueue(queue)
    with pytest.raises(TypeError, match="a child process cannot find the extension Around: assign it"):
        run(queue, "process", extended_tasks.Around("nowhere"))


def test_children_need_only_extensions_that_they_enter(queue: TaskQueue) -> None:
    results: list[object] = []

    class Ended(Extension):
        def ended(self, task: Task, outcome: str, error: BaseException | None) -> None:
            """The worker calls this, not the child."""
            results.append(task.result)

    task = enqueue(queue, **{"return": 2})
    run(queue, "process", Ended(), Extension())
    assert task.refresh().result == 2
    assert results == [2]


def test_an_extension_that_overrides_nothing_is_not_called() -> None:
    assert overriding([Extension(), outer, extended_tasks.suppressing], "process") == [outer]


def test_exceptions_of_ended_are_logged(queue: TaskQueue, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[object] = []

    class Ended(Extension):
        def ended(self, task: Task, outcome: str, error: BaseException | None) -> None:
            heard.append((task.id, outcome, error))
            raise LookupError("no good")

    task = enqueue(queue)
    notify_ended([Ended(), Ended()], task, "done", None)
    assert heard == [(task.id, "done", None)] * 2
    assert caplog.records[0].levelno == logging.ERROR
    assert "ended raised" in caplog.text


def test_exceptions_of_enqueuing_and_worker_are_raised(queue: TaskQueue) -> None:
    class Raising(Extension):
        def enqueuing(self, new: NewTaskView) -> None:
            new.meta["seen"] = [new.queue, new.function, new.payload]
            raise LookupError("enqueuing")

        def worker(self, worker: Worker) -> Any:
            raise LookupError("worker")

    new = NewTaskView("mail", None, {"to": "me"}, {})
    with pytest.raises(LookupError, match="enqueuing"):
        notify_enqueuing([Raising()], new)
    assert new.meta == {"seen": ["mail", None, {"to": "me"}]}
    with pytest.raises(LookupError, match="worker"), around_worker([Raising()], Worker(queue)):
        pass


# -- a provider of functions -------------------------------------------------------------------------


@EXECUTORS
def test_functions_come_from_a_provider(queue: TaskQueue, url: str, executor: str) -> None:
    with TaskQueue(url) as producer:
        functions = [producer.task(name=f"made.{name}")(lambda number: None) for name in ("one", "two")]
        tasks = [function.enqueue(number) for number, function in enumerate(functions)]
    queue.functions = extended_tasks.provider  # type: ignore[assignment]
    Worker(queue, executor=executor).run(extended_tasks.act, burst=True)
    results = [queue.get(task.id).get_result(0) for task in tasks]
    assert [result[:2] for result in results] == [["made.one", 0], ["made.two", 1]]
    assert (results[0][2] == os.getpid()) == (executor != "process")


# -- around enqueue ----------------------------------------------------------------------------------


class Enqueuing(Extension):
    """An extension that records what it sees of an enqueue."""

    def __init__(self, name: str, seen: list[Any]) -> None:
        self.name = name
        self.seen = seen

    @contextlib.contextmanager
    def enqueue(self, new: NewTasksView) -> Iterator[None]:
        self.seen.append((self.name, new.queue, list(new.tasks)))
        try:
            yield
        except Exception as error:
            self.seen.append((self.name, type(error).__name__))
            if self.name == "suppressing":
                return
            raise
        self.seen.append((self.name, [task.id for task in new.tasks]))

    def enqueuing(self, new: NewTaskView) -> None:
        self.seen.append((self.name, new.payload))


def test_extensions_surround_an_enqueue(queue: TaskQueue) -> None:
    seen: list[Any] = []
    queue.use(Enqueuing("outer", seen))
    queue.use(Enqueuing("inner", seen))
    one, two = queue.enqueue_many([1, 2])
    assert seen == [
        *(("outer", "default", []), ("inner", "default", [])),
        *(("outer", 1), ("inner", 1), ("outer", 2), ("inner", 2)),
        *(("inner", [one.id, two.id]), ("outer", [one.id, two.id])),
    ]
    seen.clear()
    assert queue.enqueue_many([]) == []
    assert seen == []

    @queue.task(name="work")
    def work() -> None:
        """Do nothing."""

    with queue.flow() as flow:
        flow.add(work.using(queue="mail").bind())
        flow.add(3)
    assert seen[0] == ("outer", "mail", [])
    assert len(seen[-1][1]) == 2


@pytest.mark.parametrize("name", ["outer", "suppressing"])
def test_an_enqueue_that_fails_is_seen_and_raised(queue: TaskQueue, name: str) -> None:
    seen: list[Any] = []
    queue.use(Enqueuing(name, seen))
    with pytest.raises(PayloadError):
        queue.enqueue(object())  # type: ignore[call-overload]
    assert seen == [(name, "default", []), (name, "PayloadError")]
    assert queue.tasks() == []


def test_extensions_for_all_queues_come_first(url: str) -> None:
    everywhere, own = Extension(), Extension()
    for_all_queues.append(everywhere)
    try:
        with TaskQueue(url, extensions=[own]) as queue:
            assert queue.extensions == [everywhere, own]
    finally:
        for_all_queues.remove(everywhere)


def test_an_ended_task_knows_how_long_its_code_ran(queue: TaskQueue) -> None:
    seen: list[tuple[str, float | None]] = []

    class Ended(Extension):
        def ended(self, task: EndedTask, outcome: str, error: BaseException | None) -> None:
            seen.append((outcome, task.seconds))

    queue.use(Ended())
    queue.enqueue({})
    Worker(queue).run(lambda payload: time.sleep(0.01), burst=True)
    [(outcome, seconds)] = seen
    assert outcome == "done"
    assert seconds is not None
    assert 0.01 <= seconds < 30


# -- steps and progress ------------------------------------------------------------------------------


@EXECUTORS
@pytest.mark.parametrize("code", [extended_tasks.in_steps, extended_tasks.in_steps_async])
def test_steps_run_inside_the_extensions_and_progress_is_heard(
    queue: TaskQueue, executor: Any, code: Callable[..., Any]
) -> None:
    task = queue.enqueue({"raise": "no good"}, retry=RetryPolicy(delay=0, max_attempts=2))
    queue.use(outer)
    queue.use(inner)
    Worker(queue, executor=executor).run(code, burst=True)
    assert task.refresh().state == "abandoned"
    seen = [text for text in texts() if "step" in text or "hears" in text]
    second = [
        *("outer hears 1 2 half", "inner hears 1 2 half"),
        *("outer enters step second", "inner enters step second"),
        *("inner leaves step second ValueError", "outer leaves step second ValueError"),
    ]
    first = [
        *("outer enters step first", "inner enters step first"),
        *("inner leaves step first NoneType", "outer leaves step first NoneType"),
    ]
    assert seen == first + second + second, "the second attempt does not run the first step"


def test_an_extension_cannot_suppress_the_exception_of_a_step(queue: TaskQueue) -> None:
    queue.use(suppressing)
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("no good")

    def code(payload: object) -> None:
        with pytest.raises(ValueError, match="no good"):
            current_task().step("fail", fail)
        seen.append("raised")

    queue.enqueue(1)
    Worker(queue).run(code, burst=True)
    assert seen == ["raised"]


def test_an_exception_of_progressed_is_raised_in_the_task(queue: TaskQueue) -> None:
    class Strict(Extension):
        def progressed(self, task: RunningTask, done: float, total: float | None, message: str | None) -> None:
            raise LookupError(f"{done} of {total}")

    queue.use(Strict())
    task = queue.enqueue(1, max_attempts=1)
    Worker(queue).run(lambda payload: current_task().progress(1, 2), burst=True)
    assert (task.refresh().error or "").endswith("LookupError: 1 of 2\n")


def test_a_child_that_cannot_find_an_extension_of_steps_is_refused(queue: TaskQueue) -> None:
    class Stepping(Extension):
        def step(self, task: RunningTask, name: str) -> contextlib.AbstractContextManager[object]:
            return contextlib.nullcontext()

    queue.use(Stepping())
    with pytest.raises(TypeError, match=r"cannot find the extension .*Stepping"):
        run(queue, "process")


# -- attempts whose worker was lost ------------------------------------------------------------------


class Ends(Extension):
    """Keeps what ``ended`` has got."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, str, int, BaseException | None, float | None]] = []
        self.errors: list[str | None] = []

    def ended(self, task: EndedTask, outcome: str, error: BaseException | None) -> None:
        self.seen.append((task.id, outcome, str(task.state), task.attempt, error, task.seconds))
        self.errors.append(task.error)


@pytest.mark.parametrize("rescued_by", ["worker", "fetch"])
def test_the_end_of_an_attempt_whose_worker_was_lost(queue: TaskQueue, url: str, rescued_by: str) -> None:
    ends = Ends()
    queue.use(ends)
    retried, last, reserved = queue.enqueue(1), queue.enqueue(2, max_attempts=1), queue.enqueue(3)
    assert die_holding(url, count=2) == [retried.id, last.id]
    assert die_holding(url, state="reserved") == [reserved.id]
    if rescued_by == "worker":
        Worker(queue).run(lambda payload: payload, burst=True)
    else:
        assert {task.id for task in queue.fetch(2, timeout=60)} <= {retried.id, reserved.id}
    lost = [end for end in ends.seen if end[1] == "lost"]
    assert sorted(lost) == [
        (retried.id, "lost", "failed", 1, None, None),
        (last.id, "lost", "abandoned", 1, None, None),
    ]
    assert all("was lost while it ran this attempt" in str(error) for error in ends.errors[:2])
    assert [attempt.outcome for attempt in last.refresh().attempts()] == ["lost"]


def test_tasks_of_a_worker_without_a_row_are_lost_too(queue: TaskQueue, url: str) -> None:
    ends = Ends()
    queue.use(ends)
    task = queue.enqueue(1)
    die_holding(url)
    [worker] = queue.store.workers()
    queue.store.deregister(worker.id)
    Worker(queue).run(lambda payload: payload, burst=True)
    assert [end[:4] for end in ends.seen] == [(task.id, "lost", "failed", 1), (task.id, "done", "done", 2)]

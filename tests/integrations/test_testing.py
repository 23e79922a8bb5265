"""``dbtaskqueue.testing``: tasks that run in the test, and what was enqueued."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Background, soon

from dbtaskqueue import (
    AbandonTask,
    AsyncTask,
    AsyncTaskQueue,
    Extension,
    ReleaseTask,
    RetryPolicy,
    RetryTask,
    RunningTask,
    Task,
    TaskQueue,
    TaskQueueError,
    Worker,
    current_task,
)
from dbtaskqueue.extension import NewTasksView
from dbtaskqueue.testing import assert_enqueued, enqueued, inline, override, run_tasks
from dbtaskqueue.waiting import Waiting

pytestmark = pytest.mark.one_engine("the tasks run in the test, however they are stored")


@pytest.fixture
def ran(queue: TaskQueue) -> list[Any]:
    """What the task functions of the queue have appended. They are ``note``, ``fail`` and ``chain``."""
    ran: list[Any] = []

    @queue.task(name="note")
    def note(what: Any, more: Any = None) -> Any:
        ran.append(what)
        return [what]

    @queue.task(name="fail", retry=RetryPolicy(delay=60, max_attempts=3))
    def fail(text: str) -> None:
        ran.append(text)
        raise LookupError(text)

    @queue.task(name="chain")
    def chain(number: int) -> None:
        ran.append(number)
        if number:
            chain.enqueue(number - 1)

    return ran


def call(queue: TaskQueue, /, name: str, *args: Any, **options: Any) -> Task:
    return queue.functions.find(name).using(**options).enqueue(*args)  # type: ignore[union-attr]


# -- run_tasks -------------------------------------------------------------------------------------


@pytest.mark.every_engine("the ends and the row of the worker are stored")
def test_due_tasks_run_in_order_in_this_thread(queue: TaskQueue, ran: list[Any]) -> None:
    @queue.task(name="thread")
    def thread() -> bool:
        current_task().progress(3, 4)
        current_task().checkpoint("here")
        return threading.current_thread() is threading.main_thread()

    call(queue, "note", "second")
    call(queue, "note", "first", priority=5)
    call(queue, "note", "later", start_in=60)
    last = thread.enqueue()
    done = run_tasks(queue)
    assert ran == ["first", "second"]
    assert [task.state for task in done] == ["done"] * 3
    assert done[2] == last
    assert last.refresh().result is True
    assert last.progress is not None
    assert last.progress.done == 3
    assert queue.workers() == []
    assert run_tasks(queue) == []


def test_tasks_that_tasks_enqueue_run_too(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "chain", 3)
    assert len(run_tasks(queue)) == 4
    assert ran == [3, 2, 1, 0]


def test_children_run_after_their_parents(queue: TaskQueue, ran: list[Any]) -> None:
    parent = call(queue, "note", 1)
    call(queue, "note", parent)
    run_tasks(queue)
    assert ran == [1, [1]]


def test_a_limit(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "chain", 9)
    assert len(run_tasks(queue, limit=2)) == 2
    assert ran == [9, 8]
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="limit must be a whole number"):
            run_tasks(queue, limit=wrong)  # type: ignore[arg-type]


def test_tasks_that_run_again_and_again_are_reported(
    queue: TaskQueue, ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbtaskqueue.testing._MOST", 5)
    call(queue, "chain", 9)
    with pytest.raises(TaskQueueError, match=r"has run 5 attempts; does <Task 5 .*> run again and again"):
        run_tasks(queue)
    assert len(run_tasks(queue, limit=20)) == 5


def test_the_first_exception_is_raised_itself(queue: TaskQueue, ran: list[Any]) -> None:
    task = call(queue, "fail", "no good")
    call(queue, "note", "after it")
    with pytest.raises(LookupError, match="no good") as raised:
        run_tasks(queue)
    assert [frame.name for frame in raised.traceback][-1] == "fail"
    assert ran == ["no good"]
    assert (task.refresh().state, task.attempt, task.error_type) == ("failed", 1, "builtins.LookupError")
    run_tasks(queue)
    assert ran == ["no good", "after it"]


def test_exceptions_are_stored_only_if_asked(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "fail", "no good")
    call(queue, "note", "after it")
    assert [task.state for task in run_tasks(queue, raises=False)] == ["failed", "done"]


def test_scheduled_tasks_and_retries_run_too(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "note", "much later", start_in=7200)
    call(queue, "fail", "no good", start_in=3600)
    call(queue, "note", "now")
    parent = call(queue, "note", "parent", start_in=9000)
    call(queue, "note", "child", after=parent)
    done = run_tasks(queue, due=False, raises=False)
    assert ran == ["now", *["no good"] * 3, "much later", "parent", "child"]
    assert [task.state for task in done] == ["done", "failed", "failed", "abandoned", *["done"] * 3]


def test_command_lines_do_not_hide_tasks_that_are_due_later(queue: TaskQueue, ran: list[Any]) -> None:
    queue.enqueue_command(["true"])
    call(queue, "note", "later", start_in=60)
    run_tasks(queue, due=False)
    assert ran == ["later"]


@pytest.mark.parametrize(
    ("error", "state"),
    [(RetryTask(30), "failed"), (AbandonTask("enough"), "abandoned"), (ReleaseTask(30), "pending")],
    ids=lambda value: type(value).__name__,
)
def test_outcomes_that_a_task_chooses_are_not_raised(queue: TaskQueue, error: Exception, state: str) -> None:
    @queue.task(name="choose")
    def choose() -> None:
        raise error

    choose.enqueue()
    [task] = run_tasks(queue)
    assert task.state == state


def test_a_backoff_is_asked(queue: TaskQueue) -> None:
    @queue.task(name="refuse", backoff=lambda error, attempt: None)
    def refuse() -> None:
        raise LookupError

    refuse.enqueue()
    [task] = run_tasks(queue, raises=False)
    assert (task.state, task.attempt) == ("abandoned", 1)


def test_an_interrupted_task_is_released(queue: TaskQueue) -> None:
    @queue.task(name="interrupt")
    def interrupt() -> None:
        raise KeyboardInterrupt

    task = interrupt.enqueue()
    with pytest.raises(KeyboardInterrupt):
        run_tasks(queue, raises=False)
    assert (task.refresh().state, task.attempt) == ("pending", 0)


def test_pytest_outcomes_in_a_task_are_those_of_the_test(queue: TaskQueue) -> None:
    @queue.task(name="skip")
    def skip() -> None:
        pytest.skip("not here")

    skip.enqueue()
    with pytest.raises(pytest.skip.Exception, match="not here"):
        run_tasks(queue, raises=False)


def test_a_task_without_a_function_fails(queue: TaskQueue) -> None:
    queue.enqueue({"for": "a callback"})
    with pytest.raises(TaskQueueError, match="names no task function"):
        run_tasks(queue)


def test_a_task_that_ends_itself_in_a_transaction(queue: TaskQueue) -> None:
    @queue.task(name="commit")
    def commit() -> None:
        with current_task().transaction(result="stored"):
            pass

    commit.enqueue()
    [task] = run_tasks(queue)
    assert (task.state, task.result) == ("done", "stored")


def test_a_task_that_was_purged_while_it_ran(queue: TaskQueue) -> None:
    @queue.task(name="purge")
    def purge() -> None:
        queue.purge()
        queue.prune(0, states=["abandoned"])

    purge.enqueue()
    [task] = run_tasks(queue)
    assert queue.tasks() == []
    assert task.function == "purge"


def test_a_lane_runs_its_own_tasks(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "note", "mail", queue="mail")
    call(queue, "note", "default")
    run_tasks(queue.lane("mail"))
    assert ran == ["mail"]


def test_coroutine_functions_run_with_and_without_a_loop(queue: TaskQueue) -> None:
    @queue.task(name="sleep")
    async def sleep(seconds: float) -> int:
        await asyncio.sleep(seconds)
        return current_task().id

    async def test() -> list[Task]:
        sleep.enqueue(0)
        return run_tasks(queue)

    sleep.enqueue(0)
    [task] = run_tasks(queue)
    assert task.result == task.id
    [task] = asyncio.run(test())
    assert task.result == task.id


def test_an_async_queue_is_accepted(url: str, tmp_path: Path) -> None:
    queue = AsyncTaskQueue(url, open=False)

    @queue.task(name="greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    async def test() -> None:
        with override(queue, f"sqlite:///{tmp_path}/other.sqlite"):
            task = await greet.enqueue("ann")
            assert assert_enqueued(queue, greet).id == assert_enqueued(queue, greet.bind("ann")).id == task.id
            assert [each.result for each in run_tasks(queue)] == ["hello ann"]
            with inline(queue):
                assert (await greet.enqueue("bob")).state == "done"
            assert len(enqueued(queue)) == 2

    asyncio.run(test())
    with pytest.raises(TypeError, match="must be a TaskQueue or an AsyncTaskQueue, not str"):
        run_tasks("sqlite:///:memory:")  # type: ignore[arg-type]


def test_extensions_are_entered(queue: TaskQueue, ran: list[Any]) -> None:
    class Around(Extension):
        @contextlib.contextmanager
        def process(self) -> Iterator[None]:
            ran.append("process")
            yield
            ran.append("process ends")

        @contextlib.contextmanager
        def attempt(self, task: RunningTask) -> Iterator[None]:
            ran.append("attempt")
            yield

        def ended(self, task: Task, outcome: str, error: BaseException | None) -> None:
            ran.append((outcome, type(error).__name__))

    queue.use(Around())
    call(queue, "note", 1)
    call(queue, "fail", "no good")
    run_tasks(queue, raises=False)
    assert ran == [
        *("process", "attempt", 1, ("done", "NoneType")),
        *("attempt", "no good", ("failed", "LookupError"), "process ends"),
    ]


def test_tasks_that_are_held_stay_held(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "note", 1)
    [held] = queue.fetch()
    call(queue, "note", 2)
    run_tasks(queue)
    assert ran == [2]
    assert held.start()


def test_a_closed_queue_is_refused(queue: TaskQueue) -> None:
    queue.close()
    with pytest.raises(TaskQueueError, match="closed"):
        run_tasks(queue)


# -- inline ----------------------------------------------------------------------------------------


def test_inline_runs_tasks_when_they_are_enqueued(queue: TaskQueue, ran: list[Any]) -> None:
    with inline(queue):
        task = call(queue, "note", 1)
        assert (task.state, task.result) == ("done", [1])
        call(queue, "chain", 2)
        call(queue, "note", "mail", queue="mail")
        call(queue, "note", "later", start_in=60)
        assert ran == [1, 2, 1, 0, "mail"]
        with pytest.raises(LookupError):
            call(queue, "fail", "no good")
    assert call(queue, "note", 2).state == "pending"


def test_inline_may_store_exceptions(queue: TaskQueue, ran: list[Any]) -> None:
    with inline(queue, raises=False):
        assert call(queue, "fail", "no good").state == "failed"


def test_inline_runs_all_tasks_of_enqueue_many(queue: TaskQueue, ran: list[Any]) -> None:
    note = queue.functions.find("note")
    with inline(queue):
        tasks = queue.enqueue_many([note.bind(1), note.bind(2)])  # type: ignore[union-attr]
    assert [task.state for task in tasks] == ["done", "done"]


@pytest.mark.engine("sqlite")
def test_inline_leaves_tasks_of_a_transaction_alone(queue: TaskQueue, ran: list[Any], tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "taskqueue.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with inline(queue):
            call(queue, "note", 1, connection=connection)
        connection.execute("COMMIT")
    assert ran == []
    run_tasks(queue)
    assert ran == [1]


def test_inline_runs_tasks_after_they_are_stored(queue: TaskQueue, ran: list[Any]) -> None:
    """An extension's ``enqueue`` does not get the exception of a task."""

    class Storing(Extension):
        @contextlib.contextmanager
        def enqueue(self, new: NewTasksView) -> Iterator[None]:
            yield
            ran.append([task.state for task in new.tasks])

    queue.use(Storing())
    with inline(queue), pytest.raises(LookupError):
        call(queue, "fail", "no good")
    assert ran == [["pending"], "no good"]


def test_inline_runs_coroutines_that_enqueue_others(url: str) -> None:
    """However deep that goes, they do not wait for each other's threads."""

    async def test() -> None:
        async with AsyncTaskQueue(url, threads=1) as queue:

            @queue.task(name="descend")
            async def descend(depth: int) -> int:
                if depth:
                    await descend.enqueue(depth - 1)
                return depth

            with inline(queue):
                assert (await asyncio.wait_for(descend.enqueue(3), 30)).result == 3
            assert [task.result for task in enqueued(queue)] == [3, 2, 1, 0]

    asyncio.run(test())


def test_inline_waits_for_a_task_that_another_thread_runs(queue: TaskQueue) -> None:
    """A thread that runs its own task also runs what others have enqueued meanwhile."""
    is_stored, is_running, may_end = threading.Event(), threading.Event(), threading.Event()

    class Pausing(Extension):
        @contextlib.contextmanager
        def enqueue(self, new: NewTasksView) -> Iterator[None]:
            yield
            if new.tasks[0].payload == {"args": ["second"], "kwargs": {}}:
                is_stored.set()
                is_running.wait(30)

    @queue.task(name="work")
    def work(which: str) -> None:
        if which == "first":
            is_stored.wait(30)
        else:
            is_running.set()
            may_end.wait(30)

    queue.use(Pausing())
    with inline(queue):
        both = [Background(lambda which=which: call(queue, "work", which)) for which in ("first", "second")]
        assert is_running.wait(30)
        threading.Timer(0.2, may_end.set).start()
        assert [thread.join().state for thread in both] == ["done", "done"]
    assert queue.workers() == []


def test_inline_runs_each_task_of_several_coroutines_once(url: str) -> None:
    async def test() -> None:
        async with AsyncTaskQueue(url) as queue:

            @queue.task(name="wait")
            async def wait() -> None:
                await asyncio.sleep(0.01)

            with inline(queue):
                tasks = await asyncio.gather(*(wait.enqueue() for _ in range(12)))
            assert {(task.state, task.attempt) for task in tasks} == {("done", 1)}
            assert await queue.workers() == []

    asyncio.run(test())


def test_inline_with_a_key_that_is_taken(queue: TaskQueue) -> None:
    """A task that enqueues itself does not wait for itself."""

    @queue.task(name="again")
    def again() -> bool:
        return again.using(key="k").enqueue().deduplicated

    with inline(queue):
        assert again.using(key="k").enqueue().result is True


# -- override --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.engine("sqlite")
def test_override_uses_another_database(url: str, tmp_path: Path, is_open: bool) -> None:
    with TaskQueue(url, open=is_open) as queue:
        lane = queue.lane("mail")
        with override(queue, f"sqlite:///{tmp_path}/other.sqlite"):
            queue.enqueue(1)
            lane.enqueue(2)
            queue.fetch(timeout=0)
            assert len(queue.tasks() + lane.tasks()) == 2
            assert os.environ["DBTASKQUEUE_URL"] == f"sqlite:///{tmp_path}/other.sqlite" == queue.url
        assert "DBTASKQUEUE_URL" not in os.environ
        assert queue.is_open == is_open
        assert (tmp_path / "taskqueue.sqlite").exists() == is_open
        assert queue.tasks() + lane.tasks() == []
        assert queue.url == url
    with TaskQueue(f"sqlite:///{tmp_path}/other.sqlite") as other:
        assert other.stats().pending == 1, "what was reserved is released"


@pytest.mark.engine("sqlite")
def test_override_counts_its_own_tasks(
    queue: TaskQueue, ran: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts that take long are reused for some seconds, but not for another database."""
    monkeypatch.setattr("dbtaskqueue.overview._QUICK_COUNT", -1)
    call(queue, "note", 1)
    run_tasks(queue)
    assert queue.stats().done == 1
    with override(queue, f"sqlite:///{tmp_path}/other.sqlite"):
        assert queue.stats().done == 0
    assert queue.stats().done == 1


@pytest.mark.engine("sqlite")
def test_override_works_for_a_closed_queue_and_again(url: str, tmp_path: Path) -> None:
    queue = TaskQueue(url)
    queue.close()
    for name in ("one", "two"):
        with override(queue, f"sqlite:///{tmp_path}/{name}.sqlite"):
            queue.enqueue(1)
            assert len(queue.tasks()) == 1
    with pytest.raises(TaskQueueError, match="closed"):
        queue.enqueue(1)


@pytest.mark.engine("sqlite")
def test_override_stops_workers_and_refuses_while_one_runs(queue: TaskQueue, tmp_path: Path) -> None:
    started = threading.Event()
    waiting = threading.Event()

    def wait(payload: object) -> None:
        started.set()
        waiting.wait(30)

    other = f"sqlite:///{tmp_path}/other.sqlite"
    with override(queue, other):
        queue.enqueue(1)
        worker = threading.Thread(target=Worker(queue).run, args=[wait])
        worker.start()
        started.wait(30)
        with pytest.raises(TaskQueueError, match="a worker runs on this TaskQueue"), override(queue, other):
            pass
        threading.Timer(0.2, waiting.set).start()
    assert not queue._handle._stops, "the worker has stopped before the former database is used again"
    worker.join(30)
    assert not worker.is_alive()
    assert queue.tasks() == []


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("is_async", [False, True])
def test_consumers_of_a_test_do_not_continue_with_the_former_database(url: str, tmp_path: Path, is_async: bool) -> None:
    queue = TaskQueue(url, open=False) if not is_async else AsyncTaskQueue(url)
    in_task, may_end, seen = threading.Event(), threading.Event(), []

    def note(task: Task | AsyncTask) -> None:
        seen.append(task.payload)
        in_task.set()
        may_end.wait(30)

    def consume() -> None:
        assert isinstance(queue, TaskQueue)
        for task in queue:
            with task:
                note(task)

    async def consume_async() -> None:
        assert isinstance(queue, AsyncTaskQueue)
        async for task in queue:
            async with task:
                note(task)

    with override(queue, f"sqlite:///{tmp_path}/other.sqlite"):
        consumer = Background(consume if not is_async else lambda: asyncio.run(consume_async()))
        sync = queue if isinstance(queue, TaskQueue) else queue.sync
        sync.enqueue("test")
        assert in_task.wait(30)
    with TaskQueue(url) as real:
        task = real.enqueue("real")
        may_end.set()
        consumer.join()
        assert (seen, task.refresh().state) == (["test"], "pending")
    assert not sync.is_open


@pytest.mark.engine("sqlite")
def test_a_task_of_the_former_database_is_awaited_there(url: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with AsyncTaskQueue(url) as queue:
            task = await queue.enqueue()
            with override(queue, f"sqlite:///{tmp_path}/other.sqlite"):
                waiting = Waiting.on(task.sync._store)
                wait = asyncio.create_task(task.wait(30))
                await soon(lambda: waiting._callbacks)
                assert await task.cancel()
                await wait
                follow = [update async for update in task.follow()]
                assert follow == ["cancelled"]

    asyncio.run(test())


# -- enqueued --------------------------------------------------------------------------------------


@pytest.mark.every_engine("tasks are listed")
def test_enqueued_finds_tasks_by_what_they_are(queue: TaskQueue, ran: list[Any]) -> None:
    note = queue.functions.find("note")
    assert note is not None
    first = note.using(key="a", priority=5).enqueue(1, more=2)
    second = note.enqueue(2)
    third = queue.enqueue({"plain": 1})
    mail = queue.lane("mail").enqueue(None)
    assert enqueued(queue) == [first, second, third]
    assert enqueued(queue, "note") == enqueued(queue, note) == [first, second]
    assert enqueued(queue, note.__wrapped__) == [first, second]  # type: ignore[attr-defined]
    assert enqueued(queue, payload={"plain": 1}) == [third]
    assert enqueued(queue, payload={"args": [1], "kwargs": {"more": 2}}) == [first]
    assert enqueued(queue, note.bind(1, 2)) == enqueued(queue, note.bind(more=2, what=1)) == [first]
    assert enqueued(queue, note.bind(1)) == []
    assert enqueued(queue, key="a", priority=5) == [first]
    assert enqueued(queue, key="a", priority=4) == []
    assert enqueued(queue, payload=None) == []
    assert enqueued(queue, payload=None, queue="mail") == enqueued(queue.lane("mail")) == [mail]
    run_tasks(queue, raises=False)
    assert enqueued(queue, "note", state="done") == [first, second]
    with pytest.raises(AttributeError, match="a Task has no attribute 'colour'"):
        enqueued(queue, colour="red")
    with pytest.raises(ValueError, match="is not a task function of this queue"):
        enqueued(queue, print)


def test_assert_enqueued_returns_the_newest_task(queue: TaskQueue, ran: list[Any]) -> None:
    call(queue, "note", 1)
    newest = call(queue, "note", 1)
    assert assert_enqueued(queue, "note") == newest


def test_the_message_lists_what_was_enqueued(queue: TaskQueue, ran: list[Any]) -> None:
    with pytest.raises(AssertionError, match=r"^no task was enqueued in queue 'default'; nothing was enqueued$"):
        assert_enqueued(queue)
    call(queue, "note", "x" * 900, key="a")
    queue.lane("mail").enqueue(5)
    with pytest.raises(AssertionError) as raised:
        assert_enqueued(queue, "note", {"args": [2], "kwargs": {}}, priority=3)
    assert re.sub("xx+…", "x…", str(raised.value)).splitlines() == [
        "no task with priority=3, function='note', payload={'args': [2], 'kwargs': {}} was enqueued in queue"
        " 'default'; 2 tasks were enqueued:",
        "  1 default note pending key='a' payload={'args': ['x…",
        "  2 mail pending payload=5",
    ]
    queue.enqueue_many(range(30))
    with pytest.raises(AssertionError) as raised:
        assert_enqueued(queue, queue="mail", payload=6)
    lines = str(raised.value).splitlines()
    assert lines[0] == "no task with payload=6 was enqueued in queue 'mail'; 32 tasks were enqueued, the newest 20:"
    assert len(lines) == 21
    assert lines[-1] == "  32 default pending payload=29"

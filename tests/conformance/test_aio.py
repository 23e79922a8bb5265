"""``AsyncTaskQueue``: the verbs of ``TaskQueue`` to be awaited, and what happens when an ``await`` is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import async_tasks
import pytest
from helpers import Background, in_a_loop, python_path, run_python, soon, until

from dbtaskqueue import (
    AsyncTask,
    AsyncTaskQueue,
    ConfigurationError,
    Extension,
    InvalidTransition,
    Progress,
    RetryPolicy,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskQueue,
    TaskQueueError,
    TaskState,
    Worker,
)
from dbtaskqueue._store.borrowed import OnLoop
from dbtaskqueue.extension import NewTaskView
from dbtaskqueue.following import Following
from dbtaskqueue.waiting import Waiting

ONE_ENGINE = pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AsyncTaskQueue]:
    async with AsyncTaskQueue(url, retry=RetryPolicy(delay=0, linear=99), **options) as queue:
        yield queue


@contextlib.asynccontextmanager
async def working(queue: AsyncTaskQueue, callback: Callable[[Any], Any] | None = None) -> AsyncIterator[None]:
    """Run a worker in a thread during the block."""
    worker = Worker(queue.sync)
    thread = Background(lambda: worker.run(callback))
    try:
        yield
    finally:
        worker.stop()
        await asyncio.to_thread(thread.join)


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dbtaskqueue")]


async def rest(queue: AsyncTaskQueue) -> None:
    """Wait until nothing of this program waits for tasks any more, without the next garbage collection."""
    waiting, following = Waiting.on(queue.sync.store), Following.on(queue.sync.store)
    await soon(lambda: not waiting._callbacks and not following._followers, what="the end of all waiting")


# -- the verbs -------------------------------------------------------------------------------------


@in_a_loop
async def test_results_are_awaited(url: str) -> None:
    async with opened(url) as queue:

        @queue.task
        async def double(number: int) -> int:
            return 2 * number

        @queue.task(name="fail", max_attempts=1)
        def fail(text: str) -> None:
            raise ValueError(text)

        task = await double.enqueue(4)
        refused = await fail.using(priority=2).enqueue("no luck")
        cancelled = await queue.enqueue(double.bind(1), start_in=60)
        assert (task.state, task.payload, refused.priority) == ("pending", {"args": [4], "kwargs": {}}, 2)
        waits = [asyncio.create_task(each.get_result(timeout=30)) for each in (task, refused, cancelled)]
        async with working(queue):
            assert await waits[0] == 8
            with pytest.raises(TaskFailed, match="abandoned after 1 attempt: ValueError: no luck"):
                await waits[1]
            assert await cancelled.cancel()
            with pytest.raises(TaskCancelled):
                await waits[2]
        assert (task.result, task.attempt, task.state) == (8, 1, TaskState.DONE)
        [attempt] = await refused.attempts()
        assert (attempt.outcome, refused.error_type) == ("abandoned", "builtins.ValueError")
        assert await (await queue.get(task.id)).get_result() == 8
        assert (await double(4), double.name) == (8, task.function)


@in_a_loop
async def test_every_verb(url: str) -> None:
    async with opened(url) as queue:
        first, second, third = await queue.enqueue_many([1, 2, 3], keys=["a", None, None])
        again = await queue.enqueue(9, key="a")
        assert (again, again.deduplicated, again == first, hash(again)) == (first, True, True, hash(first.sync))
        command = await queue.enqueue_command(["true"], priority=5)
        assert (command.is_command, command.priority) == (True, 5)
        assert [task.id for task in await queue.tasks(limit=2)] == [command.id, third.id]
        assert (await queue.stats()).pending == 4
        assert await queue.cancel(command.id)
        assert [task.id for task in (await queue.find(state="cancelled")).tasks] == [command.id]
        assert (await queue.retry(command.id)).state == "pending"
        await queue.cancel(command.id)
        await queue.delete(command.id)
        with pytest.raises(TaskNotFound):
            await queue.get(command.id)
        assert (await queue.reschedule(second.id, priority=7)).priority == 7
        assert (await queue.cancel_many(priority=7, actor="alice")).changed == 1
        assert (await queue.retry_many(state="cancelled")).changed == 1
        assert (await queue.reschedule_many(state="pending", to_priority=1)).changed == 3
        assert [action.verb for action in await queue.audit()] == ["cancel"]
        await queue.pause()
        assert [reason.code for reason in await queue.why(first.id)][:1] == ["queue_paused"]
        await queue.resume()
        with pytest.raises(InvalidTransition):
            await queue.suspend(first.id)
        with pytest.raises(InvalidTransition):
            await queue.continue_(first.id)
        assert (await queue.schedule("nightly", 1, cron="0 3 * * *")).name == "nightly"
        assert [schedule.name for schedule in await queue.schedules()] == ["nightly"]
        await queue.unschedule("nightly")
        await queue.set_retention(done=60)
        assert (await queue.retention()).done == 60
        assert [info.name for info in await queue.queues()] == ["default"]
        assert (await queue.workers(), await queue.function_stats()) == ([], [])
        assert await queue.history()
        assert await queue.purge() == 3
        assert (await queue.delete_many(state="abandoned")).changed == 3
        assert await queue.prune(0) == 0


@in_a_loop
async def test_tasks_are_fetched_by_hand(url: str) -> None:
    async with opened(url) as queue:
        await queue.enqueue_many([1, 2, 3], max_attempts=1)
        results = []
        async for task in queue:
            with contextlib.suppress(ZeroDivisionError):
                async with task:
                    assert task.state == "running"
                    task.result = 6 // (task.payload - 2)
            results.append((task.state, task.result))
            if len(results) == 3:
                break
        assert results == [("done", -6), ("abandoned", None), ("done", 6)]
        assert await queue.fetch(timeout=0) == []
        held = await queue.enqueue(4)
        [task] = await queue.next(5, timeout=5)
        assert (task, await task.start()) == (held, True)
        await task.release(60)
        assert (task.state, task.attempt) == ("pending", 0)


@in_a_loop
async def test_a_block_that_is_cancelled_returns_its_task_without_spending_an_attempt(url: str) -> None:
    async with opened(url) as queue:
        task = await queue.enqueue()
        inside = asyncio.Event()

        async def consume() -> None:
            async for held in queue:
                async with held:
                    inside.set()
                    await asyncio.sleep(3600)

        consumer = asyncio.create_task(consume())
        await inside.wait()
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        await task.refresh()
        assert (task.state, task.attempt, [each.outcome for each in await task.attempts()]) == (
            "pending",
            0,
            ["released"],
        )


@in_a_loop
@ONE_ENGINE
@pytest.mark.parametrize(("is_cancelled_inside", "state"), [(True, "pending"), (False, "done")])
async def test_a_block_ends_its_task_even_if_all_threads_are_busy(
    url: str, is_cancelled_inside: bool, state: str
) -> None:
    """A call that has not started yet is not left out when the block is cancelled, or cancelled again."""
    async with opened(url, threads=1) as queue:
        task, busy, inside = await queue.enqueue(), threading.Event(), asyncio.Event()
        calls = []

        async def hold() -> None:
            [held] = await queue.fetch()
            async with held:
                calls.append(asyncio.create_task(queue._call(busy.wait, 30)))
                await asyncio.sleep(0)
                inside.set()
                if is_cancelled_inside:
                    await asyncio.sleep(3600)

        holder = asyncio.create_task(hold())
        await inside.wait()
        for _ in range(2):
            holder.cancel()
            await asyncio.sleep(0.05)
        assert not holder.done()
        busy.set()
        with pytest.raises(asyncio.CancelledError):
            await holder
        await asyncio.gather(*calls)
        assert (await task.refresh()).state == state


@in_a_loop
async def test_progress_is_followed_to_the_end(url: str) -> None:
    async with opened(url) as queue:
        goes_on = threading.Event()

        def report(payload: Any) -> None:
            from dbtaskqueue import current_task

            current_task().progress(1, 2, "half")
            goes_on.wait(30)
            current_task().progress(2, 2, "all")

        task = await queue.enqueue()
        seen: list[Progress | TaskState] = []
        async for update in task.follow():
            if not seen:
                worker = working(queue, report)
                await worker.__aenter__()
            seen.append(update)
            if isinstance(update, Progress) and update.message == "half":
                goes_on.set()
        await worker.__aexit__(None, None, None)
        states = [each for each in seen if isinstance(each, TaskState)]
        assert states in (["pending", "running", "done"], ["pending", "reserved", "running", "done"])
        assert [each[:3] for each in seen if isinstance(each, Progress)] == [(1, 2, "half"), (2, 2, "all")]
        assert (seen[-1], task.state) == ("done", "done")
        assert [each async for each in task.follow()] == [task.progress, "done"]
        await rest(queue)


@in_a_loop
async def test_parents_flows_and_lanes(url: str) -> None:
    async with opened(url) as queue:

        @queue.task
        def add(one: int, two: int) -> int:
            return one + two

        mail = queue.lane("mail")
        async with queue.flow() as flow:
            one = flow.add(add.bind(1, 2))
            two = flow.add(add.bind(one, 10), priority=1)
            assert repr(two) == "<AsyncFlowTask 1, not stored>"
            with pytest.raises(TaskQueueError, match="has not ended"):
                assert two.task
        three = await mail.enqueue(add.bind(two.task, 100), after=[one.task])
        assert (await three.parents(), await one.task.children()) == ([two.task.id, one.task.id], [2, 3])
        assert await three.blocked() == (["parents"], 2, 2)
        with pytest.raises(ZeroDivisionError):
            async with queue.flow() as flow:
                flow.add(1)
                raise ZeroDivisionError
        assert (three.queue, mail.functions, mail.sync.name) == ("mail", queue.functions, "mail")
        Worker(queue.sync, queues=["default", "mail"]).run(max_tasks=3)
        assert await queue.wait_all([three, two.task, three], timeout=30) == [three, two.task, three]
        assert (three.result, await three.blocked()) == (113, None)


@in_a_loop
async def test_waiting_for_all_tasks_says_how_many_are_unfinished(url: str) -> None:
    async with opened(url) as queue:
        tasks = await queue.enqueue_many(range(3))
        await tasks[1].cancel()
        with pytest.raises(TimeoutError, match=r"^2 of 3 tasks unfinished after 0\.05 s$"):
            await queue.wait_all(tasks, timeout=0.05)
        with pytest.raises(TimeoutError, match=r"^task 1 is still pending after 0 s$"):
            await tasks[0].wait(timeout=0)
        assert await queue.wait_all([]) == []
        await queue.prune(0, states=["cancelled"])
        with pytest.raises(TaskNotFound):
            await queue.wait_all(tasks, timeout=30)
        await rest(queue)


@in_a_loop
@ONE_ENGINE
async def test_what_is_no_longer_followed_is_no_longer_read(url: str) -> None:
    async with opened(url) as queue:
        task = await queue.enqueue()
        followers = [asyncio.create_task(_last(task)) for _ in range(3)]
        await soon(lambda: len(Following.on(queue.sync.store)._followers.get(task.id, ())) == 3)
        followers[0].cancel()
        await soon(lambda: len(Following.on(queue.sync.store)._followers.get(task.id, ())) == 2)
        await (await queue.get(task.id)).cancel()
        assert await asyncio.gather(*followers[1:]) == ["cancelled", "cancelled"]
        await rest(queue)
        await soon(lambda: "dbtaskqueue-following" not in ours())


async def _last(task: AsyncTask[Any]) -> Progress | TaskState:
    return [update async for update in (await task.refresh()).follow()][-1]


@in_a_loop
@ONE_ENGINE
async def test_a_task_that_is_pruned_while_it_is_followed(url: str) -> None:
    async with opened(url) as queue:
        task = await queue.enqueue()
        follower = asyncio.create_task(_last(task))
        await soon(lambda: Following.on(queue.sync.store)._followers)
        await (await queue.get(task.id)).cancel()
        await queue.delete(task.id)
        with pytest.raises(TaskNotFound):
            await follower


# -- cancelling ------------------------------------------------------------------------------------


async def cancelled_after(steps: int, awaited: Coroutine[Any, Any, Any]) -> bool:
    """Cancel a coroutine after some turns of the loop. Return whether it was cancelled before it ended."""
    task = asyncio.ensure_future(awaited)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@in_a_loop
async def test_a_cancelled_fetch_leaves_nothing_reserved(url: str) -> None:
    """It is cancelled at each of its steps: before the claim, during it, and when it has tasks."""
    async with opened(url) as queue:
        await queue.enqueue()
        cancelled = 0
        for pause in range(60):
            fetched = asyncio.ensure_future(queue.fetch())
            await asyncio.sleep(pause * 0.0002)
            fetched.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                for held in await fetched:
                    await held.release()
                continue
            cancelled += 1
            assert (await queue.stats()).reserved == 0, pause
        assert cancelled
        assert [task.payload for task in await queue.fetch(timeout=5)] == [None]


@in_a_loop
async def test_a_fetch_that_waits_can_be_cancelled(url: str) -> None:
    async with opened(url) as queue:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await queue.fetch()
        first, second = asyncio.create_task(queue.fetch()), asyncio.create_task(queue.fetch())
        await asyncio.sleep(0.05)
        first.cancel()
        task = await queue.enqueue()
        assert await asyncio.wait_for(second, 30) == [task]
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(first, 30)


@ONE_ENGINE
@pytest.mark.parametrize("act", ["enqueue", "wait", "follow", "hold", "get"])
def test_a_call_can_be_cancelled_at_each_await(act: str, url: str) -> None:
    async def hold(queue: AsyncTaskQueue) -> None:
        for task in await queue.fetch(timeout=0):
            async with task:
                pass

    async def follow(queue: AsyncTaskQueue) -> None:
        task = await queue.enqueue(start_in=60)
        async for _ in task.follow():
            await task.cancel()

    async def wait(queue: AsyncTaskQueue) -> None:
        task = await queue.enqueue(start_in=60)
        await asyncio.gather(task.get_result(), task.cancel(), return_exceptions=True)

    async def enqueue(queue: AsyncTaskQueue) -> None:
        await queue.enqueue_many([1, 2], start_in=60)

    async def get(queue: AsyncTaskQueue) -> None:
        await (await queue.get(1)).attempts()

    acts: dict[str, Callable[[AsyncTaskQueue], Coroutine[Any, Any, None]]] = {
        each.__name__: each for each in (enqueue, follow, hold, get, wait)
    }

    async def main() -> None:
        async with opened(url) as queue:
            await queue.enqueue()
            steps, ended = 0, 0
            while ended < 3 and steps < 400:
                if not await cancelled_after(steps, acts[act](queue)):
                    ended += 1
                steps = steps + 1 if steps < 20 else int(steps * 1.3)
                assert (await queue.stats()).running == 0
            await rest(queue)
            assert (await queue.stats()).reserved == 0
            assert await (await queue.get(1)).attempts() is not None

    asyncio.run(main())


@in_a_loop
@ONE_ENGINE
async def test_an_unfinished_call_with_a_connection_keeps_its_caller(url: str) -> None:
    """Otherwise the caller would use its connection while a thread of ours does."""
    async with opened(url) as queue:
        started, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

        def enqueue(payload: object = None, **options: object) -> None:
            started.set()
            goes_on.wait(30)
            ended.set()

        queue.sync.enqueue = enqueue  # type: ignore[method-assign,assignment]
        call = asyncio.create_task(queue.enqueue(connection=object()))
        await soon(started.is_set)
        for _ in range(3):
            call.cancel()
            await asyncio.sleep(0.01)
        assert not call.done()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ended.is_set()


# -- threads, loops, processes ---------------------------------------------------------------------


@in_a_loop
@ONE_ENGINE
async def test_many_awaited_results_take_few_threads(url: str) -> None:
    before = len(ours())
    async with opened(url) as queue:
        tasks = await queue.enqueue_many(range(200))
        waits = [asyncio.create_task(task.get_result()) for task in tasks]
        most = 0
        for held in await queue.fetch(200):
            async with held:
                held.result = held.payload
            most = max(most, len(ours()) - before)
        assert await asyncio.gather(*waits) == list(range(200))
        assert 0 < most <= 8 + 1  # and the maintenance of the holder
        await rest(queue)


@in_a_loop
@ONE_ENGINE
async def test_many_waits_are_read_in_one_query(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url) as queue:
        tasks = await queue.enqueue_many(range(300), start_in=60)
        reads = {"standings": 0, "get": 0, "summaries": 0}

        def counted(name: str) -> Callable[..., Any]:
            read = getattr(queue.sync.store, name)

            def count(*given: Any) -> Any:
                reads[name] += 1
                return read(*given)

            return count

        for name in reads:
            monkeypatch.setattr(queue.sync.store, name, counted(name))
        waits = [asyncio.create_task(task.wait()) for task in tasks]
        await soon(lambda: len(Waiting.on(queue.sync.store)._callbacks) == 300)
        await asyncio.sleep(0.1)
        assert reads["get"] == 0
        follows = [asyncio.create_task(anext(task.follow())) for task in tasks]
        await asyncio.gather(*follows)
        reads["get"] = 0
        [each.cancel() for each in waits]
        await asyncio.gather(*waits, return_exceptions=True)
        assert reads["standings"] < 30
        await rest(queue)


@in_a_loop
@ONE_ENGINE
async def test_many_fetches_share_a_thread_and_are_served_in_order(url: str) -> None:
    async with opened(url) as queue:
        fetches = [asyncio.create_task(queue.fetch(timeout=60)) for _ in range(20)]
        await soon(lambda: "dbtaskqueue-fetching" in ours())
        assert ours().count("dbtaskqueue-fetching") == 1
        assert await queue.fetch(timeout=0) == []
        await queue.enqueue_many(range(20))
        assert [task.payload for [task] in await asyncio.gather(*fetches)] == list(range(20))
        with pytest.raises(ValueError, match="max_items"):
            await queue.fetch(0)


@in_a_loop
async def test_closing_ends_the_fetches_that_wait(url: str) -> None:
    async with opened(url) as queue:
        mail = queue.lane("mail")
        waiting = [asyncio.create_task(each.fetch()) for each in (queue, queue, mail)]
        iterated = asyncio.create_task(anext(aiter(mail), None))
        await soon(lambda: ours().count("dbtaskqueue-fetching") == 2)
        await queue.close()
        assert await asyncio.gather(*waiting) == [[], [], []]
        assert await iterated is None
        assert await queue.fetch() == []
        with pytest.raises(TaskQueueError, match="closed"):
            await queue.enqueue()
    await soon(lambda: not any(name.startswith(("dbtaskqueue-fetching", "dbtaskqueue-async")) for name in ours()))


@in_a_loop
@ONE_ENGINE
async def test_closing_needs_no_free_thread_and_is_not_cancelled(url: str) -> None:
    queue, busy = AsyncTaskQueue(url, open=True, threads=1), threading.Event()
    call = asyncio.create_task(queue._call(busy.wait, 30))
    await asyncio.sleep(0)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert queue.is_closed
    assert not call.done()
    busy.set()
    await call


@in_a_loop
@ONE_ENGINE
async def test_the_end_of_a_lifespan_waits_for_a_claim(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the claim would connect again, and leave the row of a worker."""
    queue, in_claim, may_claim = AsyncTaskQueue(url), threading.Event(), threading.Event()
    fetch = queue.sync._fetch

    def slow(*arguments: Any) -> Any:
        in_claim.set()
        may_claim.wait(30)
        return fetch(*arguments)

    monkeypatch.setattr(queue.sync, "_fetch", slow)
    async with queue.lifespan():
        task = await queue.enqueue()
        waiting = asyncio.create_task(queue.fetch())
        await soon(in_claim.is_set)
        threading.Timer(0.2, may_claim.set).start()
    assert await waiting == []
    assert (queue.sync.workers(), (await task.refresh()).state) == ([], "pending")
    await queue.close()


@in_a_loop
@ONE_ENGINE
async def test_closing_the_queue_without_a_loop_ends_the_fetches_that_wait(url: str) -> None:
    async with opened(url) as queue:
        waiting = asyncio.create_task(queue.fetch())
        await soon(lambda: "dbtaskqueue-fetching" in ours())
        await asyncio.to_thread(queue.sync.close)
        assert await asyncio.wait_for(waiting, 30) == []


@in_a_loop
@ONE_ENGINE
async def test_an_error_of_a_fetch_is_raised_by_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url) as queue:
        monkeypatch.setattr(queue.sync, "_fetch", lambda *_, **__: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await queue.fetch()


def test_several_loops_use_one_queue(url: str) -> None:
    """One after the other, and at the same time in two threads."""
    queue = AsyncTaskQueue(url)

    async def consume() -> list[Any]:
        found = []
        while tasks := await queue.fetch(timeout=1):
            async with tasks[0] as task:
                task.result = task.payload
            found.append(tasks[0].payload)
        return found

    async def produce(first: int) -> None:
        tasks = [await queue.enqueue(number) for number in range(first, first + 5)]
        await queue.wait_all(tasks, timeout=60)

    consumer = Background(lambda: asyncio.run(consume()))
    for first in (0, 5):
        asyncio.run(produce(first))
    assert sorted(consumer.join()) == list(range(10))
    asyncio.run(queue.close())


def test_a_loop_that_ends_leaves_nothing_reserved(url: str) -> None:
    queue = AsyncTaskQueue(url)

    async def leave() -> None:
        left.append(asyncio.create_task(queue.fetch()))
        await soon(lambda: "dbtaskqueue-fetching" in ours())

    left: list[asyncio.Task[Any]] = []
    asyncio.run(leave())
    loop = asyncio.new_event_loop()
    fetch = loop.create_task(queue.fetch())
    loop.run_until_complete(soon(lambda: queue._fetches._requests))
    loop.close()  # without cancelling what runs in it
    queue.sync.enqueue()
    until(lambda: queue.sync.stats().pending == 1 and not queue._fetches._requests, what="the release of the task")
    fetch.cancel = lambda *_: False  # type: ignore[method-assign]
    fetch._log_destroy_pending = False  # type: ignore[attr-defined]
    asyncio.run(queue.close())


@ONE_ENGINE
def test_uvloop(url: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with opened(url) as queue:
            tasks = await queue.enqueue_many(range(20))
            waits = [asyncio.create_task(task.get_result()) for task in tasks]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await queue.lane("mail").fetch()
            for _ in range(20):
                [held] = await queue.fetch()
                async with held:
                    held.result = held.payload
            assert await asyncio.gather(*waits) == list(range(20))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


FORKED = """
import asyncio, os, sys
from dbtaskqueue import AsyncTaskQueue

queue = AsyncTaskQueue(sys.argv[1])

async def use(who):
    task = await queue.enqueue(who)
    [held] = await queue.fetch(timeout=30)
    async with held:
        held.result = held.payload
    assert await (await queue.get(held.id)).get_result(timeout=30) == who

asyncio.run(use("parent"))
if os.fork() == 0:
    asyncio.run(use("child"))
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
asyncio.run(use("parent"))
print([task.state.value for task in queue.sync.tasks()])
"""


def test_a_forked_child_has_its_own_threads(url: str) -> None:
    assert run_python(FORKED, url) == "['done', 'done', 'done']\n"


@ONE_ENGINE
@pytest.mark.parametrize("executor", ["thread", "process", "asyncio"])
def test_the_command_line_runs_the_functions_of_an_async_queue(executor: str, queue: TaskQueue) -> None:
    """A child process finds the functions and the extensions at the top of a module."""
    names = async_tasks.queue.functions.names()
    assert names == ["async_tasks.add", "async_tasks.fail", "plain"]
    calls = [[1, 2], [], ["abc"]]
    add, fail, plain = (
        queue.submit([{"args": args, "kwargs": {}}], {}, name)[0] for args, name in zip(calls, names, strict=True)
    )
    words = ["worker", "async_tasks:queue", "--burst", "--executor", executor]
    environment = {**os.environ, "PYTHONPATH": python_path(), "DBTASKQUEUE_URL": queue.url}
    subprocess.run([sys.executable, "-m", "dbtaskqueue", *words], env=environment, timeout=60, check=True)
    result, pid, *around = add.refresh().result
    assert (result, around, pid != os.getpid()) == (3, ["Named"], True)
    assert (fail.refresh().state, plain.refresh().result) == ("abandoned", "ABC")


# -- small -----------------------------------------------------------------------------------------


@in_a_loop
@ONE_ENGINE
async def test_the_first_use_opens_the_queue(url: str) -> None:
    queue = AsyncTaskQueue(url)
    assert (queue.is_open, queue.is_closed) == (False, False)
    assert repr(queue).startswith("<AsyncTaskQueue default of ")
    assert await queue() is queue
    task = await queue.enqueue()
    assert (queue.is_open, repr(task)) == (True, "<AsyncTask 1 default pending attempt=0>")
    await queue.close()
    assert queue.is_closed
    other = AsyncTaskQueue(open=False)
    assert await other.open(url) is other
    assert (other.url, other.name, other.lease) == (url, "default", 30)
    other.lease = 12  # type: ignore[assignment]
    assert other.sync.lease == 12
    await other.close()
    with pytest.raises(ConfigurationError):
        await AsyncTaskQueue("nonsense://").open()
    with pytest.raises(ValueError, match="threads"):
        AsyncTaskQueue(threads=0)
    with pytest.raises(TypeError, match=r"Worker\(queue\.sync\)"):
        Worker(other)  # type: ignore[arg-type]


@in_a_loop
@ONE_ENGINE
async def test_extensions_see_the_context_of_the_caller(url: str) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")

    class RequestId(Extension):
        def enqueuing(self, new: NewTaskView) -> None:
            new.meta["request"] = request.get()

    async def handle(name: str) -> AsyncTask[Any]:
        request.set(name)
        return await queue.enqueue()

    async with opened(url) as queue:
        queue.use(RequestId())
        tasks = await asyncio.gather(*map(handle, "abc"))
        assert [task.meta["request"] for task in tasks] == ["a", "b", "c"]


@in_a_loop
@ONE_ENGINE
async def test_connections_come_with_their_loop(url: str) -> None:
    mine, given = object(), []

    async with opened(url) as queue:

        @queue.task
        def act(number: int) -> None: ...

        def enqueue(groups: Any, connection: object, *rest: Any) -> Any:
            given.append(connection)
            return store_enqueue(groups, None, *rest)

        store_enqueue = queue.sync.store.enqueue
        queue.sync.store.enqueue = enqueue  # type: ignore[method-assign]
        bound = act.using(connection=mine)
        calls: list[Awaitable[object]] = [
            queue.enqueue(connection=mine),
            queue.enqueue_many([1, 2], connection=mine),
            queue.enqueue_many([bound.bind(1), bound.using(priority=1).bind(2)]),
            queue.enqueue_command(["true"], connection=mine),
            bound.enqueue(3),
            queue.enqueue(bound.bind(4)),
        ]
        for call in calls:
            await call
        async with queue.flow() as flow:
            one = flow.add(1, connection=mine)
            flow.add(bound.bind(5), after=one)
        assert len(given) == 7
        for each in given:
            assert isinstance(each, OnLoop)
            assert (each.connection, each.loop) == (mine, asyncio.get_running_loop())
        await act.enqueue(6)
        assert given[-1] is None


@in_a_loop
@ONE_ENGINE
async def test_periodic_functions(url: str) -> None:
    async with opened(url) as queue:

        @queue.periodic(every=60, args=[7])
        @queue.task(priority=4)
        def clean(days: int) -> int:
            return days

        assert clean.__name__ == "clean"
        assert queue.sync.store_declarations() == [clean.name]
        [schedule] = await queue.schedules()
        assert schedule.name == clean.name
        assert (await clean.enqueue(1)).priority == 4


@in_a_loop
@ONE_ENGINE
async def test_a_holder_that_is_dropped_releases_its_task(url: str) -> None:
    async with opened(url) as queue:
        task = await queue.enqueue()
        assert len(await queue.fetch()) == 1
        await asyncio.sleep(0)
        gc.collect()
        await soon(lambda: task.sync.refresh().state == "pending")

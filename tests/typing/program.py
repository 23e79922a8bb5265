"""A user's program, checked by the type checkers in strict mode and never run. See ``test_typing.py``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, assert_type

from dbtaskqueue import (
    AsyncTask,
    AsyncTaskQueue,
    Attempt,
    Coder,
    Command,
    Progress,
    RetryPolicy,
    RunningTask,
    Task,
    TaskCall,
    TaskFailed,
    TaskQueue,
    TaskState,
    Worker,
    current_task,
)


class Upper(Coder):
    def can(self, kind: Any) -> bool:
        return kind is bytes

    def encode(self, value: Any, kind: Any) -> Any:
        return value.hex()

    def decode(self, value: Any, kind: Any) -> Any:
        return bytes.fromhex(value)


queue = TaskQueue("sqlite:///program.sqlite", coders=[Upper()], retry=RetryPolicy(delay=timedelta(minutes=1)))


@queue.task
def thumbnail(path: str, width: int = 320) -> dict[str, int]:
    running = current_task()
    assert_type(running, RunningTask)
    size = running.step("measure", measure, path)
    assert_type(size, tuple[int, int])
    running.progress(1, total=2, message="measured")
    return {"width": width, "height": size[1]}


@queue.task(max_attempts=3, time_limit=timedelta(hours=1), backoff=lambda error, attempt: 2.0 * attempt)
async def download(url: str) -> bytes:
    body = await current_task().step("fetch", fetch, url, timeout=10)
    assert_type(body, list[int])
    return bytes(body)


@queue.task
def forget() -> None: ...


def measure(path: str) -> tuple[int, int]:
    return len(path), 1


async def fetch(url: str, *, timeout: float) -> list[int]:
    return [len(url)]


def enqueueing() -> None:
    task = thumbnail.enqueue("a.png", width=640)
    assert_type(task, Task[dict[str, int]])
    assert_type(task.get_result(timeout=10), dict[str, int])
    assert_type(task.result, dict[str, int] | None)
    assert_type(task.wait(), Task[dict[str, int]])
    assert_type(task.refresh(), Task[dict[str, int]])
    assert_type(task.cancel(running=False), bool)
    assert_type(thumbnail("a.png"), dict[str, int])

    assert_type(thumbnail.using(start_in=60, priority=9).enqueue("a.png"), Task[dict[str, int]])
    assert_type(download.enqueue("http://example.com/"), Task[bytes])
    assert_type(download.using(key="home").enqueue("http://example.com/").get_result(), bytes)
    assert_type(forget.enqueue(), Task[None])
    assert_type(thumbnail.get(task), Task[dict[str, int]])
    assert_type(thumbnail.get(7), Task[dict[str, int]])
    assert_type(download.get(7).get_result(), bytes)
    call = thumbnail.using(priority=9).bind("a.png")
    assert_type(call, TaskCall[dict[str, int]])
    assert_type(queue.enqueue(call, key="a"), Task[dict[str, int]])
    assert_type(queue.enqueue(download.bind("http://example.com/")), Task[bytes])
    assert_type(queue.enqueue_many([thumbnail.bind("a.png"), thumbnail.bind("b.png")]), list[Task[dict[str, int]]])
    assert_type(queue.enqueue_many([thumbnail.bind("a.png"), {"n": 1}]), list[Task[Any]])
    assert_type(queue.enqueue_many(range(10), priority=1), list[Task[Any]])
    assert_type(queue.enqueue_many([thumbnail.bind("a.png")], keys=["a"]), list[Task[dict[str, int]]])
    assert_type(queue.enqueue(Command(["true"])), Task[Any])
    assert_type(queue.enqueue_command(["true"], cwd="/").get_result(), dict[str, int])
    called: Callable[[str], Coroutine[Any, Any, bytes]] = download
    print(called)

    tasks = queue.wait_all([thumbnail.enqueue("a.png"), thumbnail.enqueue("b.png")], timeout=60)
    assert_type(tasks, list[Task[dict[str, int]]])
    wider: Sequence[Task[object]] = tasks
    print(wider)


def errors() -> None:
    thumbnail.enqueue(7)  # error: the path is a text
    thumbnail.get("7")  # error: an id is a number
    TaskQueue(coders=[int])  # error: a coder is a Coder
    thumbnail.enqueue("a.png", height=1)  # error: there is no such argument
    thumbnail.enqueue("a.png").get_result().upper()  # error: the result is a dict
    thumbnail.enqueue("a.png").result["width"]  # error: the result is None until the task is done
    thumbnail.using(color="red")  # error: there is no such option
    queue.tasks(state="finished")  # error: there is no such state
    queue.enqueue(1, start_in="1h")  # error: seconds or a timedelta
    Worker(queue, executor="threads")  # error: there is no such executor
    Worker(queue).run(batch="all")  # error: a number or "auto"
    thumbnail.bind(7)  # error: the path is a text
    queue.enqueue(thumbnail.bind("a.png"), color="red")  # error: there is no such option
    download.enqueue(7)  # error: the URL is a text
    current_task().step("measure", measure, 7)  # error: the path is a text


def reading() -> None:
    any_task = queue.get(17)
    assert_type(any_task, Task[Any])
    assert_type(queue.enqueue({"n": 1}), Task[Any])
    bare: Task = any_task
    assert_type(bare, Task[Any])
    narrower: Task[int] = queue.get(17)
    assert_type(narrower.get_result(), int)
    assert_type(any_task.state, TaskState)
    assert_type(any_task.started_at, datetime | None)
    assert_type(any_task.progress, Progress | None)
    assert_type(any_task.meta, dict[str, Any])
    attempts = any_task.attempts()
    assert_type(attempts, list[Attempt])
    assert_type(attempts[0].outcome, Literal["done", "failed", "abandoned", "cancelled", "released", "lost"] | None)
    for task in queue:
        with task as held:
            assert_type(held, Task[Any])
            held.result = {"status": "OK"}
    print(queue.tasks(state="done", limit=5), queue.tasks(state=TaskState.DONE))
    try:
        any_task.get_result()
    except TaskFailed as failed:
        assert_type(failed.error, str | None)


def generic(task: Task[int]) -> int:
    return task.get_result()


later = AsyncTaskQueue("sqlite:///program.sqlite", open=False, threads=2)


@later.task
async def shrink(path: str) -> dict[str, int]:
    return {"width": len(path)}


@later.task(priority=1)
def count(words: list[str]) -> int:
    return len(words)


async def awaiting() -> None:
    task = await shrink.enqueue("a.png")
    assert_type(task, AsyncTask[dict[str, int]])
    assert_type(await task.get_result(timeout=10), dict[str, int])
    assert_type(task.result, dict[str, int] | None)
    assert_type((task.id, task.state, task.key, task.started_at), tuple[int, TaskState, str | None, datetime | None])
    assert_type(await count.using(key="a").enqueue(["a"]), AsyncTask[int])
    assert_type(await later.enqueue(shrink.bind("a.png")), AsyncTask[dict[str, int]])
    assert_type(await later.enqueue_many([count.bind([])]), list[AsyncTask[int]])
    assert_type(await later.wait_all([task]), list[AsyncTask[dict[str, int]]])
    assert_type(count(["a"]), int)
    async for update in task.follow():
        assert_type(update, Progress | TaskState)
    async for held in later:
        async with held:
            held.result = held.payload
    await shrink.enqueue(7)  # error: an argument of another type
    await count.enqueue(["a"], "b")  # error: an argument too many
    await later.enqueue(1, priorty=1)  # error: no such option
    assert (await later.get(1)).refresh().state  # error: the coroutine was not awaited

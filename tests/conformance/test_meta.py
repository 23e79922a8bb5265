"""``meta``: a JSON object that is stored beside a task's payload."""

from __future__ import annotations

import collections
from collections.abc import Mapping

import pytest

from dbtaskqueue import PayloadError, TaskQueue, Worker, current_task

META = {"trace": "00-4bf9", "tenant": {"id": 7, "name": "Zoë"}}


def test_meta_is_stored_with_the_task(queue: TaskQueue) -> None:
    tasks = [queue.enqueue("a", meta=META), *queue.enqueue_many(["b", "c"], meta=META)]
    assert [task.meta for task in tasks] == [META] * 3
    assert [queue.get(task.id).meta for task in tasks] == [META] * 3
    assert [task.meta for task in queue.tasks()] == [META] * 3
    assert [task.meta for task in queue.fetch(3, timeout=10)] == [META] * 3


def test_meta_is_empty_unless_given(queue: TaskQueue) -> None:
    task = queue.enqueue("a")
    assert (task.meta, queue.get(task.id).meta) == ({}, {})


@pytest.mark.parametrize("executor", ["thread", "process", "asyncio"])
@pytest.mark.engine("sqlite")
def test_a_running_task_reads_its_meta(queue: TaskQueue, executor: str) -> None:
    task = queue.enqueue("payload", meta=META)
    Worker(queue, executor=executor).run(read_meta, burst=True)
    assert task.get_result(10) == META


def read_meta(payload: object) -> dict[str, object]:
    assert payload == "payload"
    return current_task().meta


@pytest.mark.one_engine("decided in Python")
def test_a_task_function_gets_no_meta_as_argument(queue: TaskQueue) -> None:
    @queue.task
    def function(*args: object, **kwargs: object) -> list[object]:
        return [list(args), kwargs, current_task().meta]

    task = function.using(meta=META).enqueue(1)
    Worker(queue).run(burst=True)
    assert task.get_result(10) == [[1], {}, META]


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize(
    "meta",
    [[], "text", 7, {1: "a"}, {"a": float("nan")}, {"a": object()}, {"a": "\x00"}, {"a": "x" * 8192}],
    ids=lambda value: ascii(value)[:20],
)
def test_bad_meta_is_refused(queue: TaskQueue, meta: Mapping[str, object]) -> None:
    for enqueue in (queue.enqueue, queue.task(print).using(meta=meta).enqueue):
        with pytest.raises(PayloadError, match="meta"):
            enqueue("a", meta=meta) if enqueue == queue.enqueue else enqueue("a")
    assert queue.tasks() == []


@pytest.mark.one_engine("decided in Python")
def test_meta_may_be_any_mapping_of_at_most_8_kib(queue: TaskQueue) -> None:
    largest = collections.ChainMap({"a": "x" * (8192 - len('{"a":""}'))})
    assert queue.get(queue.enqueue("a", meta=largest).id).meta == dict(largest)

"""Limits: options of a task that are stored with it, and of a task function."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dbtaskqueue import Task, TaskQueue

BAD = [0, -1, math.inf, math.nan, True, "60", 1e400, 10**400, object()]


def of(task: Task) -> tuple[float | None, float | None, int | None]:
    return task.time_limit, task.stall_limit, task.memory_limit


def test_limits_are_stored(queue: TaskQueue) -> None:
    given: dict[str, Any] = {"time_limit": 1.5, "stall_limit": 60, "memory_limit": 2**40}
    tasks = [
        queue.enqueue(1, **given),
        *queue.enqueue_many([1, 2], **given),
        queue.enqueue_command(["true"], **given),
        queue.enqueue("x" * 2000, **given),
    ]
    for task in tasks:
        assert of(task) == of(queue.get(task.id)) == (1.5, 60, 2**40)
    assert [of(task) for task in queue.fetch(10)] == [(1.5, 60, 2**40)] * 4
    assert of(queue.enqueue(1)) == (None, None, None)
    some = queue.enqueue(1, stall_limit=3)
    assert of(some.refresh()) == (None, 3, None)


def test_limits_apply_to_a_second_attempt(queue: TaskQueue) -> None:
    queue.enqueue(1, time_limit=5)
    [task] = queue.fetch()
    task.start()
    task.fail("again", retry=True)
    queue.retry(task.id)
    assert of(queue.fetch()[0]) == (5, None, None)


def test_limits_of_a_task_function(queue: TaskQueue) -> None:
    @queue.task(name="f", time_limit=9, memory_limit=10**6)
    def function() -> None: ...

    assert of(function.enqueue()) == (9, None, 10**6)
    assert of(function.using(time_limit=None, stall_limit=2).enqueue()) == (None, 2, 10**6)


@pytest.mark.engine("sqlite")  # refused before a query is sent
@pytest.mark.parametrize("value", BAD, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["time_limit", "stall_limit", "memory_limit"])
def test_bad_limits_are_refused(queue: TaskQueue, name: str, value: Any) -> None:
    options: Any = {name: value}
    for act in (
        lambda: queue.enqueue(1, **options),
        lambda: queue.enqueue_many([1], **options),
        lambda: queue.enqueue_command(["true"], **options),
        lambda: queue.task(**options)(of),
    ):
        with pytest.raises(ValueError, match=name):
            act()
    assert queue.tasks() == []


def test_memory_is_a_whole_number(queue: TaskQueue) -> None:
    for value in (1.0, 2**63):
        with pytest.raises(ValueError, match="memory_limit"):
            queue.enqueue(1, memory_limit=value)  # type: ignore[arg-type]

"""``key``: at most one unfinished task of a queue has it."""

from __future__ import annotations

import pytest
from helpers import Background

from dbtaskqueue import Command, InvalidTransition, Task, TaskQueue


def test_a_second_enqueue_returns_the_first_task_unchanged(queue: TaskQueue) -> None:
    first = queue.enqueue({"n": 1}, key="report")
    second = queue.enqueue({"n": 2}, key="report", priority=9, start_in=60, max_attempts=2)
    assert second.id == first.id
    assert (second.payload, second.priority, second.max_attempts) == ({"n": 1}, 0, 10)
    assert second.start_at == first.start_at
    assert len(queue.tasks()) == 1


@pytest.mark.pooled("claims and locks")
@pytest.mark.parametrize("state", ["pending", "reserved", "running", "failed"])
def test_an_unfinished_task_keeps_its_key(queue: TaskQueue, state: str) -> None:
    task = queue.enqueue("first", key="k")
    held = bring(queue, state)
    again = queue.enqueue("second", key="k")
    assert (again.id, again.state, again.payload) == (task.id, state, "first")
    assert held is None or held.id == task.id


@pytest.mark.parametrize("state", ["done", "abandoned", "cancelled"])
def test_a_final_task_frees_its_key(queue: TaskQueue, state: str) -> None:
    task = queue.enqueue("first", key="k")
    bring(queue, state)
    again = queue.enqueue("second", key="k")
    assert again.id > task.id
    assert (again.state, again.payload) == ("pending", "second")


def bring(queue: TaskQueue, state: str) -> Task | None:
    if state == "pending":
        return None
    [task] = queue.fetch(timeout=10)
    if state == "cancelled":
        task.cancel()
    elif state != "reserved":
        task.start()
    if state == "done":
        task.finish()
    elif state in ("failed", "abandoned"):
        task.fail("broken", retry=state == "failed")
    assert task.state == state
    return task


def test_keys_of_two_queues_are_two(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        assert queue.enqueue(1, key="k").id != other.enqueue(2, key="k").id


def test_upper_and_lower_case_differ(queue: TaskQueue) -> None:
    assert queue.enqueue(1, key="Key").id != queue.enqueue(2, key="key").id


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b", "\ud800", 7, b"bytes", True], ids=ascii)
def test_a_bad_key_is_refused(queue: TaskQueue, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        queue.enqueue("x", key=key)
    assert queue.tasks() == []


@pytest.mark.parametrize("key", ["two words", "https://example.com/?q=ä&x='1';--", "😀", "x" * 255, " ", "%"])
def test_a_key_is_any_text_and_compared_exactly(queue: TaskQueue, key: str) -> None:
    task = queue.enqueue(1, key=key)
    assert queue.get(task.id).key == key
    assert queue.enqueue(2, key=key).id == task.id
    if len(key) < 255:
        assert queue.enqueue(3, key=key + " ").id != task.id


@pytest.mark.parametrize("state", ["done", "abandoned", "cancelled"])
def test_no_retry_while_another_has_the_key(queue: TaskQueue, state: str) -> None:
    first = queue.enqueue("first", key="k")
    bring(queue, state)
    second = queue.enqueue("second", key="k")
    token = first.refresh().token
    with pytest.raises(InvalidTransition, match="'k'"):
        queue.retry(first.id)
    assert (first.refresh().state, first.token) == (state, token)
    second.cancel()
    assert queue.retry(first.id).state == "pending"
    assert queue.enqueue("third", key="k").id == first.id


def test_a_failed_task_may_be_retried_with_its_own_key(queue: TaskQueue) -> None:
    queue.enqueue("first", key="k")
    task = bring(queue, "failed")
    assert task is not None
    assert queue.retry(task.id).state == "pending"


# -- many tasks with keys --------------------------------------------------------------------------


def test_each_of_many_payloads_may_have_a_key(queue: TaskQueue) -> None:
    first = queue.enqueue("first", key="a")
    tasks = queue.enqueue_many(["p", "q", "r", "s", "t"], keys=["a", None, "b", "b", None], priority=3)
    assert [task.deduplicated for task in tasks] == [True, False, False, True, False]
    assert (tasks[0].id, tasks[0].payload, tasks[3].id) == (first.id, "first", tasks[2].id)
    assert [(task.payload, task.key, task.priority) for task in reversed(queue.tasks(limit=4))] == [
        ("first", "a", 0),
        ("q", None, 3),
        ("r", "b", 3),
        ("t", None, 3),
    ]


def test_many_calls_and_command_lines_with_keys(queue: TaskQueue) -> None:
    function = queue.task(name="f")(print)
    targets = [function.bind(1), function.bind(2), Command(["ls"]), function.using(key="own").bind(3), {"plain": 1}]
    tasks = queue.enqueue_many(targets, keys=iter(["a", None, "b", "c", "a"]))
    assert [task.key for task in tasks] == ["a", None, "b", "own", "a"]
    assert [task.deduplicated for task in tasks] == [False, False, False, False, True]
    assert [task.function for task in tasks] == ["f", "f", None, "f", "f"]
    assert tasks[2].is_command


def test_keys_of_many_payloads_are_those_of_one_queue(queue: TaskQueue) -> None:
    other = queue.lane("other").enqueue("x", key="a")
    [task] = queue.enqueue_many(["y"], keys=["a"])
    assert (task.deduplicated, task.id == other.id) == (False, False)
    assert queue.enqueue_many([], keys=[]) == []


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize(
    ("keys", "error", "why"),
    [
        (["a"], ValueError, "one key or None for each of the 2 payloads, not 1"),
        (["a", "b", None], ValueError, "not 3"),
        ([], ValueError, "not 0"),
        ("ab", TypeError, "keys must be a list"),
        (["a", ""], ValueError, "a task's key must be"),
        (["a", 7], ValueError, "a task's key must be"),
    ],
    ids=repr,
)
def test_bad_keys_of_many_payloads_store_nothing(
    queue: TaskQueue, keys: list[str | None], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        queue.enqueue_many([1, 2], keys=keys)
    assert queue.tasks() == []


@pytest.mark.pooled("claims and locks")
def test_of_many_concurrent_enqueues_with_a_key_one_makes_the_task(queue: TaskQueue, other: TaskQueue) -> None:
    threads = [Background(lambda handle=handle: handle.enqueue("x", key="k").id) for handle in (queue, other) * 8]
    assert len({thread.join() for thread in threads}) == 1
    assert len(queue.tasks()) == 1

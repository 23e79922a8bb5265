"""``key``: at most one unfinished task of a queue has it."""

from __future__ import annotations

import pytest
from helpers import Background

from dbtaskqueue import InvalidTransition, Task, TaskQueue


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


@pytest.mark.pooled("claims and locks")
def test_of_many_concurrent_enqueues_with_a_key_one_makes_the_task(queue: TaskQueue, other: TaskQueue) -> None:
    threads = [Background(lambda handle=handle: handle.enqueue("x", key="k").id) for handle in (queue, other) * 8]
    assert len({thread.join() for thread in threads}) == 1
    assert len(queue.tasks()) == 1

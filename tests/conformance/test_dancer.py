"""The method names of Dancer::Plugin::Queue and Data::Stream::Bulk."""

from __future__ import annotations

import gc

import pytest
from helpers import Background, until

from dbtaskqueue import InvalidTransition, LeaseLost, TaskQueue

pytestmark = pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")


def test_a_message_is_added_fetched_and_removed(queue: TaskQueue) -> None:
    added = queue.add_msg({"name": "Fred"})
    assert added.state == "pending"
    task, data = queue.get_msg()
    assert task is not None
    assert (task.id, data, task.state) == (added.id, {"name": "Fred"}, "reserved")
    queue.remove_msg(task)
    assert added.refresh().state == "done"
    assert [attempt.outcome for attempt in added.attempts()] == ["done"]


def test_no_message(queue: TaskQueue) -> None:
    assert queue.get_msg() == (None, None)
    assert queue.get_msg(timeout=0.02) == (None, None)


def test_get_msg_waits_when_asked(queue: TaskQueue, other: TaskQueue) -> None:
    thread = Background(lambda: queue.get_msg(timeout=30)[1])
    until(lambda: other.stats().workers, what="the fetch")
    other.add_msg("hello")
    assert thread.join() == "hello"


def test_a_message_that_is_not_removed_is_delivered_again(queue: TaskQueue) -> None:
    queue.add_msg("x")
    task, _ = queue.get_msg()
    del task
    gc.collect()
    _again, data = queue.get_msg(timeout=30)
    assert data == "x"


def test_remove_msg_of_a_message_that_was_not_fetched(queue: TaskQueue) -> None:
    added = queue.add_msg("x")
    with pytest.raises(InvalidTransition):
        queue.remove_msg(added)
    task, _ = queue.get_msg()
    assert task is not None
    queue.cancel(task.id)
    with pytest.raises(LeaseLost):
        queue.remove_msg(task)


def test_next_is_fetch(queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    first = queue.next(2, timeout=10)
    assert [task.payload for task in first] == [0, 1]
    [last] = queue.next()
    assert last.payload == 2
    assert queue.next(timeout=0) == []
    with pytest.raises(ValueError, match="max_items"):
        queue.next(0)

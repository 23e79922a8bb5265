"""A TaskQueue that is opened later, and its lanes: other queues of the same database."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from helpers import Background, until

from dbtaskqueue import ConfigurationError, TaskQueue, TaskQueueError, Worker, handle


def double(number: int) -> int:
    return 2 * number


@pytest.mark.engine("sqlite")
def test_nothing_is_read_or_written_before_the_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DBTASKQUEUE_URL", "nonsense://")
    queue = TaskQueue(open=False)
    function = queue.task(name="double", max_attempts=3)(double)
    call = function.using(priority=2).bind(21)
    mail = queue.lane("mail")
    assert (function(2), queue.is_open, mail.is_open, os.listdir()) == (4, False, False, [])
    assert "not open" in repr(queue)
    monkeypatch.setenv("DBTASKQUEUE_URL", "sqlite:///later.sqlite")
    task = mail.enqueue(call)
    assert (queue.is_open, os.listdir()[0].startswith("later.sqlite"), queue.url) == (
        True,
        True,
        "sqlite:///later.sqlite",
    )
    Worker(queue, queues=["mail"]).run(burst=True)
    assert task.get_result(10) == 42
    queue.close()


def test_open_takes_the_url(url: str) -> None:
    queue = TaskQueue(open=False)
    function = queue.task(name="double")(double)
    with queue.open(url):
        task = function.enqueue(1)
        assert queue.open(url) is queue, "a second open() with the same URL does nothing"
        assert queue.open().get(task.id).id == task.id
        with pytest.raises(TaskQueueError, match="another database"):
            queue.open("sqlite:///another.sqlite")
    with pytest.raises(TaskQueueError, match="closed"):
        queue.open(url)


@pytest.mark.engine("sqlite")
def test_a_failed_open_can_be_repeated(url: str) -> None:
    queue = TaskQueue("nonsense://", open=False)
    with pytest.raises(ConfigurationError):
        queue.enqueue(1)
    assert not queue.is_open
    with queue.open(url):
        assert queue.enqueue(1).id == 1


@pytest.mark.engine("sqlite")
def test_a_queue_that_was_never_opened_can_be_closed(url: str) -> None:
    with TaskQueue(url, open=False) as queue:
        pass
    assert not queue.is_open
    assert queue.fetch() == []
    with pytest.raises(TaskQueueError, match="closed"):
        queue.enqueue(1)


@pytest.mark.engine("sqlite")
def test_many_threads_open_a_queue_once(url: str) -> None:
    queue = TaskQueue(url, open=False)
    stores = set()
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait(60)
        stores.add(queue.store)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(stores) == 1
    queue.close()


@pytest.mark.engine("sqlite")
def test_a_forked_child_opens_its_own_database(url: str) -> None:
    queue = TaskQueue(url, open=False)
    queue._handle._opening.acquire()  # as if a thread of the parent were opening the database
    child = os.fork()
    if child == 0:
        try:
            queue.enqueue("from the child")
            os._exit(0)
        finally:
            os._exit(1)
    queue._handle._opening.release()
    assert os.waitpid(child, 0)[1] == 0
    assert [task.payload for task in queue.tasks()] == ["from the child"]
    queue.close()


# -- lanes -----------------------------------------------------------------------------------------


def test_a_lane_is_another_queue_of_the_same_database(queue: TaskQueue) -> None:
    mail = queue.lane("mail")
    task = mail.enqueue(1)
    assert (task.queue, mail.name, queue.tasks()) == ("mail", "mail", [])
    assert [found.id for found in mail.tasks()] == [task.id]
    [held] = mail.fetch(timeout=10)
    assert held.id == task.id
    assert mail.store is queue.store
    with pytest.raises(ValueError, match="name"):
        queue.lane("no name")


@pytest.mark.engine("sqlite")
def test_a_signal_handler_uses_the_queue_that_its_thread_is_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both use one database from then on: here, a file of its own for each time that it is opened."""
    queue, open_store = TaskQueue("sqlite:///:memory:", open=False), handle.open_store

    def interrupted(url: str) -> object:
        monkeypatch.undo()
        queue.enqueue("by the handler")
        return open_store(url)

    monkeypatch.setattr(handle, "open_store", interrupted)
    with queue:
        queue.enqueue("by the thread")
        assert [task.payload for task in queue.tasks()] == ["by the thread", "by the handler"]


@pytest.mark.engine("sqlite")
def test_a_queue_that_is_closed_while_it_is_opened_leaves_nothing_open(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, opened = TaskQueue(url, open=False), list[object]()

    def open_store(url: str) -> object:
        store = make(url)
        prepare, close = store.prepare, store.close
        opened.append(store)

        def closing() -> None:
            if store in opened:
                opened.remove(store)
            close()

        def closed_meanwhile(*, create: bool) -> None:
            prepare(create=create)
            queue.close()

        monkeypatch.setattr(store, "close", closing)
        monkeypatch.setattr(store, "prepare", closed_meanwhile)
        return store

    make = handle.open_store
    monkeypatch.setattr(handle, "open_store", open_store)
    with pytest.raises(TaskQueueError, match="closed"):
        queue.enqueue()
    assert opened == []


@pytest.mark.engine("sqlite")
def test_one_worker_serves_the_functions_of_all_lanes(queue: TaskQueue) -> None:
    mail = queue.lane("mail")
    tasks = [
        queue.task(name="double")(double).enqueue(1),
        mail.task(name="triple")(lambda number: 3 * number).enqueue(1),
    ]
    assert [task.queue for task in tasks] == ["default", "mail"]
    Worker(queue, queues=["default", "mail"]).run(burst=True)
    assert [task.get_result(10) for task in tasks] == [2, 3]


@pytest.mark.engine("sqlite")
def test_closing_a_lane_closes_the_queue(url: str) -> None:
    queue = TaskQueue(url)
    mail = queue.lane("mail")
    fetching = Background(mail.fetch)
    until(lambda: queue.stats().workers == 1)
    queue.close()
    assert fetching.join() == []
    with pytest.raises(TaskQueueError, match="closed"):
        mail.enqueue(1)

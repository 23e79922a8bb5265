"""``Extension.enqueuing``: called for every task before it is stored."""

from __future__ import annotations

import pytest

from dbtaskqueue import Command, PayloadError, TaskQueue
from dbtaskqueue.extension import Extension, NewTaskView


class Tracing(Extension):
    """Number the tasks."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, object]] = []

    def enqueuing(self, new: NewTaskView) -> None:
        new.meta["number"] = len(self.seen)
        self.seen.append((new.queue, new.function, new.payload))


class Refusing(Extension):
    def enqueuing(self, new: NewTaskView) -> None:
        if new.payload == "bad":
            raise RuntimeError("refused")


def function(*args: object) -> None: ...


@pytest.fixture
def tracing(queue: TaskQueue) -> Tracing:
    tracing = Tracing()
    queue.use(tracing)
    return tracing


def test_enqueuing_may_add_to_the_meta_of_each_task(queue: TaskQueue, tracing: Tracing) -> None:
    tasks = queue.enqueue_many(["a", "b", "c"], meta={"tenant": 7})
    wanted = [{"tenant": 7, "number": number} for number in range(3)]
    assert [task.meta for task in tasks] == wanted
    assert [queue.get(task.id).meta for task in tasks] == wanted


@pytest.mark.one_engine("decided in Python")
def test_enqueuing_is_called_for_every_way_to_enqueue(queue: TaskQueue, tracing: Tracing) -> None:
    task = queue.task(name="f")(function)
    queue.enqueue("a")
    task.enqueue(1)
    task.using(queue="mail").enqueue(2)
    queue.enqueue_command(["ls"])
    queue.enqueue_many([task.bind(3), Command(["ls"])])
    queue.lane("news").enqueue("b")
    queue.add_msg("c")
    command = Command(["ls"]).payload
    assert tracing.seen == [
        ("default", None, "a"),
        ("default", "f", {"args": [1], "kwargs": {}}),
        ("mail", "f", {"args": [2], "kwargs": {}}),
        ("default", None, command),
        ("default", "f", {"args": [3], "kwargs": {}}),
        ("default", None, command),
        ("news", None, "b"),
        ("default", None, "c"),
    ]


@pytest.mark.one_engine("decided in Python")
def test_an_exception_of_enqueuing_is_raised_by_enqueue_and_nothing_is_stored(queue: TaskQueue) -> None:
    queue.use(Refusing())
    with pytest.raises(RuntimeError, match="refused"):
        queue.enqueue_many(["good", "bad"])
    assert queue.tasks() == []


@pytest.mark.one_engine("decided in Python")
def test_the_meta_from_enqueuing_is_checked(queue: TaskQueue) -> None:
    class Large(Extension):
        def enqueuing(self, new: NewTaskView) -> None:
            new.meta["x"] = "x" * 9000

    queue.use(Large())
    with pytest.raises(PayloadError, match="meta"):
        queue.enqueue("a")


@pytest.mark.engine("sqlite")
def test_extensions_are_checked_when_they_are_given(url: str) -> None:
    tracing = Tracing()
    with TaskQueue(url, extensions=[tracing, Extension()]) as queue:
        queue.enqueue("a", meta={"tenant": 7})
        assert queue.tasks()[0].meta == {"tenant": 7, "number": 0}
    with pytest.raises(TypeError, match="Extension"):
        TaskQueue(url, extensions=[object()])  # type: ignore[list-item]

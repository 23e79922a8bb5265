"""``enqueue`` and ``enqueue_many`` accept calls of task functions and command lines besides payloads."""

from __future__ import annotations

import pytest

from dbtaskqueue import Command, PayloadError, RetryPolicy, TaskQueue, Worker


def thumbnail(path: str, width: int = 320) -> list[object]:
    return [path, width]


def test_a_bound_call_is_enqueued_later(queue: TaskQueue) -> None:
    function = queue.task(name="thumbnail", priority=3)(thumbnail)
    call = function.using(max_attempts=2).bind("a.png", width=640)
    assert queue.tasks() == []
    task = queue.get(queue.enqueue(call).id)
    assert (task.function, task.priority, task.max_attempts) == ("thumbnail", 3, 2)
    Worker(queue).run(burst=True)
    assert task.get_result(10) == ["a.png", 640]


@pytest.mark.one_engine("decided in Python")
def test_arguments_are_checked_when_they_are_bound(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    for call in (function, function.using(priority=1)):
        with pytest.raises(TypeError):
            call.bind("a.png", height=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Command("ls -l")
    with pytest.raises(ValueError, match="argv"):
        Command([])


def test_targets_of_every_kind_are_stored_together_in_order(queue: TaskQueue) -> None:
    small, large = queue.task(name="small")(thumbnail), queue.task(name="large", priority=5)(thumbnail)
    targets = [
        *(small.bind(f"{number}.png") for number in range(3)),
        {"plain": 1},
        Command(["ls", "-l"], cwd="/"),
        large.using(start_in=60, meta={"a": 1}).bind("x" * 5000, 2),
        "plain",
        "y" * 5000,
        small.using(key="k").bind("keyed"),
    ]
    tasks = queue.enqueue_many(targets, max_attempts=4)
    assert [task.id for task in tasks] == sorted(task.id for task in tasks)
    names = [name for name, kind in vars(type(tasks[0])).items() if isinstance(kind, property)]
    for task in tasks:
        stored = queue.get(task.id)
        assert {name: getattr(task, name) for name in names} == {name: getattr(stored, name) for name in names}
    assert [task.function for task in tasks] == ["small"] * 3 + [None, None, "large", None, None, "small"]
    assert [task.is_command for task in tasks] == [False] * 4 + [True] + [False] * 4
    assert {task.max_attempts for task in tasks} == {4}
    assert [task.priority for task in tasks] == [0, 0, 0, 0, 0, 5, 0, 0, 0]
    assert (tasks[5].start_at - tasks[5].created_at).total_seconds() == 60
    assert (tasks[5].payload["args"], tasks[5].meta, tasks[8].key) == (["x" * 5000, 2], {"a": 1}, "k")
    assert [found.id for found in queue.fetch(9, timeout=10)] == [tasks[index].id for index in (0, 1, 2, 3, 6, 7, 8)]


def test_one_bad_target_among_many_stores_none(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    with pytest.raises(PayloadError, match=r"payloads\[2\]"):
        queue.enqueue_many([function.bind("a"), "b", function.bind(object())])  # type: ignore[arg-type]
    assert queue.tasks() == []


def test_a_call_whose_key_is_taken_returns_the_task_that_has_it(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    first = queue.enqueue("first", key="k")
    assert not first.deduplicated
    tasks = queue.enqueue_many(
        [
            function.bind("a"),
            function.using(key="k").bind("b"),
            function.using(key="new").bind("c"),
            function.using(key="new").bind("d"),
        ]
    )
    assert [task.deduplicated for task in tasks] == [False, True, False, True]
    assert (tasks[1].id, tasks[1].payload, tasks[3].id) == (first.id, "first", tasks[2].id)
    assert queue.enqueue("again", key="k").deduplicated
    assert len(queue.tasks()) == 3
    assert not queue.get(first.id).deduplicated


@pytest.mark.one_engine("decided in Python")
def test_the_options_of_a_call_win_over_those_of_enqueue_which_win_over_the_functions(queue: TaskQueue) -> None:
    function = queue.task(priority=1, max_attempts=2, retry=RetryPolicy(delay=1))(thumbnail)
    call = function.using(priority=9).bind("a")
    task = queue.enqueue(call, priority=5, max_attempts=3)
    assert (task.priority, task.max_attempts) == (9, 3)
    assert queue.enqueue(function.bind("a")).priority == 1
    with pytest.raises(ValueError, match="start_in or start_at"):
        queue.enqueue(function.using(start_in=1).bind("a"), start_at=task.created_at)


@pytest.mark.one_engine("decided in Python")
def test_a_call_goes_to_the_queue_that_enqueues_it_unless_it_names_one(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    mail = queue.lane("mail")
    assert mail.enqueue(function.bind("a")).queue == "mail"
    assert mail.enqueue(function.using(queue="news").bind("a")).queue == "news"
    assert function.using(queue="mail").enqueue("b").queue == "mail"
    with pytest.raises(ValueError, match="name"):
        function.using(queue="no name").enqueue("b")


@pytest.mark.one_engine("decided in Python")
def test_calls_of_one_transaction_cannot_name_two_connections(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    with pytest.raises(ValueError, match="connection"):
        queue.enqueue_many([function.using(connection=object()).bind("a"), function.using(connection=7).bind("b")])


def test_the_repr_of_a_call_shows_what_it_calls(queue: TaskQueue) -> None:
    call = queue.task(name="thumbnail")(thumbnail).bind("a.png", width=3)
    assert repr(call) == "<TaskCall thumbnail('a.png', width=3)>"
    assert repr(Command(["ls", "-l"])) == "<Command ['ls', '-l']>"

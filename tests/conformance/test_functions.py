"""``@queue.task``: functions whose calls are tasks."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import child_tasks
import pytest
from helpers import Background

from dbtaskqueue import PayloadError, RetryPolicy, Task, TaskQueue, Worker
from dbtaskqueue._system import clock

pytestmark = pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")


def thumbnail(path: str, width: int = 320, *, crop: bool = False) -> dict[str, object]:
    """Make it small."""
    return {"path": path, "width": width, "crop": crop}


def run(queue: TaskQueue) -> None:
    Worker(queue).run(burst=True)


def test_a_call_is_a_task(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    task = function.enqueue("a.png", width=640)
    assert task.function == f"{__name__}.thumbnail"
    run(queue)
    assert task.get_result(10) == {"path": "a.png", "width": 640, "crop": False}


def test_a_task_function_can_be_called_as_a_plain_function(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    assert function("a.png", crop=True) == thumbnail("a.png", crop=True)
    assert (function.__name__, function.__doc__) == ("thumbnail", "Make it small.")
    assert inspect.signature(function) == inspect.signature(thumbnail)
    assert queue.tasks() == []


def test_the_name_may_be_given(queue: TaskQueue) -> None:
    function = queue.task(name="thumbnail")(thumbnail)
    assert function.enqueue("a.png").function == "thumbnail"
    run(queue)
    assert queue.tasks()[0].state == "done"


def test_an_explicit_name_survives_a_rename(queue: TaskQueue, url: str) -> None:
    task = queue.task(name="greet")(lambda name: f"hello {name}").enqueue("you")
    with TaskQueue(url) as later:

        @later.task(name="greet")
        def renamed(name: str) -> str:
            return f"hi {name}"

        run(later)
    assert task.get_result(10) == "hi you"


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("a", 1, 2), {}), (("a",), {"height": 1}), (("a",), {"path": "b"})]
)
def test_arguments_are_bound_when_enqueued(queue: TaskQueue, args, kwargs) -> None:
    function = queue.task(thumbnail)
    with pytest.raises(TypeError):
        function.enqueue(*args, **kwargs)
    with pytest.raises(TypeError):
        function.using(priority=1).enqueue(*args, **kwargs)
    assert queue.tasks() == []


def test_arguments_that_are_not_json(queue: TaskQueue) -> None:
    with pytest.raises(PayloadError):
        queue.task(thumbnail).enqueue(object())  # type: ignore[arg-type]
    assert queue.tasks() == []


def test_every_kind_of_parameter(queue: TaskQueue) -> None:
    @queue.task
    def mixed(a, /, b, *rest, c=3, **more):
        return [a, b, list(rest), c, more]

    task = mixed.enqueue(1, 2, 3, 4, c=5, d=6)
    again = mixed.enqueue(1, b=2)
    run(queue)
    assert task.get_result(10) == [1, 2, [3, 4], 5, {"d": 6}]
    assert again.get_result(10) == [1, 2, [], 3, {}]


def test_options_of_the_decorator(queue: TaskQueue) -> None:
    function = queue.task(max_attempts=3, priority=5, retry=RetryPolicy(delay=7, max_attempts=9))(thumbnail)
    task = function.enqueue("a")
    assert (task.max_attempts, task.priority) == (3, 5)
    [held] = queue.fetch(timeout=10)
    held.start()
    held.fail("x")
    [attempt] = held.attempts()
    assert attempt.finished_at is not None
    assert held.start_at - attempt.finished_at == timedelta(seconds=7)


def test_the_policy_comes_from_enqueue_then_the_function_then_the_queue(url: str) -> None:
    with TaskQueue(url, retry=RetryPolicy(max_attempts=2)) as queue:
        plain = queue.task(name="plain")(thumbnail)
        own = queue.task(name="own", retry=RetryPolicy(max_attempts=3))(thumbnail)
        assert plain.enqueue("a").max_attempts == 2
        assert own.enqueue("a").max_attempts == 3
        assert own.using(retry=RetryPolicy(max_attempts=4)).enqueue("a").max_attempts == 4
        assert own.using(max_attempts=5).enqueue("a").max_attempts == 5


def test_using_changes_its_own_calls_only(queue: TaskQueue) -> None:
    function = queue.task(priority=5)(thumbnail)
    urgent = function.using(start_in=60, priority=9, key="k")
    task = urgent.enqueue("a", crop=True)
    assert (task.priority, task.key) == (9, "k")
    assert task.start_at - task.created_at == timedelta(seconds=60)
    assert urgent.enqueue("b").id == task.id
    other = function.enqueue("c")
    assert (other.priority, other.key, other.start_at) == (5, None, other.created_at)
    assert function.using(priority=1).using(max_attempts=2).enqueue("d").priority == 1


def test_unknown_options(queue: TaskQueue) -> None:
    function = queue.task(thumbnail)
    with pytest.raises(TypeError, match="colour"):
        function.using(colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        queue.task(colour="red")(thumbnail)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["x" * 501, "with\nnewline", "nul\x00", 7, b"x"], ids=ascii)
def test_a_bad_name(queue: TaskQueue, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        queue.task(name=name)(thumbnail)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": ""}, ValueError),
        ({"priority": 99999}, ValueError),
        ({"priority": "high"}, ValueError),
        ({"max_attempts": 0}, ValueError),
        ({"retry": "x"}, TypeError),
    ],
    ids=str,
)
def test_a_bad_option_is_refused_by_the_decorator(
    queue: TaskQueue, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        queue.task(**options)(thumbnail)  # type: ignore[arg-type]
    assert queue.functions.names() == []


def test_a_name_without_the_keyword_is_refused(queue: TaskQueue) -> None:
    with pytest.raises(TypeError, match=r"task\(name='thumb'\)"):
        queue.task("thumb")  # type: ignore[call-overload]


class Awaitable:
    async def __call__(self, payload: object) -> None: ...


async def coroutine(payload: object) -> None: ...


@pytest.mark.parametrize("code", [coroutine, functools.partial(coroutine), Awaitable(), Awaitable().__call__])
def test_an_async_on_error_is_refused(url: str, code: Callable[[object], object]) -> None:
    """Nothing would await it."""
    with pytest.raises(TypeError, match="on_error is async"):
        Worker(url, on_error=code)  # type: ignore[arg-type]


def test_two_functions_cannot_share_a_name(queue: TaskQueue) -> None:
    queue.task(name="one")(thumbnail)
    queue.task(name="one")(thumbnail)
    with pytest.raises(ValueError, match="one"):
        queue.task(name="one")(len)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that lists the fields of the warnings logged so far."""
    return lambda: [vars(record)["fields"] for record in caplog.records if record.levelname == "WARNING"]


def waits(task: Task) -> float:
    """Return the seconds from now until a task is due."""
    return (task.refresh().start_at - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("batch", [1, 8])
def test_a_task_with_an_unknown_function_is_released_without_spending_an_attempt(
    queue: TaskQueue, url: str, warnings: Callable[[], list[dict[str, Any]]], batch: int
) -> None:
    tasks = [queue.task(name="unknown.here")(thumbnail).enqueue("a") for _ in range(3)]
    tasks.append(queue.enqueue("plain"))
    with TaskQueue(url) as other:
        known = other.task(name="known.here")(thumbnail).enqueue("b")
        Worker(other).run(burst=True, batch=batch)
    assert known.refresh().state == "done"
    for task in tasks:
        assert 0 < waits(task) <= 5
        assert (task.state, task.attempt, task.attempts(), task.error) == ("pending", 0, [], None)
    logged = [(each["function"], each["known"], each["task_id"]) for each in warnings()]
    assert logged == [("unknown.here", "known.here", tasks[0].id), (None, "known.here", tasks[3].id)]


def test_the_delay_of_a_task_with_an_unknown_function_doubles_up_to_five_minutes(
    queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = queue.task(name="unknown.here")(thumbnail).enqueue("a")
    now, passed = clock.now, [0]
    monkeypatch.setattr(clock, "now", lambda: now() + passed[0])

    def next_delay(other: TaskQueue) -> float:
        Worker(other).run(str.upper, burst=True)
        delay = waits(task) - passed[0] / 1e6
        passed[0] += 301_000_000
        return math.ceil(delay / 5) * 5

    with TaskQueue(url) as other:
        assert [next_delay(other) for _ in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]
        queue.cancel(task.id)
        queue.retry(task.id)
        assert [next_delay(other) for _ in range(2)] == [5, 10]
    assert (task.refresh().attempt, task.attempts()) == (0, [])


@pytest.mark.engine("sqlite")
def test_a_name_in_the_database_is_never_imported(queue: TaskQueue, url: str) -> None:
    tasks = [
        queue.task(name=name)(thumbnail).enqueue("a")
        for name in ("os.getcwd", "builtins.print", "__main__.main", "dbtaskqueue.queue.TaskQueue")
    ]
    Worker(url).run(str.upper, burst=True)
    assert {task.refresh().state for task in tasks} == {"pending"}


@pytest.mark.engine("sqlite")
def test_tasks_with_unknown_functions_do_not_count_for_max_tasks(queue: TaskQueue, url: str) -> None:
    queue.task(name="unknown.here")(thumbnail).using(priority=1).enqueue("a")
    first, second = queue.enqueue("b"), queue.enqueue("c")
    Worker(url).run(str.upper, max_tasks=1)
    assert (first.refresh().state, second.refresh().state) == ("done", "pending")


@pytest.mark.engine("sqlite")
def test_one_warning_a_minute_names_a_bounded_list_of_functions(
    queue: TaskQueue, url: str, warnings: Callable[[], list[dict[str, Any]]]
) -> None:
    for _ in range(5):
        queue.task(name="unknown.here")(thumbnail).enqueue("a")
        queue.task(name="unknown.too")(thumbnail).enqueue("a")
    with TaskQueue(url) as other:
        for number in range(30):
            other.task(name=f"known.n{number:02}")(thumbnail)
        Worker(other).run(burst=True)
    assert [each["function"] for each in warnings()] == ["unknown.here", "unknown.too"]
    names = ", ".join(f"known.n{number:02}" for number in range(10))
    assert warnings()[0]["known"] == f"{names} and 20 more"


@pytest.mark.engine("sqlite")
def test_a_worker_without_anything_to_run_is_refused(queue: TaskQueue, url: str) -> None:
    for worker in (Worker(url), Worker(queue), Worker(queue, queues=["a", "b"])):
        with pytest.raises(TypeError, match="callback"):
            worker.run(burst=True)
    Worker(url, executor="process", allow_commands=True).run(burst=True)


def test_a_task_with_a_function_runs_it_and_others_go_to_the_callback(queue: TaskQueue) -> None:
    call = queue.task(thumbnail).enqueue("a.png")
    plain = queue.enqueue("for the callback")
    Worker(queue).run(str.upper, burst=True)
    assert call.get_result(10) == thumbnail("a.png")
    assert plain.get_result(10) == "FOR THE CALLBACK"


def test_a_payload_that_is_not_a_call_fails_its_task(queue: TaskQueue) -> None:
    """Another program may enqueue the name of a function with another kind of payload."""
    function = queue.task(name="f")(thumbnail)
    for payload in ([1], "x", None, {"args": []}, {"args": 3, "kwargs": {}}, {"args": [], "kwargs": []}):
        [task] = queue.submit([payload], {}, "f")
        run(queue)
        assert task.refresh().state == "failed", payload
    assert function("a")["path"] == "a"


@pytest.mark.engine("sqlite")
def test_a_function_registered_in_two_queues_enqueues_into_each(url: str) -> None:
    with TaskQueue(url, "reports") as reports, TaskQueue(url, "mail") as mail:
        inner = reports.task(priority=3)(thumbnail)
        outer = mail.task(inner)
        assert (outer.enqueue("a").queue, inner.enqueue("b").queue) == ("mail", "reports")
        [task] = mail.tasks()
        assert (task.function, task.priority) == (f"{__name__}.thumbnail", 0), "options are those of its own decorator"
        for queue in (reports, mail):
            run(queue)
            assert [task.state for task in queue.tasks()] == ["done"]
        assert outer("c") == thumbnail("c")
        assert outer.__wrapped__ is thumbnail  # type: ignore[attr-defined]


@pytest.mark.engine("sqlite")
def test_a_queue_may_register_a_function_under_two_names(queue: TaskQueue) -> None:
    function = queue.task(name="old")(queue.task(thumbnail))
    assert function.enqueue("a").function == "old"
    assert set(queue.functions.names()) == {"old", f"{__name__}.thumbnail"}


@pytest.mark.engine("sqlite")
def test_attributes_of_a_function_do_not_replace_those_of_a_task_function(queue: TaskQueue) -> None:
    def resize(path: str) -> str:
        return f"small {path}"

    vars(resize).update(dict.fromkeys(("name", "is_async", "_queue", "_function", "_options", "_signature"), "mine"))
    vars(resize).update(dict.fromkeys(("enqueue", "using", "run"), "mine"))
    resize.colour = "red"  # type: ignore[attr-defined]
    function = queue.task(name="resize")(resize)
    task = function.using(priority=2).enqueue("a.png")
    run(queue)
    assert (task.function, task.get_result(10)) == ("resize", "small a.png")
    assert function("b.png") == "small b.png"
    assert function.colour == "red"  # type: ignore[attr-defined]


@pytest.mark.engine("sqlite")
def test_a_parameter_may_have_any_name(queue: TaskQueue) -> None:
    @queue.task
    def move(self: int, function: int, name: int, queue: int, args: int, kwargs: int) -> list[int]:
        return [self, function, name, queue, args, kwargs]

    values = {"self": 1, "function": 2, "name": 3, "queue": 4, "args": 5, "kwargs": 6}
    assert move(**values) == [1, 2, 3, 4, 5, 6]
    tasks = [move.enqueue(**values), move.using(priority=1).enqueue(**values)]
    run(queue)
    assert [task.get_result(10) for task in tasks] == [[1, 2, 3, 4, 5, 6]] * 2


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_function_that_is_registered_while_a_worker_runs(queue: TaskQueue, executor: str) -> None:
    double = queue.task(child_tasks.double)
    worker = Worker(queue, executor=executor)
    running = Background(worker.run)
    try:
        assert double.enqueue(1).get_result(60) == 2
        assert queue.task(child_tasks.later).enqueue("later").get_result(60) == "later"
    finally:
        worker.stop()
        running.join()

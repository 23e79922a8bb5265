"""Durations are seconds or a timedelta, in every public parameter that takes one, and delays follow one rule."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import dbtaskqueue
from dbtaskqueue import ReleaseTask, RetryPolicy, RetryTask, Task, TaskQueue, Worker, options
from dbtaskqueue._store.contract import ScheduleRecord
from dbtaskqueue._system import clock

Give = Callable[[TaskQueue, Any], object]


def held(queue: TaskQueue, *, started: bool = True) -> Task:
    queue.enqueue(max_attempts=5)
    [task] = queue.fetch()
    assert not started or task.start()
    return task


def done(queue: TaskQueue) -> Task:
    task = held(queue)
    task.finish("result")
    return task


def run(queue: TaskQueue, **options: Any) -> None:
    Worker(queue).run(lambda payload: payload, burst=True, **options)


def release(queue: TaskQueue, delay: Any) -> int:
    task = held(queue)
    task.release(delay)
    return task._record.due - clock.now()


def chosen(kind: type[RetryTask | ReleaseTask]) -> Give:
    """Return a function that raises this outcome in a task and returns the delay until the task is due."""

    def act(queue: TaskQueue, delay: Any) -> int:
        with held(queue) as task:
            raise kind(delay)
        return task._record.due - clock.now()  # type: ignore[unreachable]

    return act


def by_policy(queue: TaskQueue, **delays: Any) -> int:
    task = queue.enqueue(retry=RetryPolicy(**delays))
    [task] = queue.fetch()
    task.start()
    task.fail("no luck")
    return task._record.due - clock.now()


def using(queue: TaskQueue, **options: Any) -> Task:
    return queue.task(name="noted")(len).using(**options).enqueue([])


def registered(queue: TaskQueue, **options: Any) -> Task:
    return queue.task(name=f"noted {options}", **options)(len).enqueue([])


def due(task: Task) -> int:
    return task._record.due - task._record.created_at


def stored(queue: TaskQueue, **options: Any) -> ScheduleRecord:
    queue.schedule("s", 1, **options)
    return queue.store.schedules(queue.name, "s")[0]


def declared(queue: TaskQueue, **options: Any) -> ScheduleRecord:
    queue.periodic(name=f"s {options}", args=[[]], **options)(len)
    queue.store_declarations()
    return queue.store.schedules(queue.name)[-1]


def expiry(task: Task) -> int:
    assert task._record.expires is not None
    return task._record.expires - task._record.created_at


# For each parameter: a call with a duration, and the value that it leads to; None if there is none to compare.
DELAYS: dict[str, Give] = {
    "TaskQueue.enqueue start_in": lambda queue, value: due(queue.enqueue(start_in=value)),
    "TaskQueue.enqueue_many start_in": lambda queue, value: due(queue.enqueue_many([1], start_in=value)[0]),
    "TaskQueue.reschedule start_in": lambda queue, value: (
        queue.reschedule(queue.enqueue().id, start_in=value)._record.due - clock.now()
    ),
    "Options start_in": lambda queue, value: due(using(queue, start_in=value)),
    "Task.release delay": release,
    "RetryTask.__init__ delay": chosen(RetryTask),
    "ReleaseTask.__init__ delay": chosen(ReleaseTask),
    "RetryPolicy.__init__ delay": lambda queue, value: by_policy(queue, delay=value, max_delay=1e300),
    "RetryPolicy.__init__ max_delay": lambda queue, value: by_policy(queue, delay=1e300, max_delay=value),
}
EXPIRIES: dict[str, Give] = {
    "TaskQueue.enqueue expires_in": lambda queue, value: expiry(queue.enqueue(expires_in=value)),
    "TaskQueue.enqueue_many expires_in": lambda queue, value: expiry(queue.enqueue_many([1], expires_in=value)[0]),
    "Options expires_in": lambda queue, value: expiry(using(queue, expires_in=value)),
}
LIMITS: dict[str, Give] = {
    f"{place} {name}": lambda queue, value, make=make, name=name: getattr(make(queue, **{name: value}), name)
    for place, make in {
        "TaskQueue.enqueue": TaskQueue.enqueue,
        "TaskQueue.enqueue_many": lambda queue, **options: queue.enqueue_many([1], **options)[0],
        "Options": using,
        "FunctionOptions": registered,
    }.items()
    for name in ("time_limit", "stall_limit")
}
LEASES: dict[str, Give] = {
    "TaskQueue.__init__ lease": lambda queue, value: TaskQueue(queue.url, lease=value).lease,
    "Worker.__init__ lease": lambda queue, value: Worker(queue.url, lease=value).lease,
}
PERIODS: dict[str, Give] = {
    "Worker.__init__ drain_timeout": lambda queue, value: Worker(queue, drain_timeout=value).drain_timeout,
    "Worker.__init__ cancel_grace": lambda queue, value: Worker(queue, cancel_grace=value).cancel_grace,
    "Worker.run idle_timeout": lambda queue, value: run(queue, idle_timeout=value),
}
AGES: dict[str, Give] = {
    "TaskQueue.prune older_than": lambda queue, value: queue.prune(value),
    "TaskQueue.prune_in_steps older_than": lambda queue, value: list(queue.prune_in_steps(value, ["done"])),
    "TaskQueue.reschedule_many start_in": lambda queue, value: queue.reschedule_many(start_in=value, state="failed"),
    "TaskQueue.retry_many spread": lambda queue, value: queue.retry_many(spread=value, state="abandoned"),
}
SCHEDULES: dict[str, Give] = {
    "TaskQueue.schedule every": lambda queue, value: queue.schedule("s", 1, every=value).every,
    "TaskQueue.schedule jitter": lambda queue, value: stored(queue, every=60, jitter=value).jitter,
    "TaskQueue.schedule window": lambda queue, value: stored(queue, every=60, window=value).catch_up_window,
    "TaskQueue.periodic every": lambda queue, value: declared(queue, every=value).every,
    "TaskQueue.periodic jitter": lambda queue, value: declared(queue, every=60, jitter=value).jitter,
    "TaskQueue.periodic window": lambda queue, value: declared(queue, every=60, window=value).catch_up_window,
}
TIMEOUTS: dict[str, Give] = {
    "TaskQueue.fetch timeout": lambda queue, value: held(queue).release() or queue.fetch(timeout=value),
    "TaskQueue.next timeout": lambda queue, value: held(queue).release() or queue.next(timeout=value),
    "TaskQueue.get_msg timeout": lambda queue, value: held(queue).release() or queue.get_msg(timeout=value),
    "Task.wait timeout": lambda queue, value: done(queue).wait(timeout=value).id,
    "TaskQueue.wait_all timeout": lambda queue, value: queue.wait_all([done(queue)], timeout=value)[0].id,
    "Task.get_result timeout": lambda queue, value: done(queue).get_result(timeout=value),
}
PLACES = DELAYS | EXPIRIES | LIMITS | LEASES | PERIODS | AGES | SCHEDULES | TIMEOUTS
NO_DURATIONS = {
    *("RetryPolicy.__init__ factor", "RetryPolicy.__init__ jitter"),
    *("RunningTask.progress done", "RunningTask.progress total"),
    *("Extension.progressed done", "Extension.progressed total"),
    *("TaskQueue.history since", "TaskQueue.history step"),
    *(f"TaskQueue.set_retention {name}" for name in ("done", "cancelled", "abandoned")),
}
"""Other parameters that are floats. Those of the history also take texts. See test_history.py, test_retention.py."""


def refused(place: str) -> list[object]:
    """Return the values that a parameter refuses."""
    values: list[object] = ["60", b"1", [], math.nan, True, 10**400]
    if place not in TIMEOUTS:
        values += [-1, timedelta(microseconds=-1)]
    if place not in TIMEOUTS | PERIODS:
        values += [math.inf]
    if place in LIMITS | LEASES | EXPIRIES:
        values += [0, timedelta(0)]
    return values


def floats() -> set[str]:
    """Return every public parameter that takes a float, without those that are compared in test_async_signatures.py."""
    found = set()
    for name in dbtaskqueue.__all__:
        if name in ("AsyncTask", "AsyncTaskQueue"):
            continue
        owner = getattr(dbtaskqueue, name)
        for method, function in vars(owner).items() if inspect.isclass(owner) else ():
            is_public = not method.startswith("_") or (method == "__init__" and not issubclass(owner, tuple))
            if is_public and inspect.isfunction(function):
                parameters = inspect.signature(function).parameters.values()
                found |= {f"{name}.{method} {each.name}" for each in parameters if "float" in str(each.annotation)}
    for call in (options.Options, options.FunctionOptions):
        hints = call.__annotations__.items()
        found |= {f"{call.__name__} {name}" for name, hint in hints if "float" in hint.__forward_arg__}
    return found


@pytest.mark.engine("sqlite")
def test_every_parameter_is_in_the_table() -> None:
    assert floats() == set(PLACES) | NO_DURATIONS


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("place", sorted(PLACES))
def test_the_annotation_allows_a_timedelta(place: str) -> None:
    owner, _, parameter = place.partition(" ")
    name, _, method = owner.partition(".")
    if method:
        annotation = inspect.signature(getattr(getattr(dbtaskqueue, name), method)).parameters[parameter].annotation
    else:
        annotation = typing.get_type_hints(getattr(options, name))[parameter]
    assert "timedelta" in str(annotation)


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_timedelta_means_its_seconds(queue: TaskQueue, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "source", lambda: now)
    is_quick = place == "Worker.run idle_timeout"
    given = timedelta(milliseconds=50) if is_quick else timedelta(minutes=1, milliseconds=500)
    seen = PLACES[place](queue, given)
    if place in DELAYS:
        assert seen == 60_500_000
    elif place in LIMITS | LEASES or "drain" in place or "grace" in place:
        assert seen == 60.5
        assert type(seen) is float


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("place", sorted(PLACES))
def test_an_invalid_duration_is_refused_in_the_same_words(queue: TaskQueue, place: str) -> None:
    name = place.rpartition(" ")[2]
    for value in refused(place):
        with pytest.raises(ValueError, match=rf"{name} must be a (finite )?number of seconds or a timedelta"):
            PLACES[place](queue, value)


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("place", sorted(DELAYS))
def test_a_delay_beyond_the_year_9999_is_shortened(
    queue: TaskQueue, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "source", lambda: now)
    for delay in (1e12, 1e30, 1e300, 2**80, timedelta.max):
        assert PLACES[place](queue, delay) == clock.LATEST - now
        task = queue.tasks(limit=1)[0]
        assert task.state in ("pending", "failed")
        assert task.start_at.year == 9999


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("kind", [RetryTask, ReleaseTask])
@pytest.mark.parametrize("executor", ["thread", "asyncio"])
@pytest.mark.parametrize("delay", [math.inf, math.nan, -1])
def test_a_task_that_chooses_an_invalid_delay_fails(
    queue: TaskQueue, kind: type[RetryTask | ReleaseTask], executor: str, delay: float
) -> None:
    task = queue.enqueue(max_attempts=5)

    def choose(payload: object) -> None:
        raise kind(delay)

    Worker(queue, executor=executor).run(choose, max_tasks=1)
    task.refresh()
    assert (task.state, task.attempt) == ("failed", 1)
    assert "delay must be a finite number of seconds or a timedelta of at least 0" in (task.error or "")


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize(("kind", "state"), [(RetryTask, "failed"), (ReleaseTask, "pending")])
def test_a_task_in_a_worker_may_choose_an_infinite_delay(
    queue: TaskQueue, kind: type[RetryTask | ReleaseTask], state: str
) -> None:
    task = queue.enqueue(max_attempts=5)

    def choose(payload: object) -> None:
        raise kind(1e30)

    Worker(queue).run(choose, max_tasks=1)
    assert (task.refresh().state, task.start_at.year) == (state, 9999)

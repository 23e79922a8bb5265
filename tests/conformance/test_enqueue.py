"""The guarantees of ``enqueue`` and ``enqueue_many``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from helpers import run_python

from dbtaskqueue import PayloadError, RetryPolicy, TaskQueue, TaskQueueError


def test_a_new_task_is_pending_and_due_now(queue: TaskQueue) -> None:
    before = datetime.now(UTC)
    task = queue.enqueue({"url": "http://example.com/"})
    assert (task.state, task.queue, task.payload) == ("pending", "default", {"url": "http://example.com/"})
    assert (task.attempt, task.token, task.priority, task.key, task.function) == (0, 0, 0, None, None)
    assert (task.max_attempts, task.worker, task.result, task.error) == (10, None, None, None)
    assert (task.started_at, task.finished_at, task.cancel_requested, task.progress) == (None, None, False, None)
    assert before <= task.created_at <= datetime.now(UTC)
    assert task.start_at == task.created_at


def test_enqueue_returns_what_is_stored(queue: TaskQueue) -> None:
    task = queue.enqueue([1, "two"], start_in=60, priority=7, max_attempts=3, key="k")
    stored = queue.get(task.id)
    names = [name for name, kind in vars(type(task)).items() if isinstance(kind, property)]
    assert {name: getattr(task, name) for name in names} == {name: getattr(stored, name) for name in names}


def test_the_payload_is_none_unless_given(queue: TaskQueue) -> None:
    assert queue.get(queue.enqueue().id).payload is None


def test_another_process_sees_the_task_as_soon_as_enqueue_returns(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue("hello")
    code = "import sys; from dbtaskqueue import TaskQueue; print(TaskQueue(sys.argv[1]).get(int(sys.argv[2])).payload)"
    assert run_python(code, url, task.id) == "hello\n"


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("delay", [60, 0.5, timedelta(hours=2), 0])
def test_start_in(queue: TaskQueue, delay: float | timedelta) -> None:
    task = queue.enqueue(start_in=delay)
    wait = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    assert task.start_at - task.created_at == wait


@pytest.mark.one_engine("refused before a query is sent")
def test_start_at_is_any_moment_with_a_time_zone(queue: TaskQueue) -> None:
    moment = datetime(2040, 5, 6, 7, 8, 9, 123456, tzinfo=timezone(timedelta(hours=-5)))
    task = queue.get(queue.enqueue(start_at=moment).id)
    assert task.start_at == moment
    assert task.start_at.tzinfo is UTC


def test_start_at_in_the_past_is_due_now(queue: TaskQueue) -> None:
    task = queue.enqueue(start_at=datetime(1950, 1, 1, tzinfo=UTC))
    assert [found.id for found in queue.fetch(timeout=10)] == [task.id]


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize(
    "options",
    [
        {"start_in": 1, "start_at": datetime(2040, 1, 1, tzinfo=UTC)},
        {"start_in": -1},
        {"start_in": timedelta(seconds=-1)},
        {"start_in": float("nan")},
        {"start_in": float("inf")},
        {"start_in": "60"},
        {"start_in": True},
        {"start_at": datetime(2040, 1, 1)},
        {"start_at": "2040-01-01"},
        {"start_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))},
        {"start_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))},
        {"priority": 32768},
        {"priority": -32769},
        {"priority": 1.5},
        {"priority": True},
        {"priority": "high"},
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"max_attempts": 2**31},
        {"key": ""},
        {"key": "k" * 256},
        {"key": 7},
        {"retry": 5},
    ],
    ids=str,
)
def test_an_option_out_of_range_stores_nothing(queue: TaskQueue, options: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        queue.enqueue("x", **options)  # type: ignore[arg-type]
    assert queue.tasks() == []


@pytest.mark.parametrize("priority", [-32768, 32767])
def test_the_extreme_priorities(queue: TaskQueue, priority: int) -> None:
    assert queue.get(queue.enqueue(priority=priority).id).priority == priority


@pytest.mark.parametrize("moment", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
def test_the_extreme_moments(queue: TaskQueue, moment: datetime) -> None:
    assert queue.get(queue.enqueue(start_at=moment).id).start_at == moment


def test_ids_increase(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="other") as other:
        ids = [handle.enqueue(n).id for n in range(5) for handle in (queue, other)]
    assert ids == sorted(set(ids))


@pytest.mark.one_engine("refused before a query is sent")
def test_max_attempts_overrides_the_policys_number(url: str) -> None:
    with TaskQueue(url, retry=RetryPolicy(max_attempts=4)) as queue:
        assert queue.enqueue().max_attempts == 4
        assert queue.enqueue(max_attempts=2).max_attempts == 2
        assert queue.enqueue(retry=RetryPolicy(max_attempts=7)).max_attempts == 7
        assert queue.enqueue(retry=RetryPolicy(max_attempts=7), max_attempts=2).max_attempts == 2
        assert queue.enqueue(retry=RetryPolicy(max_attempts=None)).max_attempts is None


def test_enqueue_many_stores_all_in_order(queue: TaskQueue) -> None:
    tasks = queue.enqueue_many(({"n": n} for n in range(2500)), priority=3, start_in=0)
    assert [task.payload["n"] for task in tasks] == list(range(2500))
    assert [task.id for task in tasks] == sorted(task.id for task in tasks)
    fetched = queue.fetch(2500, timeout=10)
    assert [task.payload["n"] for task in fetched] == list(range(2500))
    assert {task.priority for task in fetched} == {3}


def test_enqueue_many_of_nothing(queue: TaskQueue) -> None:
    assert queue.enqueue_many([]) == []


def test_enqueue_many_stores_all_or_none(queue: TaskQueue) -> None:
    with pytest.raises(PayloadError, match=r"payloads\[2\]"):
        queue.enqueue_many([1, 2, float("nan"), 4])
    assert queue.tasks() == []


@pytest.mark.one_engine("refused before a query is sent")
def test_enqueue_many_whose_payloads_raise_stores_nothing(queue: TaskQueue) -> None:
    def payloads():
        yield 1
        raise RuntimeError("the producer broke")

    with pytest.raises(RuntimeError, match="the producer broke"):
        queue.enqueue_many(payloads())
    assert queue.tasks() == []


@pytest.mark.one_engine("refused before a query is sent")
def test_enqueue_many_takes_no_key(queue: TaskQueue) -> None:
    with pytest.raises(TypeError):
        queue.enqueue_many([1], key="k")  # type: ignore[call-arg]


@pytest.mark.one_engine("refused before a query is sent")
def test_the_payload_is_as_it_was_at_enqueue(queue: TaskQueue) -> None:
    payload = {"list": [1]}
    task = queue.enqueue(payload)
    payload["list"].append(2)
    assert task.payload == {"list": [1]}
    assert queue.get(task.id).payload == {"list": [1]}


@pytest.mark.one_engine("refused before a query is sent")
def test_a_closed_queue_accepts_no_tasks(url: str) -> None:
    queue = TaskQueue(url)
    queue.close()
    for act in (queue.enqueue, queue.add_msg, lambda data: queue.enqueue_many([data])):
        with pytest.raises(TaskQueueError, match="closed"):
            act({"n": 1})
    with TaskQueue(url) as again:
        assert again.tasks() == []


def test_queues_share_a_database_and_nothing_else(queue: TaskQueue, url: str) -> None:
    with TaskQueue(url, queue="http.fetch") as other:
        task = other.enqueue("for the other")
        assert task.queue == "http.fetch"
        assert queue.fetch(timeout=0) == []
        assert queue.tasks() == []
        assert queue.get(task.id).payload == "for the other"
        assert other.fetch(timeout=10)[0].id == task.id

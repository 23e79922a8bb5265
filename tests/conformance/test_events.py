"""Events: each fact reaches a listener of ``queue.events`` once, after it is stored."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import child_tasks
import pytest
from faults import Faults
from helpers import Background, spawn, until

from dbtaskqueue import (
    AbandonTask,
    InvalidTransition,
    ReleaseTask,
    RetryPolicy,
    RetryTask,
    StoreUnavailable,
    TaskQueue,
    Worker,
    current_task,
)
from dbtaskqueue._maintenance import supervision
from dbtaskqueue._worker import held
from dbtaskqueue.events import (
    ClaimLost,
    OutageEnded,
    OutageStarted,
    TaskEnded,
    TasksEnqueued,
    TaskStarted,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)

pytestmark = pytest.mark.one_engine("facts are emitted above every engine")

KINDS: tuple[type[Any], ...] = (
    TasksEnqueued,
    TaskStarted,
    TaskEnded,
    ClaimLost,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    OutageStarted,
    OutageEnded,
)
LATER = RetryPolicy(delay=3600)


class Heard:
    """The facts that a listener got."""

    def __init__(self, queue: TaskQueue) -> None:
        self.facts: list[Any] = []
        for kind in KINDS:
            queue.events.listen(kind, self.facts.append)

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kinds)]

    def story(self, task: int) -> list[tuple[str, int] | str]:
        """What happened to a task: the numbers of its starts, and the states in which its claims ended."""
        return [
            ("started", fact.attempt) if isinstance(fact, TaskStarted) else (str(fact.state), fact.attempt)
            for fact in self.of(TaskStarted, TaskEnded, ClaimLost)
            if fact.record.id == task
        ]


@pytest.fixture
def heard(queue: TaskQueue) -> Heard:
    return Heard(queue)


def is_end(asked: dict[str, object]) -> object:
    return asked.get("ends")


def act(outcome: str) -> str:
    if outcome == "failed":
        raise ValueError("no luck")
    if outcome == "retried":
        raise RetryTask(delay=3600)
    if outcome == "abandoned":
        raise AbandonTask("no use")
    if outcome == "released":
        raise ReleaseTask(delay=3600)
    return outcome


STATES = {"done": "done", "failed": "failed", "retried": "failed", "abandoned": "abandoned", "released": "pending"}

# -- tasks -----------------------------------------------------------------------------------------


@pytest.mark.every_engine("ends are stored by SQL that differs for one and for many")
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("executor", ["thread", "asyncio"])
def test_each_start_and_each_end_once(queue: TaskQueue, heard: Heard, executor: str, batch: int) -> None:
    tasks = {outcome: queue.enqueue(outcome, retry=LATER) for outcome in STATES}
    Worker(queue, executor=executor).run(act, burst=True, batch=batch)  # type: ignore[arg-type]
    assert {outcome: heard.story(task.id) for outcome, task in tasks.items()} == {
        outcome: [("started", 1), (state, 1)] for outcome, state in STATES.items()
    }
    assert {fact.error is None for fact in heard.of(TaskEnded) if fact.state == "failed"} == {False}


def test_each_start_and_each_end_of_a_child_process_once(queue: TaskQueue, heard: Heard) -> None:
    done = queue.enqueue({"do": "return", "value": 1})
    failed = queue.enqueue({"do": "raise", "text": "no luck"}, retry=LATER)
    Worker(queue, executor="process").run(child_tasks.act, burst=True)
    assert heard.story(done.id) == [("started", 1), ("done", 1)]
    assert heard.story(failed.id) == [("started", 1), ("failed", 1)]


def test_what_is_reported_is_stored(queue: TaskQueue, other: TaskQueue) -> None:
    states: list[tuple[str, str]] = []
    for kind in (TaskStarted, TaskEnded):
        queue.events.listen(kind, lambda fact: states.append((type(fact).__name__, other.get(fact.record.id).state)))
    queue.enqueue("done")
    Worker(queue).run(act, burst=True, batch=1)
    assert states == [("TaskStarted", "running"), ("TaskEnded", "done")]


@pytest.mark.parametrize("batch", [1, 8])
def test_the_start_of_a_task_that_ends_in_its_own_transaction(queue: TaskQueue, heard: Heard, batch: int) -> None:
    def end(payload: object) -> None:
        with current_task().transaction():
            pass

    task = queue.enqueue()
    Worker(queue).run(end, burst=True, batch=batch)
    assert heard.story(task.id) == [("started", 1), ("done", 1)]


def test_the_start_of_a_task_that_turns_out_to_be_long(queue: TaskQueue, heard: Heard) -> None:
    """Its start is stored by itself, since it is in a batch of short tasks."""
    short, long = queue.enqueue(0.0), queue.enqueue(0.5)
    Worker(queue).run(time.sleep, burst=True, batch=8)
    for task in (short, long):
        assert heard.story(task.id) == [("started", 1), ("done", 1)]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("batch", [1, 8])
def test_an_end_whose_answer_was_lost(queue: TaskQueue, heard: Heard, batch: int, stored: bool) -> None:
    faults = Faults(queue)
    faults.lose, faults.stored, faults.in_doubt, faults.times = is_end, stored, True, 2
    tasks = {outcome: queue.enqueue(outcome, retry=LATER) for outcome in STATES}
    Worker(queue).run(act, burst=True, batch=batch)
    assert faults.lost == 2
    stories = {outcome: heard.story(task.id) for outcome, task in tasks.items()}
    claims_lost = stored and batch == 1  # with the ends' answers; those claims are released before they start
    assert sum(len(story) - 2 for story in stories.values()) == (2 if claims_lost else 0)
    assert {outcome: story[-2:] for outcome, story in stories.items()} == {
        outcome: [("started", 1), (state, 1)] for outcome, state in STATES.items()
    }
    assert [type(fact) for fact in heard.of(OutageStarted, OutageEnded)] == [OutageStarted, OutageEnded]


def test_a_start_whose_answer_was_lost(queue: TaskQueue, heard: Heard) -> None:
    """Of a task in a batch that turned out to be long."""
    faults = Faults(queue)
    faults.lose, faults.stored, faults.times = lambda asked: asked.get("starts"), True, 1
    task = queue.enqueue(0.5)
    Worker(queue).run(time.sleep, burst=True, batch=8)
    assert faults.lost == 1
    assert heard.story(task.id) == [("started", 1), ("done", 1)]


def test_an_end_that_was_not_stored_because_the_claim_is_gone(queue: TaskQueue, other: TaskQueue, heard: Heard) -> None:
    task = queue.enqueue()
    Worker(queue).run(lambda payload: other.purge(), burst=True)
    assert heard.story(task.id) == [("started", 1), ("abandoned", 1)]
    assert len(heard.of(ClaimLost)) == 1
    assert heard.of(TaskEnded) == []


def test_a_listener_that_comes_while_a_worker_runs(queue: TaskQueue) -> None:
    heard: list[TaskEnded] = []
    first, second = queue.enqueue("first"), queue.enqueue("second")

    def listen(payload: str) -> None:
        if payload == "first":
            queue.events.listen(TaskEnded, heard.append)

    Worker(queue).run(listen, burst=True, batch=1)
    assert [fact.record.id for fact in heard] == [first.id, second.id]


def test_a_listener_that_raises_harms_no_other(
    queue: TaskQueue, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    late: list[TaskEnded] = []
    queue.events.listen(TaskEnded, lambda fact: 1 / 0)
    queue.events.listen(TaskEnded, late.append)
    tasks = queue.enqueue_many(["done"] * 3)
    Worker(queue).run(act, burst=True)
    assert [fact.record.id for fact in late] == [task.id for task in tasks]
    assert [task.refresh().state for task in tasks] == ["done"] * 3
    assert sum("a listener raised" in record.getMessage() for record in caplog.records) == 3


def test_two_workers_of_one_queue_report_what_they_ran(queue: TaskQueue, heard: Heard) -> None:
    tasks = queue.enqueue_many(["done"] * 20)
    workers = [Background(lambda: Worker(queue).run(act, burst=True)) for _ in range(2)]
    for worker in workers:
        worker.join()
    assert Counter(fact.record.id for fact in heard.of(TaskEnded)) == Counter(task.id for task in tasks)
    assert len(heard.of(WorkerJoined)) == len(heard.of(WorkerLeft)) == 2


def test_calling_on_error_often_is_no_reason_to_believe_that_the_worker_hangs(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many failures of a batch are stored together. Each call shows that the worker's loop continues."""
    calls: list[tuple[float, float]] = []
    seen = supervision.Supervision.__init__

    def init(self: supervision.Supervision, notifier: Any, events: Any, last_turn: Any, status: Any) -> None:
        turns_of.append(last_turn)
        seen(self, notifier, events, last_turn, status)

    turns_of: list[Callable[[], float]] = []
    monkeypatch.setattr(supervision.Supervision, "__init__", init)

    def on_error(task: object, error: BaseException) -> None:
        calls.append((turns_of[0](), time.monotonic()))

    queue.enqueue_many(["failed"] * 5, retry=LATER)
    Worker(queue, on_error=on_error).run(act, burst=True, batch=8)
    assert len(calls) == 5
    for (_, before), (last_turn, _) in itertools.pairwise(calls):
        assert last_turn >= before, "a turn of the loop since the call before"


@pytest.mark.parametrize(
    "raises", ["import a_module_that_is_missing", "a_missing_name", "object().a_missing_attribute"]
)
def test_the_log_names_the_class_of_an_error(queue: TaskQueue, caplog: pytest.LogCaptureFixture, raises: str) -> None:
    """Some exceptions have a ``name`` that is not the name of their class."""
    task = queue.enqueue(raises, max_attempts=1)
    Worker(queue).run(exec, burst=True)
    [fields] = [vars(record)["fields"] for record in caplog.records if "task abandoned" in record.getMessage()]
    assert f"builtins.{fields['error']}" == task.refresh().error_type


# -- a plain fetch() user --------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
def test_a_holder_whose_answers_are_lost(queue: TaskQueue, heard: Heard, stored: bool) -> None:
    faults = Faults(queue)
    faults.lose, faults.stored, faults.in_doubt = lambda asked: is_end(asked) or asked.get("starts"), stored, True
    faults.times = 2
    task = queue.enqueue()
    [mine] = queue.fetch(timeout=10)
    assert mine.start()
    mine.fail("no luck")
    assert faults.lost == 2
    assert heard.story(task.id) == [("started", 1), ("failed", 1)]
    with pytest.raises(InvalidTransition):
        mine.finish()
    assert heard.story(task.id) == [("started", 1), ("failed", 1)]


def test_an_end_that_a_holder_asks_for_again(queue: TaskQueue, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_PAUSES", ())
    faults = Faults(queue)
    task = queue.enqueue()
    [mine] = queue.fetch(timeout=10)
    mine.start()
    faults.lose, faults.stored, faults.times = is_end, True, 1
    with pytest.raises(StoreUnavailable):
        mine.finish("result")
    assert heard.story(task.id) == [("started", 1)]
    mine.finish("result")
    assert heard.story(task.id) == [("started", 1), ("done", 1)]


def test_a_holder_that_is_marked_lost_while_an_end_is_in_doubt(
    queue: TaskQueue, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of its doubt any more. The end was stored all the same."""
    faults = Faults(queue)
    task = queue.enqueue()
    [mine] = queue.fetch(timeout=10)
    mine.start()
    faults.lose, faults.stored, faults.times = is_end, True, 1
    settled = held.outcomes.settled

    def settle(*given: Any) -> Any:
        queue._membership._was_lost()
        return settled(*given)

    monkeypatch.setattr(held.outcomes, "settled", settle)
    mine.finish("result")
    assert heard.story(task.id) == [("started", 1), ("done", 1)]


# -- enqueueing ------------------------------------------------------------------------------------


@pytest.mark.every_engine("whether a key exists already is found by SQL")
def test_what_is_new_is_reported_once(queue: TaskQueue, heard: Heard) -> None:
    first = queue.enqueue("a", key="one")
    queue.enqueue("b", key="one")
    many = queue.enqueue_many(["c", "d"])
    queue.enqueue_many([])
    facts = [
        list(zip(fact.ids, [task.payload for task in fact.tasks], strict=True)) for fact in heard.of(TasksEnqueued)
    ]
    assert [fact for fact in facts if fact] == [
        [(first.id, '"a"')],
        [(many[0].id, '"c"'), (many[1].id, '"d"')],
    ]


def test_a_lane_reports_to_the_listeners_of_its_queue(queue: TaskQueue, heard: Heard) -> None:
    task = queue.lane("mail").enqueue("done")
    Worker(queue.lane("mail")).run(act, burst=True)
    assert [fact.ids for fact in heard.of(TasksEnqueued)] == [[task.id]]
    assert heard.story(task.id) == [("started", 1), ("done", 1)]


# -- workers ---------------------------------------------------------------------------------------


def test_a_worker_that_joins_and_leaves(queue: TaskQueue, heard: Heard) -> None:
    queue.enqueue("done")
    Worker(queue).run(act, burst=True)
    [joined, left] = heard.of(WorkerJoined, WorkerLeft)
    assert (type(joined), type(left)) == (WorkerJoined, WorkerLeft)
    assert joined.worker == left.worker


def test_a_holder_that_joins_and_leaves_once(queue: TaskQueue, heard: Heard) -> None:
    queue.enqueue_many([1, 2])
    first, second = queue.fetch(2, timeout=10)
    for task in (first, second):
        task.start()
    queue.close()
    queue.close()
    assert heard.of(WorkerLeft) == []
    first.finish()
    second.finish()
    assert [type(fact) for fact in heard.of(WorkerJoined, WorkerLeft)] == [WorkerJoined, WorkerLeft]


KILLED = """
import sys, time
from dbtaskqueue import TaskQueue
[task] = TaskQueue(sys.argv[1]).fetch(timeout=30)
task.start()
print("started", flush=True)
time.sleep(600)
"""


def test_a_worker_that_was_killed_is_reported_lost_once(url: str, queue: TaskQueue, heard: Heard) -> None:
    task = queue.enqueue("done", retry=LATER)
    process = spawn(KILLED, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    others = [Background(lambda: Worker(queue).run(act, max_tasks=1, idle_timeout=20)) for _ in range(2)]
    until(lambda: task.refresh().state == "done", what="the rescued task")
    queue.close()
    for other in others:
        other.join()
    [lost] = heard.of(WorkerLost)
    assert lost.tasks == 1


# -- outages ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("caplog")
def test_an_outage_of_a_worker_is_reported_once(queue: TaskQueue, heard: Heard) -> None:
    faults = Faults(queue)
    faults.lose = lambda asked: True
    queue.enqueue("done")
    running = Background(lambda: Worker(queue).run(act, max_tasks=1))
    until(lambda: faults.lost >= 4, what="some tries")
    assert [type(fact) for fact in heard.of(OutageStarted, OutageEnded)] == [OutageStarted]
    faults.heal()
    running.join()
    [started, ended] = heard.of(OutageStarted, OutageEnded)
    assert (type(started), type(ended)) == (OutageStarted, OutageEnded)
    assert ended.failures >= 4


def test_an_outage_of_a_holder_is_reported_once(
    queue: TaskQueue, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some of its duties do not ask the database each time. That they succeed does not end the outage."""
    caplog.set_level(logging.WARNING)
    queue.enqueue()
    [task] = queue.fetch(timeout=10)
    tries: list[float] = []

    def unavailable(*given: object) -> Any:
        tries.append(time.monotonic())
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(queue.store, "workers", unavailable)
        until(lambda: len(tries) >= 3, what="some tries")
        assert [type(fact) for fact in heard.of(OutageStarted, OutageEnded)] == [OutageStarted]
    until(lambda: heard.of(OutageEnded), what="the end of the outage")
    assert len(heard.of(OutageStarted, OutageEnded)) == 2
    with task:
        pass

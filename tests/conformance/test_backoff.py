"""``backoff`` of a task function, and the stored class of an attempt's error, with each executor."""

from __future__ import annotations

from pathlib import Path

import extended_tasks
import pytest
from extended_tasks import notes

from dbtaskqueue import Task, TaskQueue, Worker

pytestmark = [
    pytest.mark.engine("sqlite"),
    pytest.mark.one_engine("decided in Python; the columns are tested elsewhere"),
]

EXECUTORS = pytest.mark.parametrize("executor", ["thread", "asyncio", "process"])


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the tasks write their notes to."""
    monkeypatch.setenv(extended_tasks.FILE, str(tmp_path / "notes"))


def failed(queue: TaskQueue, url: str, what: str, executor: str) -> Task:
    """Enqueue a task of ``decided``, let a worker run it once, and return it."""
    with TaskQueue(url) as producer:
        task = producer.task(name="decided")(lambda what: None).enqueue(what)
    queue.functions = extended_tasks.queue.functions
    Worker(queue, executor=executor).run(burst=True)
    return queue.get(task.id)


def delay(task: Task) -> float:
    """Return the seconds from the end of the attempt until the task is due."""
    return round((task.start_at - task.attempts()[-1].finished_at).total_seconds(), 3)


@EXECUTORS
@pytest.mark.parametrize(("what", "seconds"), [("after 1800", 1800), ("duration", 7)])
def test_the_answer_is_the_delay(queue: TaskQueue, url: str, executor: str, what: str, seconds: float) -> None:
    task = failed(queue, url, what, executor)
    assert (task.state, delay(task)) == ("failed", seconds)
    assert [text for _, text in notes()] == ["asked Refused 1"]


@EXECUTORS
def test_a_backoff_of_none_abandons_the_task(queue: TaskQueue, url: str, executor: str) -> None:
    task = failed(queue, url, "abandon", executor)
    assert (task.state, task.attempt) == ("abandoned", 1)


@EXECUTORS
@pytest.mark.parametrize(
    ("what", "message"), [("raise", "LookupError: no answer"), ("odd", "the result of backoff must be a finite number")]
)
def test_without_an_answer_the_policy_applies(
    queue: TaskQueue, url: str, executor: str, what: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = failed(queue, url, what, executor)
    assert (task.state, delay(task)) == ("failed", 60)
    [record] = [record for record in caplog.records if "backoff= of a task function failed" in record.getMessage()]
    assert record.fields["task_id"] == task.id
    assert message in record.fields["error"]


@EXECUTORS
def test_an_outcome_that_the_task_chose_wins(queue: TaskQueue, url: str, executor: str) -> None:
    task = failed(queue, url, "retry", executor)
    assert (task.state, delay(task)) == ("failed", 5)
    assert notes() == []


def test_a_process_that_ended_uses_the_policy(queue: TaskQueue, url: str) -> None:
    task = failed(queue, url, "exit", "process")
    assert (task.state, delay(task)) == ("failed", 60)


def test_a_callback_has_no_backoff(queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extended_tasks.act, "backoff", extended_tasks.decide, raising=False)
    task = queue.enqueue({"raise": "after 1800"})
    Worker(url).run(extended_tasks.act, burst=True)
    assert delay(task.refresh()) == 60


# -- the class of an error ---------------------------------------------------------------------------


def error_type(queue: TaskQueue, task: Task) -> str | None:
    return queue.store.attempts(task.id)[-1].error_type


@EXECUTORS
@pytest.mark.parametrize(
    ("what", "name"), [("abandon", "extended_tasks.Refused"), ("retry", "dbtaskqueue.errors.RetryTask")]
)
def test_the_class_of_an_error_is_stored(queue: TaskQueue, url: str, executor: str, what: str, name: str) -> None:
    assert error_type(queue, failed(queue, url, what, executor)) == name


@EXECUTORS
def test_the_class_of_a_builtin_error(queue: TaskQueue, executor: str) -> None:
    task = queue.enqueue({"raise": "no good"})
    Worker(queue, executor=executor).run(extended_tasks.act, burst=True)
    assert error_type(queue, task) == "builtins.ValueError"


def test_the_class_of_an_attempt_whose_process_ended(queue: TaskQueue, url: str) -> None:
    assert error_type(queue, failed(queue, url, "exit", "process")) == "dbtaskqueue.errors.ChildFailed"

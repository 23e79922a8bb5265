"""The extension for Sentry with the real SDK, and a transport of the tests that writes events to a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import die_holding, until
from servers import requirements

requirements.library("sentry_sdk")

import reported_tasks  # noqa: E402
import sentry_sdk  # noqa: E402
from reported_tasks import act, act_async, events, refuse  # noqa: E402

from dbtaskqueue import Task, TaskQueue, Worker, current_task  # noqa: E402
from dbtaskqueue.integrations.sentry import SentryExtension  # noqa: E402
from dbtaskqueue.testing import override, run_tasks  # noqa: E402

pytestmark = pytest.mark.one_engine("events do not depend on SQL")

EXECUTORS = pytest.mark.parametrize("executor", ["thread", "asyncio", "process"])
Run = Callable[..., None]


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a worker on the queue of ``reported_tasks``, with the database of this test."""
    monkeypatch.setenv(reported_tasks.FILE, str(tmp_path / "events"))
    reported_tasks.start()
    with override(reported_tasks.queue, url):
        yield lambda executor="thread": Worker(reported_tasks.queue, executor=executor).run(burst=True)
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Set what the extension captures."""
    return lambda capture: monkeypatch.setattr(reported_tasks.extension, "capture", capture)


def enqueue(what: str, executor: str = "thread", **options: Any) -> Task:
    return (act_async if executor == "asyncio" else act).using(**options).enqueue(what)


def exception(event: dict[str, Any]) -> tuple[str, str]:
    [value] = event["exception"]["values"]
    return value["type"], value["value"]


# -- errors ----------------------------------------------------------------------------------------


@EXECUTORS
def test_the_last_attempt_is_captured_where_it_ran(run: Run, executor: str) -> None:
    task = enqueue("fail", executor)
    run(executor)
    [event] = events()
    assert exception(event) == ("LookupError", "no good")
    assert (event["pid"] == os.getpid()) == (executor != "process")
    frames = event["exception"]["values"][0]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "act"
    assert frames[-1]["vars"]["detail"] == "'local'"
    assert event["tags"] == {"queue": "default", "function": task.function, "attempt": 2}
    assert event["contexts"]["task"] == {"id": task.id, "attempt": 2, "max_attempts": 2}
    assert [crumb["message"] for crumb in event["breadcrumbs"]["values"]] == ["before fail"]
    assert event["transaction"] == task.function


@pytest.mark.parametrize(
    ("mode", "executor", "found"),
    [
        ("abandoned", "process", ["LookupError", "AbandonTask", "RetryTask"]),
        ("abandoned", "thread", ["LookupError", "AbandonTask", "RetryTask"]),
        ("failed", "thread", ["LookupError", "LookupError", "AbandonTask", "RetryTask"]),
        ("all", "thread", ["LookupError", "LookupError", "AbandonTask", "RetryTask", "RetryTask"]),
    ],
)
def test_what_is_captured(run: Run, capture: Callable[[Any], None], mode: str, executor: str, found: list[str]) -> None:
    capture(mode)
    for what in ("fail", "abandon", "retry", "release", "done"):
        enqueue(what)
    run(executor)
    assert sorted(exception(event)[0] for event in events()) == sorted(found)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_an_abandonment_that_only_the_worker_knows(run: Run, executor: str) -> None:
    """Whether backoff abandons the task is known after the attempt."""
    task = refuse.enqueue()
    run(executor)
    [event] = events()
    assert event["pid"] == os.getpid()
    assert exception(event) == ("PermissionError", "refused")
    assert event["tags"]["attempt"] == 1
    assert event["contexts"]["task"]["id"] == task.id
    if executor == "process":
        assert event["exception"]["values"][0]["module"] == "builtins"
        assert 'raise PermissionError("refused")' in event["contexts"]["child"]["error"]
        assert event["fingerprint"] == ["refuse", "PermissionError"]


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_result_that_cannot_be_stored(run: Run, executor: str) -> None:
    enqueue("unstorable")
    run(executor)
    [event] = events()
    assert exception(event)[0] == "PayloadError"
    assert event["pid"] == os.getpid()


def test_the_death_of_a_child(run: Run) -> None:
    enqueue("die", max_attempts=1)
    run("process")
    [event] = events()
    kind, text = exception(event)
    assert kind == "ChildFailed"
    assert "SIGKILL" in text


@pytest.mark.parametrize(("mode", "found"), [("abandoned", 1), ("failed", 2)])
def test_an_attempt_whose_worker_was_lost(
    run: Run, capture: Callable[[Any], None], url: str, mode: str, found: int
) -> None:
    capture(mode)
    last, retried = enqueue("done", max_attempts=1), enqueue("done")
    assert die_holding(url, count=2) == [last.id, retried.id]
    run()
    assert retried.refresh().state == "done"
    by_task = {event["contexts"]["task"]["id"]: event for event in events()}
    assert len(by_task) == found
    kind, text = exception(by_task[last.id])
    assert kind == "WorkerLost"
    assert "was lost while it ran this attempt" in text
    assert by_task[last.id]["fingerprint"] == [last.function, "WorkerLost"]
    assert by_task[last.id]["tags"]["attempt"] == 1


def test_an_exceeded_limit(run: Run) -> None:
    enqueue("sleep", time_limit=0.2, max_attempts=1)
    run("process")
    [event] = events()
    assert exception(event)[0] == "LimitExceeded"


def test_a_cancelled_task_is_not_captured(run: Run, capture: Callable[[Any], None]) -> None:
    capture("all")

    @reported_tasks.queue.task(name="cancelled")
    def cancelled(text: str) -> None:
        reported_tasks.queue.cancel(task.id)
        until(lambda: current_task().cancelled)
        raise LookupError(text)

    task = cancelled.enqueue("no good")
    run()
    assert task.refresh().state == "cancelled"
    assert events() == []


@pytest.mark.filterwarnings("ignore:The send_default_pii option")
@pytest.mark.parametrize("pii", [True, False])
def test_the_payload_is_sent_only_if_asked(run: Run, pii: bool) -> None:
    reported_tasks.start(send_default_pii=pii, include_local_variables=False)
    enqueue("abandon", meta={"tenant": "acme"})
    run()
    [event] = events()
    assert ("payload" in event["contexts"]["task"]) == pii
    assert "acme" not in str(event)


def test_scopes_of_tasks_are_separate(run: Run) -> None:
    with sentry_sdk.isolation_scope() as scope:
        sentry_sdk.set_tag("program", "mine")
        sentry_sdk.add_breadcrumb(message="of the program")
        enqueue("abandon")
        enqueue("abandon")
        run_tasks(reported_tasks.queue)
        assert "queue" not in scope._tags
    assert len(events()) == 2
    for event in events():
        assert [crumb["message"] for crumb in event["breadcrumbs"]["values"]] == ["before abandon"]
        assert event["tags"]["program"] == "mine"


# -- transactions ----------------------------------------------------------------------------------


@EXECUTORS
def test_an_attempt_is_a_transaction_in_the_trace_of_the_program(run: Run, executor: str) -> None:
    with sentry_sdk.start_transaction(name="request", op="http.server"):
        task = enqueue("done", executor)
    run(executor)
    sentry_sdk.flush()
    found = {event["transaction"]: event for event in events("transaction")}
    request, attempt = found["request"], found[str(task.function)]
    [published] = request["spans"]
    assert (published["op"], published["description"]) == ("queue.publish", "default")
    assert published["data"]["messaging.message.id"] == str(task.id)
    assert published["data"]["messaging.destination.name"] == "default"
    context = attempt["contexts"]["trace"]
    assert context["op"] == "queue.process"
    assert context["status"] == "ok"
    assert context["trace_id"] == request["contexts"]["trace"]["trace_id"]
    assert context["parent_span_id"] == published["span_id"]
    assert context["data"]["messaging.message.id"] == str(task.id)
    assert context["data"]["messaging.destination.name"] == "default"
    assert context["data"]["messaging.message.retry.count"] == 0
    assert attempt["transaction_info"] == {"source": "task"}


def test_the_status_of_a_transaction(run: Run) -> None:
    for what in ("abandon", "release"):
        enqueue(what)
    run()
    assert [event["contexts"]["trace"]["status"] for event in events("transaction")] == ["internal_error", "aborted"]


@pytest.mark.parametrize("wrong", [5, {"sentry-trace": 7}, {"sentry-trace": "x", "baggage": "y"}], ids=str)
def test_foreign_values_in_meta_are_ignored(run: Run, url: str, wrong: Any) -> None:
    """Anyone who can write to the database can write into meta."""
    with TaskQueue(url) as producer:
        task = producer.enqueue({"args": ["done"], "kwargs": {}}, meta={"sentry": wrong})
    producer = reported_tasks.queue
    assert task.state == "pending"
    Worker(producer).run(lambda payload: payload, burst=True)
    assert producer.get(task.id).state == "done"
    assert len(events("transaction")) == 1


def test_nothing_happens_without_sentry(run: Run) -> None:
    sentry_sdk.get_global_scope().set_client(None)
    task = enqueue("fail")
    assert task.meta == {}
    run()
    assert task.refresh().state == "abandoned"
    assert events() == []


def test_an_unknown_capture_is_refused() -> None:
    with pytest.raises(ValueError, match="capture must be one of abandoned, failed, all, not 'some'"):
        SentryExtension(capture="some")  # type: ignore[arg-type]

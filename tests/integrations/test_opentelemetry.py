"""OpenTelemetry with its SDK: spans in threads, event loops and processes, their links, and the metrics of a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import python_path
from servers import requirements

requirements.library("opentelemetry.sdk", "opentelemetry.instrumentation")

import traced_tasks  # noqa: E402
from opentelemetry import baggage, context, trace  # noqa: E402
from opentelemetry.propagate import extract  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from dbtaskqueue import (  # noqa: E402
    AbandonTask,
    PayloadError,
    ReleaseTask,
    RetryPolicy,
    TaskQueue,
    Worker,
    current_task,
)
from dbtaskqueue.extension import NewTaskView  # noqa: E402
from dbtaskqueue.integrations import opentelemetry as integration  # noqa: E402
from dbtaskqueue.integrations.opentelemetry import DbtaskqueueInstrumentor, OpenTelemetry  # noqa: E402
from dbtaskqueue.testing import override, run_tasks  # noqa: E402

pytestmark = pytest.mark.one_engine("spans do not depend on SQL")


class Telemetry:
    """Providers in memory, and what they have got."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])
        self.tracer = self.tracers.get_tracer("test")

    def extension(self, **options: Any) -> OpenTelemetry:
        """Return an extension that uses these providers."""
        return OpenTelemetry(self.tracers, self.meters, **options)

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the spans whose name begins with these words."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def metrics(self) -> dict[str, list[Any]]:
        """Return the points of each metric by its name."""
        data = self._reader.get_metrics_data()
        found = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def telemetry() -> Telemetry:
    """Providers of this test."""
    return Telemetry()


@pytest.fixture
def traced(queue: TaskQueue, telemetry: Telemetry) -> TaskQueue:
    """The queue, with the extension."""
    queue.use(telemetry.extension())
    return queue


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


# -- spans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "asyncio"])
@pytest.mark.parametrize("links", [True, False])
def test_an_attempt_is_linked_to_its_enqueue_or_its_child(
    queue: TaskQueue, telemetry: Telemetry, executor: Any, links: bool
) -> None:
    queue.use(telemetry.extension(links=links))

    def work() -> None:
        with telemetry.tracer.start_as_current_span("mine"):
            pass

    @queue.task(name="work")
    def plain() -> str:
        work()
        return str(baggage.get_baggage("tenant"))

    @queue.task(name="work_async")
    async def coroutine() -> str:
        return plain()

    function = plain if executor == "thread" else coroutine
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        with telemetry.tracer.start_as_current_span("request") as request:
            task = function.enqueue()
    finally:
        context.detach(token)
    Worker(queue, executor=executor).run(burst=True)
    [sent], [run], [mine] = telemetry.spans("enqueue"), telemetry.spans("run"), telemetry.spans("mine")
    assert (sent.name, sent.kind) == ("enqueue default", SpanKind.PRODUCER)
    assert attributes(sent) == {
        "messaging.system": "dbtaskqueue",
        "messaging.destination.name": "default",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.message.id": str(task.id),
        "dbtaskqueue.function": function.name,
    }
    assert (run.name, run.kind, run.status.status_code) == (f"run {function.name}", SpanKind.CONSUMER, StatusCode.UNSET)
    assert attributes(run) == {
        "messaging.system": "dbtaskqueue",
        "messaging.destination.name": "default",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.message.id": str(task.id),
        "dbtaskqueue.function": function.name,
        "dbtaskqueue.attempt": 1,
    }
    assert sent.parent is not None
    assert sent.parent.span_id == request.get_span_context().span_id
    assert mine.parent == run.context
    assert sent.context is not None
    if links:
        assert run.parent is None
        assert trace_of(run) != trace_of(sent)
        [link] = run.links
        assert (link.context.trace_id, link.context.span_id) == (sent.context.trace_id, sent.context.span_id)
    else:
        assert run.parent is not None
        assert run.parent.span_id == sent.context.span_id
        assert trace_of(run) == trace_of(sent)
        assert not run.links
    assert task.refresh().result == "acme", "baggage arrives in the task"
    assert set(task.meta) == {"traceparent", "baggage"}
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_many_tasks_are_one_span(traced: TaskQueue, telemetry: Telemetry) -> None:
    tasks = traced.enqueue_many([1, 2, 3])
    [sent] = telemetry.spans("enqueue")
    assert attributes(sent)["messaging.batch.message_count"] == 3
    assert len({task.meta["traceparent"] for task in tasks}) == 1  # type: ignore[type-var]
    assert traced.enqueue_many([]) == []
    assert len(telemetry.spans("enqueue")) == 1


def test_a_span_has_the_name_of_the_queue_that_is_used(traced: TaskQueue, telemetry: Telemetry) -> None:
    @traced.task(name="work")
    def work() -> None:
        """Do nothing."""

    work.using(queue="mail").enqueue()
    traced.lane("print").enqueue(1)
    assert [span.name for span in telemetry.spans("enqueue")] == ["enqueue mail", "enqueue print"]
    Worker(traced, queues=["*"]).run(lambda payload: None, burst=True)
    assert sorted(span.name for span in telemetry.spans("run")) == ["run print", "run work"]


def test_tasks_that_cannot_be_stored(traced: TaskQueue, telemetry: Telemetry) -> None:
    with pytest.raises(PayloadError):
        traced.enqueue(object())  # type: ignore[call-overload]
    [sent] = telemetry.spans("enqueue")
    assert sent.status.status_code == StatusCode.ERROR
    assert attributes(sent)["error.type"] == "dbtaskqueue.errors.PayloadError"
    [point] = telemetry.metrics()["messaging.client.sent.messages"]
    assert point.attributes["error.type"] == "dbtaskqueue.errors.PayloadError"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LookupError("no good\nsecond line"), StatusCode.ERROR),
        (AbandonTask("enough"), StatusCode.ERROR),
        (ReleaseTask(60), StatusCode.UNSET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failed_attempt(traced: TaskQueue, telemetry: Telemetry, error: Exception, status: StatusCode) -> None:
    @traced.task(name="fail", retry=RetryPolicy(delay=60))
    def fail() -> None:
        raise error

    fail.enqueue()
    run_tasks(traced, raises=False)
    [run] = telemetry.spans("run")
    assert run.status.status_code == status
    if status == StatusCode.ERROR:
        assert run.status.description == str(error).splitlines()[0]
        assert attributes(run)["error.type"] in ("LookupError", "dbtaskqueue.errors.AbandonTask")
        [event] = run.events
        assert event.name == "exception"
    else:
        assert not run.events
        assert "error.type" not in attributes(run)


def test_a_task_that_enqueues_links_the_next_one_to_itself(traced: TaskQueue, telemetry: Telemetry) -> None:
    @traced.task(name="chain")
    def chain(number: int) -> None:
        if number:
            chain.enqueue(number - 1)

    chain.enqueue(1)
    Worker(traced).run(burst=True)
    first, second = telemetry.spans("enqueue")
    assert second.parent == telemetry.spans("run")[0].context
    assert trace_of(first) != trace_of(second)


def test_trace_context_never_makes_meta_too_large(traced: TaskQueue, telemetry: Telemetry) -> None:
    token = context.attach(baggage.set_baggage("long", "x" * 4000))
    try:
        task = traced.enqueue(1, meta={"mine": "y" * 4000})
        assert set(task.meta) == {"mine", "traceparent"}
        assert set(traced.enqueue(1, meta={"mine": "y" * 8000}).meta) == {"mine"}
        assert set(traced.enqueue(1).meta) == {"traceparent", "baggage"}
    finally:
        context.detach(token)


@pytest.mark.parametrize("wrong", [7, ["a"], "no traceparent", f"00-{'0' * 32}-{'0' * 16}-01"], ids=str)
@pytest.mark.parametrize("links", [True, False])
def test_foreign_values_in_meta_are_ignored(
    queue: TaskQueue, url: str, telemetry: Telemetry, wrong: Any, links: bool
) -> None:
    """Anyone who can write to the database can write into meta."""
    with TaskQueue(url) as producer:
        producer.enqueue(1, meta={"traceparent": wrong, "tracestate": wrong, "baggage": wrong})
    queue.use(telemetry.extension(links=links))
    Worker(queue).run(lambda payload: None, burst=True)
    [run] = telemetry.spans("run")
    assert (run.parent, list(run.links), run.status.status_code) == (None, [], StatusCode.UNSET)


def test_nothing_happens_without_a_provider(queue: TaskQueue) -> None:
    queue.use(OpenTelemetry())
    task = queue.enqueue(1)
    assert task.meta == {}
    Worker(queue).run(lambda payload: payload, burst=True)
    assert task.refresh().state == "done"


# -- processes -------------------------------------------------------------------------------------


@pytest.fixture
def traced_module(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskQueue]:
    """The queue of ``traced_tasks`` with the database of this test. Spans are written to a file."""
    monkeypatch.setenv(traced_tasks.FILE, str(tmp_path / "spans"))
    with override(traced_tasks.queue, url):
        yield traced_tasks.queue


def named(name: str) -> list[dict[str, Any]]:
    return [span for span in traced_tasks.spans() if span["name"] == name]


def test_children_export_their_spans(traced_module: TaskQueue) -> None:
    traced_tasks.inner.enqueue()
    traced_tasks.fail.enqueue()
    Worker(traced_module, executor="process").run(burst=True)
    sent = named("enqueue default")[0]
    [run], [failed] = named("run inner"), named("run fail")
    assert run["pid"] != os.getpid() == sent["pid"]
    assert run["links"][0]["context"]["span_id"] == sent["context"]["span_id"]
    assert failed["status"]["status_code"] == "ERROR"
    assert failed["attributes"]["error.type"] == "LookupError"
    assert len(traced_tasks.spans()) == 4, "the worker makes no second span of an exception in a child"


def test_the_worker_makes_the_span_of_a_killed_child(traced_module: TaskQueue) -> None:
    task = traced_tasks.die.enqueue()
    Worker(traced_module, executor="process").run(burst=True)
    [run] = named("run die")
    assert run["pid"] == os.getpid()
    assert run["kind"] == "SpanKind.CONSUMER"
    assert run["status"]["status_code"] == "ERROR"
    assert "SIGKILL" in run["status"]["description"]
    assert run["attributes"]["error.type"] == "dbtaskqueue.errors.ChildFailed"
    assert run["attributes"]["messaging.message.id"] == str(task.id)
    assert run["start_time"] < run["end_time"]
    assert run["links"][0]["context"]["span_id"] == named("enqueue default")[0]["context"]["span_id"]


@pytest.mark.parametrize("stubborn", [True, False])
def test_an_attempt_that_exceeds_a_limit_has_one_span(traced_module: TaskQueue, stubborn: bool) -> None:
    traced_tasks.hang.enqueue(stubborn)
    Worker(traced_module, executor="process", cancel_grace=0.2 if stubborn else 30).run(burst=True)
    [run] = named("run hang")
    assert (run["pid"] == os.getpid()) == stubborn
    if stubborn:
        assert run["attributes"]["error.type"] == "dbtaskqueue.errors.LimitExceeded"


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_of_a_worker(traced: TaskQueue, telemetry: Telemetry) -> None:
    @traced.task(name="work", retry=RetryPolicy(max_attempts=1))
    def work(number: int) -> None:
        if number < 0:
            raise ValueError

    traced.enqueue_many([work.bind(1), work.bind(2), work.bind(-1)])
    traced.enqueue(0, key="once")
    traced.enqueue(0, key="once")
    Worker(traced).run(lambda payload: None, burst=True)
    found = telemetry.metrics()
    assert set(found) == {
        *("messaging.client.sent.messages", "messaging.client.consumed.messages", "messaging.process.duration"),
    }
    [sent] = found["messaging.client.sent.messages"]
    assert sent.value == 4
    assert sent.attributes == {
        "messaging.system": "dbtaskqueue",
        "messaging.destination.name": "default",
        "messaging.operation.name": "enqueue",
    }
    consumed = {
        (point.attributes.get("dbtaskqueue.function"), point.attributes.get("error.type")): point.value
        for point in found["messaging.client.consumed.messages"]
    }
    assert consumed == {("work", None): 2, ("work", "ValueError"): 1, (None, None): 1}
    assert sum(point.count for point in found["messaging.process.duration"]) == 4
    assert found["messaging.process.duration"][0].explicit_bounds == integration.BUCKETS
    assert integration.BUCKETS[-1] == 30 * 86400


def test_the_number_of_values_is_bounded(
    traced: TaskQueue, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integration, "MOST_NAMES", 3)
    for number in range(9):
        traced.lane(f"queue-{number}").enqueue(1)
    points = telemetry.metrics()["messaging.client.sent.messages"]
    names = {point.attributes["messaging.destination.name"]: point.value for point in points}
    assert names == {"queue-0": 1, "queue-1": 1, "queue-2": 1, "_OTHER": 6}


def test_a_child_counts_nothing(queue: TaskQueue, telemetry: Telemetry) -> None:
    extension = telemetry.extension()
    queue.use(extension)
    with extension.process():
        queue.enqueue(1)
    assert telemetry.metrics() == {}
    queue.enqueue(1)
    assert len(telemetry.metrics()["messaging.client.sent.messages"]) == 1


# -- end to end ------------------------------------------------------------------------------------


def test_a_trace_goes_from_a_request_to_the_task(traced: TaskQueue, telemetry: Telemetry) -> None:
    """The middleware does what an instrumentation of FastAPI does."""
    requirements.library("fastapi", "httpx")
    from fastapi import FastAPI, Request
    from fastapi.testclient import TestClient

    @traced.task(name="charge")
    def charge(order: int) -> int:
        return current_task().id

    app = FastAPI()

    @app.middleware("http")
    async def trace_request(request: Request, call_next: Callable[[Request], Any]) -> Any:
        with telemetry.tracer.start_as_current_span(
            "POST /orders", context=extract(dict(request.headers)), kind=SpanKind.SERVER
        ):
            return await call_next(request)

    @app.post("/orders/{order}")
    def order(order: int) -> int:
        return charge.enqueue(order).id

    client_trace = "0af7651916cd43dd8448eb211c80319c"
    with TestClient(app) as client:
        header = {"traceparent": f"00-{client_trace}-b7ad6b7169203331-01"}
        answer = client.post("/orders/7", headers=header)
    assert answer.status_code == 200
    Worker(traced).run(burst=True)
    [server], [sent], [run] = telemetry.spans("POST"), telemetry.spans("enqueue"), telemetry.spans("run")
    assert f"{trace_of(server):032x}" == f"{trace_of(sent):032x}" == client_trace
    assert sent.parent == server.context
    assert f"{run.links[0].context.trace_id:032x}" == client_trace
    assert attributes(run)["messaging.message.id"] == str(answer.json())


# -- the instrumentor ------------------------------------------------------------------------------


def test_the_instrumentor_traces_queues_created_later(url: str, telemetry: Telemetry) -> None:
    instrumentor = DbtaskqueueInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    try:
        with TaskQueue(url) as queue:
            queue.enqueue(1)
            assert len(telemetry.spans("enqueue")) == 1
            instrumentor.uninstrument()
            queue.enqueue(2)
            Worker(queue).run(lambda payload: None, burst=True)
            assert telemetry.spans("run") == []
            assert len(telemetry.spans("enqueue")) == 1
        with TaskQueue(url) as queue:
            assert queue.extensions == []
        instrumentor.instrument(tracer_provider=telemetry.tracers)
        with TaskQueue(url) as queue:
            queue.enqueue(3)
        assert len(telemetry.spans("enqueue")) == 2
    finally:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


AUTOMATIC = """
import sys
from importlib.metadata import EntryPoint
import traced_tasks  # noqa: E402
from opentelemetry import trace  # noqa: E402
trace.set_tracer_provider(traced_tasks.provider())
path = sys.argv[1]
EntryPoint("dbtaskqueue", path, "opentelemetry_instrumentor").load()().instrument()
from dbtaskqueue import TaskQueue, Worker
with TaskQueue("sqlite:///:memory:") as queue:
    queue.enqueue("x")
    Worker(queue).run(str.upper, burst=True)
"""


def test_the_entry_point_is_the_instrumentor(tmp_path: Path) -> None:
    import tomllib

    from pages import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, path)] = project["entry-points"]["opentelemetry_instrumentor"].items()
    assert name == "dbtaskqueue"
    environment = {**os.environ, "PYTHONPATH": python_path(), traced_tasks.FILE: str(tmp_path / "spans")}
    subprocess.run([sys.executable, "-c", AUTOMATIC, path], env=environment, check=True, timeout=60)
    text = (tmp_path / "spans").read_text()
    assert '"enqueue default"' in text
    assert '"run default"' in text


def test_enqueuing_alone_adds_the_current_context(telemetry: Telemetry) -> None:
    new = NewTaskView("default", None, 1, {})
    with telemetry.tracer.start_as_current_span("mine") as span:
        telemetry.extension().enqueuing(new)
    assert f"{span.get_span_context().trace_id:032x}" in str(new.meta["traceparent"])

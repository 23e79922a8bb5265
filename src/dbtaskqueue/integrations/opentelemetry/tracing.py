"""OpenTelemetry: spans for enqueueing and for attempts, and metrics of workers.

Names follow the semantic conventions for messaging. A task's ``meta`` carries the trace context of its enqueue.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dbtaskqueue import (
    ChildFailed,
    Extension,
    LimitExceeded,
    ReleaseTask,
    RunningTask,
    Task,
    TaskCancelled,
    Worker,
    __version__,
)
from dbtaskqueue.extension import NewTasksView, NewTaskView, for_all_queues
from dbtaskqueue.integrations import missing

try:
    from opentelemetry import context, metrics, propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
except ImportError as error:
    raise missing("opentelemetry", error) from None

if TYPE_CHECKING:
    from dbtaskqueue.task import EndedTask

T = TypeVar("T")
SYSTEM = "dbtaskqueue"
MOST_NAMES = 200
"""The most queues, functions and types of errors that metrics tell apart. Further ones are counted as ``_OTHER``."""
OTHER = "_OTHER"
BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400)
"""The recommended bounds of ``messaging.process.duration``, in seconds: tasks may run for days."""
_MOST_META = 7 * 1024
"""The bytes of ``meta`` above which no more trace context is added. The limit of ``meta`` is 8 KiB."""
_HEADERS = "traceparent", "tracestate", "baggage"
_LONGEST_TEXT = 500
"""Characters of an error that the status of a span has."""
_FLUSH = 2000
"""Milliseconds for which the end of a process waits, for spans and for metrics. A child has 5 s to leave."""


class OpenTelemetry(Extension):
    """An extension that traces tasks: ``TaskQueue(…, extensions=[OpenTelemetry()])``.

    ``tracer_provider`` and ``meter_provider``: by default the global ones. A function that returns a provider is called
    once in each process. ``links``: each attempt is a trace of its own, linked to the span that enqueued the task. With
    False, it is a child of that span, in the same trace.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | Callable[[], TracerProvider] | None = None,
        meter_provider: MeterProvider | Callable[[], MeterProvider] | None = None,
        links: bool = True,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._links = links
        self._telemetry: _Telemetry | None = None
        self._workers = 0
        self._is_child = False
        self.enabled = True

    # -- where tasks are enqueued --------------------------------------------------------------------

    @contextlib.contextmanager
    def enqueue(self, new: NewTasksView) -> Iterator[None]:
        """See Extension: a span "enqueue QUEUE"."""
        if not self.enabled:
            yield
            return
        attributes = _attributes(new.queue, "enqueue", "send")
        name = f"enqueue {new.queue}"
        error_type: str | None = None
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
            try:
                yield
            except BaseException as error:
                error_type = _type_of(error)
                span.set_attribute("error.type", error_type)
                raise
            finally:
                self._describe(span, new.tasks)
                self._count_sent(new, error_type)

    def enqueuing(self, new: NewTaskView) -> None:
        """See Extension: add the trace context to the task's ``meta``."""
        if self.enabled:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            size = _size(new.meta)
            for name in sorted(carrier, key=_importance):
                size += _size({name: carrier[name]})
                if size <= _MOST_META:
                    new.meta[name] = carrier[name]

    @staticmethod
    def _describe(span: Span, tasks: Sequence[Task]) -> None:
        if len(tasks) == 1:
            span.set_attribute("messaging.message.id", str(tasks[0].id))
            if (function := tasks[0].function) is not None:
                span.set_attribute("dbtaskqueue.function", function)
        elif tasks:
            span.set_attribute("messaging.batch.message_count", len(tasks))

    def _count_sent(self, new: NewTasksView, error_type: str | None) -> None:
        """Count what was enqueued, but not in children: each would export a counter of its own under the same name."""
        if not self._is_child:
            sent = sum(not task.deduplicated for task in new.tasks) if error_type is None else 1
            if sent:
                self._meters.sent.add(sent, self._meters.attributes(new.queue, "enqueue", error_type=error_type))

    # -- where tasks run -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def attempt(self, task: RunningTask) -> Iterator[None]:
        """See Extension: a span "run FUNCTION"."""
        if not self.enabled:
            yield
            return
        attributes = _run_attributes(task)
        parent, links = self._relatives(task.meta)
        token = context.attach(parent)
        try:
            with self._tracer.start_as_current_span(
                _run_name(task),
                kind=SpanKind.CONSUMER,
                attributes=attributes,
                links=links,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    yield
                except (ReleaseTask, TaskCancelled):  # not failures
                    raise
                except BaseException as error:
                    span.record_exception(error)
                    _mark_failed(span, error)
                    raise
        finally:
            context.detach(token)

    def _relatives(self, meta: Mapping[str, Any]) -> tuple[Context, list[Link]]:
        """Return the context in which an attempt runs, and the links of its span."""
        carrier = {name: value for name, value in meta.items() if isinstance(value, str)}
        found = propagate.extract(carrier, context=Context())
        if not self._links:
            return found, []
        creator = trace.get_current_span(found).get_span_context()
        alone = trace.set_span_in_context(trace.INVALID_SPAN, found)  # keeps the baggage
        return alone, [Link(creator)] if creator.is_valid else []

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """See Extension: export what is left at the end of the process."""
        self._is_child = not self._workers
        try:
            yield
        finally:
            self._is_child = False
            self._own.flush()

    # -- in the worker -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def worker(self, worker: Worker) -> Iterator[None]:
        """See Extension: export what is left at the end of the worker."""
        self._workers += 1
        try:
            yield
        finally:
            self._workers -= 1
            self._own.flush()

    def ended(self, task: EndedTask, outcome: str, error: BaseException | None) -> None:
        """See Extension: count and measure the attempt. The span of a child that died is lost, so it is made here."""
        if not self.enabled or (outcome == "released" and task.seconds is None):
            return
        error_type = None if error is None else _type_of(error)
        meters = self._meters
        attributes = meters.attributes(task.queue, "run", function=task.function, error_type=error_type)
        meters.consumed.add(1, attributes)
        if task.seconds is not None:
            meters.duration.record(task.seconds, attributes)
        how = error.__context__ if isinstance(error, LimitExceeded) else error
        if isinstance(how, ChildFailed) and how.type_in_child is None and not task.is_command:
            self._add_lost_span(task, error or how)

    def _add_lost_span(self, task: EndedTask, error: BaseException) -> None:
        parent, links = self._relatives(task.meta)
        end = time.time_ns()
        span = self._tracer.start_span(
            _run_name(task),
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes=_run_attributes(task),
            links=links,
            start_time=end - int((task.seconds or 0.0) * 1e9),
        )
        _mark_failed(span, error)
        span.end(end)

    # -- providers -----------------------------------------------------------------------------------

    @property
    def _tracer(self) -> Tracer:
        return self._own.tracer

    @property
    def _meters(self) -> _Meters:
        return self._own.meters

    @property
    def _own(self) -> _Telemetry:
        """What this process uses: an exporter's thread and connection do not survive a fork."""
        found = self._telemetry
        if found is None or found.pid != os.getpid():
            found = self._telemetry = _Telemetry(_made(self._tracer_provider), _made(self._meter_provider))
        return found


class _Telemetry:
    """The tracer and the meters of one process."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        self.pid = os.getpid()
        self._providers = tracer_provider or trace.get_tracer_provider(), meter_provider or metrics.get_meter_provider()
        self.tracer = trace.get_tracer(__name__, __version__, tracer_provider=tracer_provider)
        self.meters = _Meters(metrics.get_meter(__name__, __version__, meter_provider=meter_provider))

    def flush(self) -> None:
        """Export what is left. The providers of the API, which export nothing, have no method for it."""
        for provider in self._providers:
            if (flush := getattr(provider, "force_flush", None)) is not None:
                flush(_FLUSH)


class _Meters:
    """The instruments, and their attributes with a bounded number of values."""

    def __init__(self, meter: Meter) -> None:
        messages = "{message}"
        self.sent = meter.create_counter(
            "messaging.client.sent.messages", messages, "Tasks that were enqueued, and calls that failed."
        )
        self.consumed = meter.create_counter(
            "messaging.client.consumed.messages", messages, "Attempts that have ended."
        )
        self.duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long the code of attempts ran.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._known: dict[str, set[str]] = {}

    def attributes(
        self, queue: str, operation: str, *, function: str | None = None, error_type: str | None = None
    ) -> dict[str, str]:
        """Return the attributes of a measurement."""
        varying = {
            "messaging.destination.name": queue,
            "dbtaskqueue.function": function,
            "error.type": error_type,
        }
        found = {name: self._bounded(name, value) for name, value in varying.items() if value is not None}
        return {"messaging.system": SYSTEM, "messaging.operation.name": operation, **found}

    def _bounded(self, name: str, value: str) -> str:
        known = self._known.setdefault(name, set())
        if value not in known:
            if len(known) >= MOST_NAMES:
                return OTHER
            known.add(value)
        return value


def _made(provider: T | Callable[[], T] | None) -> T | None:
    """Return a provider, which may be given as a function that makes it."""
    return provider() if callable(provider) else provider


def _attributes(queue: str, operation: str, kind: str) -> dict[str, str | int]:
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }


def _run_attributes(task: RunningTask | Task) -> dict[str, str | int]:
    attributes = _attributes(task.queue, "run", "process")
    attributes |= {"messaging.message.id": str(task.id), "dbtaskqueue.attempt": task.attempt}
    if task.function is not None:
        attributes["dbtaskqueue.function"] = task.function
    return attributes


def _run_name(task: RunningTask | Task) -> str:
    return f"run {task.queue if task.function is None else task.function}"


def _mark_failed(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", _type_of(error))
    span.set_status(Status(StatusCode.ERROR, str(error).partition("\n")[0][:_LONGEST_TEXT]))


def _type_of(error: BaseException) -> str:
    """Return the full name of an exception's class, that of a child's exception if the child reports it."""
    if isinstance(error, ChildFailed) and error.type_in_child is not None:
        return error.type_in_child
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _size(meta: Mapping[str, Any]) -> int:
    """Return about how many bytes the JSON has. What cannot be stored is refused later."""
    return len(repr(meta).encode(errors="replace"))


def _importance(header: str) -> int:
    return _HEADERS.index(header) if header in _HEADERS else len(_HEADERS)


# -- opentelemetry-instrument ----------------------------------------------------------------------

automatic = OpenTelemetry()
"""The extension of the instrumentor, where child processes find it."""


class DbtaskqueueInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # it has no types
    """Traces every ``TaskQueue`` that is created after ``instrument()``. ``opentelemetry-instrument`` finds it.

    ``instrument`` takes the arguments of ``OpenTelemetry``. They apply to this process; child processes use the global
    providers.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """See BaseInstrumentor: none, since the instrumentor is part of the library."""
        return ()

    def _instrument(self, **options: Any) -> None:
        OpenTelemetry.__init__(automatic, **options)
        if automatic not in for_all_queues:
            for_all_queues.append(automatic)

    def _uninstrument(self, **options: Any) -> None:
        automatic.enabled = False
        for_all_queues.remove(automatic)

"""The extension: spans where tasks are enqueued and where they run, and what a worker counts.

A span is made where its code runs. If its process was killed, nothing has exported it. So a worker makes the span of
a child that died, and the worker that rescues a task makes the span of the lost attempt.

Attempts of a task are not linked to each other: a span's id is not known before it starts, so each attempt would have
to store its own. They have the link to the same enqueue, and the task's id, in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer

from dbtaskqueue import ChildFailed, Extension, LimitExceeded, ReleaseTask, RunningTask, Task, TaskCancelled, Worker
from dbtaskqueue.extension import NewTasksView, NewTaskView

from .metrics import SYSTEM, Meters
from .providers import MeterSource, Telemetry, TracerSource

if TYPE_CHECKING:
    from dbtaskqueue.task import EndedTask

_MOST_META = 7 * 1024
"""The bytes of ``meta`` above which no more trace context is added. The limit of ``meta`` is 8 KiB."""
_HEADERS = "traceparent", "tracestate", "baggage"
_LONGEST_TEXT = 500
"""Characters of an error or of a message that a span has."""
_BETWEEN_EVENTS = 60.0
"""Seconds between two reports of progress that become events. The SDK keeps the last 128 events of a span."""
_NO_FAILURES = ReleaseTask, TaskCancelled, asyncio.CancelledError
_LOST = "lost"
"""The outcome of an attempt whose worker was lost, and the type of its error."""


class OpenTelemetry(Extension):
    """An extension that traces tasks: ``TaskQueue(…, extensions=[OpenTelemetry()])``.

    ``tracer_provider`` and ``meter_provider``: by default the global ones. A function that returns a provider is called
    once in each process. ``links``: each attempt is a trace of its own, linked to the span that enqueued the task. With
    False, it is a child of that span, in the same trace.
    """

    def __init__(
        self, tracer_provider: TracerSource = None, meter_provider: MeterSource = None, links: bool = True
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._links = links
        self._telemetry: Telemetry | None = None
        self._workers = 0
        self._is_child = False
        self._running: dict[RunningTask, _Attempt] = {}
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
            with self._span(_run_name(task), kind=SpanKind.CONSUMER, attributes=attributes, links=links) as span:
                self._running[task] = _Attempt(span)
                yield
        finally:
            self._running.pop(task, None)
            context.detach(token)

    @contextlib.contextmanager
    def step(self, task: RunningTask, name: str) -> Iterator[None]:
        """See Extension: a span "step NAME", in that of the attempt."""
        if not self.enabled:
            yield
            return
        with self._span(f"step {name}"):
            yield

    def progressed(self, task: RunningTask, done: float, total: float | None, message: str | None) -> None:
        """See Extension: an event of the attempt's span, at most one a minute."""
        attempt = self._running.get(task)
        if attempt is not None and (now := time.monotonic()) >= attempt.next_event:
            attempt.next_event = now + _BETWEEN_EVENTS
            said = {"done": done, "total": total, "message": None if message is None else str(message)[:_LONGEST_TEXT]}
            attributes = {f"dbtaskqueue.progress.{name}": value for name, value in said.items() if value is not None}
            attempt.span.add_event("progress", attributes)

    @contextlib.contextmanager
    def _span(self, name: str, **options: Any) -> Iterator[Span]:
        """Make a span around code of a task. Releases and cancellations are not failures."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        ) as span:
            try:
                yield span
            except _NO_FAILURES:
                raise
            except BaseException as error:
                span.record_exception(error)
                _mark_failed(span, _type_of(error), str(error))
                raise

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
        """See Extension: count and measure the attempt. If its process was killed, also make its span."""
        if not self.enabled or (outcome == "released" and task.seconds is None):
            return
        error_type = _LOST if outcome == _LOST else None
        if error is not None and outcome in ("failed", "abandoned"):
            error_type = _type_of(error)
        meters = self._meters
        attributes = meters.attributes(task.queue, "run", function=task.function, error_type=error_type)
        meters.consumed.add(1, attributes)
        if task.seconds is not None:
            meters.duration.record(task.seconds, attributes)
        if outcome == _LOST or _is_killed(error):
            self._add_span(task, error_type, task.error if error is None else str(error))

    def _add_span(self, task: EndedTask, error_type: str | None, text: str | None) -> None:
        """Make the span of an attempt of which no process has exported one."""
        if task.is_command:
            return
        parent, links = self._relatives(task.meta)
        end = time.time_ns()
        start = end - int((task.seconds or 0.0) * 1e9)
        if error_type == _LOST and task.started_at is not None:
            start = min(end, int(task.started_at.timestamp() * 1e9))
        span = self._tracer.start_span(
            _run_name(task),
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes=_run_attributes(task),
            links=links,
            start_time=start,
        )
        if error_type is not None:
            _mark_failed(span, error_type, text or "")
        span.end(end)

    # -- providers -----------------------------------------------------------------------------------

    @property
    def _tracer(self) -> Tracer:
        return self._own.tracer

    @property
    def _meters(self) -> Meters:
        return self._own.meters

    @property
    def _own(self) -> Telemetry:
        """What this process uses."""
        found = self._telemetry
        if found is None or found.pid != os.getpid():
            found = self._telemetry = Telemetry(self._tracer_provider, self._meter_provider)
        return found


class _Attempt:
    """An attempt that runs: its span, and when the next report of progress becomes an event, in monotonic time."""

    __slots__ = ("next_event", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.next_event = 0.0


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


def _mark_failed(span: Span, error_type: str, text: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, text.partition("\n")[0][:_LONGEST_TEXT]))


def _is_killed(error: BaseException | None) -> bool:
    """Return whether the child that ran an attempt has died."""
    how = error.__context__ if isinstance(error, LimitExceeded) else error
    return isinstance(how, ChildFailed) and how.type_in_child is None


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

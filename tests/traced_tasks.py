"""A traced queue at the top of a module, where a child process finds it. Spans are written to a file."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from dbtaskqueue import RetryPolicy, TaskQueue
from dbtaskqueue.integrations.opentelemetry import OpenTelemetry

FILE = "TRACED_SPANS"
"""The environment variable that names the file of all spans."""


class FileExporter(SpanExporter):
    """Appends each span to the file as a line of JSON."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(os.environ[FILE], "a", encoding="utf-8") as out:
            for span in spans:
                out.write(json.dumps({"pid": os.getpid(), **json.loads(span.to_json(indent=None))}) + "\n")
        return SpanExportResult.SUCCESS


def spans() -> list[dict[str, Any]]:
    """Return the spans of the file."""
    path = Path(os.environ[FILE])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def provider() -> TracerProvider:
    """Return a provider that exports after an hour, or when it is flushed."""
    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(FileExporter(), schedule_delay_millis=3_600_000))
    return made


queue = TaskQueue("sqlite:////nonexistent/traced.sqlite", open=False)
queue.use(OpenTelemetry(tracer_provider=provider))


@queue.task(name="inner")
def inner() -> str:
    """Make a span of the task's own, and return its trace."""
    with trace.get_tracer("mine", tracer_provider=None).start_as_current_span("mine") as span:
        return f"{span.get_span_context().trace_id:032x}"


@queue.task(name="fail", retry=RetryPolicy(max_attempts=1))
def fail() -> None:
    """Fail with an exception."""
    raise LookupError("no good")


@queue.task(name="die", retry=RetryPolicy(max_attempts=1))
def die() -> None:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


@queue.task(name="hang", retry=RetryPolicy(max_attempts=1), time_limit=1.0)
def hang(stubborn: bool) -> None:
    """Run longer than allowed; a stubborn task also ignores that it should stop."""
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
